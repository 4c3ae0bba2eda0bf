"""Multiple-choice questions about test images: which options, in which order, in which words. Nothing is asked here."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from string import ascii_uppercase
from typing import TYPE_CHECKING, Self

import numpy as np
import pandas as pd
from PIL.Image import Image

from fgdiag.prompts import COARSE_QUESTION
from fgdiag.store import Run
from fgdiag_probes.asking import Example, Question
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.miners import NOTHING, Miner, offered
from fgdiag_probes.naming import ClassNames
from fgdiag_probes.sampled import examples_of, sampled
from fgdiag_probes.wordings import MOST, choice_text

if TYPE_CHECKING:
    from fgdiag.images import ImageSet

OPTIONS = 5
MOST_OPTIONS = len(ascii_uppercase)
# "B", "(b).", "B) Barn Owl", "**Answer:** B", "It is B"; but not the article of "A barn owl" or "It is a barn owl".
_ALONE = re.compile(r"^\W*(?:option\s+)?([a-z])\s*(?:$|[.):,;*\n\]])", re.IGNORECASE)
_LISTED = re.compile(r"^\W*([A-Z])\s*[.):]", re.MULTILINE)
_STATED = re.compile(
    r"\b(?:(?i:answer|option|choice|letter)(?:\s+is)?\W+(?:(?i:option)\s+)?|(?i:it\s+is|it['’]s|say|choose|pick)\s+\W*)"
    r"([A-Z])\b(?!\s+[a-z])"
)


@dataclass(frozen=True)
class ChoiceQuestions:
    """What is to be asked.

    Attributes
    ----------
    table
        One row a question, those about one image together: `row` of the run, `fine`, `coarse`, `level`, `wording`,
        `order` (by how many places the options are turned), `prompt`, `options` (class names in their order),
        `right` (position of the right one, from 0).
    questions
        One for each row of the table.
    pictures
        Ids of the images that each question shows.
    """

    table: pd.DataFrame
    questions: list[Question]
    pictures: list[str]


def choice_questions(
    run: Run,
    images: "ImageSet",
    labels: Labels,
    miner: Miner,
    *,
    options: int = OPTIONS,
    wordings: int = 1,
    examples: int = 0,
    sample: int | None = None,
    seed: int = 0,
) -> ChoiceQuestions:
    """Write the questions about test images, at every level, in every wording and every order of the options.

    The options of an image are turned through all places, so the right one stands at each of them once.

    Parameters
    ----------
    options
        Options a question, 2 to 26; fewer where there are fewer classes to choose from.
    wordings
        How many of `fgdiag_probes.wordings.CHOICE`.
    examples
        Training images shown with their right letter before each question.
    sample
        Test images asked about, drawn evenly over the fine classes; None: all.
    seed
        Of options, examples and sample. A larger sample asks what a smaller one did, and more.
    """
    decks = [_Deck.of(run, images, labels, miner, level, options, examples, seed) for level in labels.levels]
    rows, questions, pictures = [], [], []
    ids = run.images["id"].to_numpy(str)
    for at in np.flatnonzero(np.isin(labels.test, sampled(labels, sample, seed))):
        row = int(labels.test[at])
        about = {"row": row, "fine": labels.fine_names[labels.fine[row]]}
        about["coarse"] = labels.coarse_names[labels.coarse[row]]
        picture = partial(images.open, row)
        for deck in decks:
            for wording, order, names, right in deck.turns(int(at), wordings):
                text = choice_text(deck.question, names, wording)
                letters = tuple(ascii_uppercase[: len(names)])
                questions.append(Question(picture, text, letters, deck.examples[wording]))
                pictures.append(" ".join([str(ids[row]), *deck.example_ids]))
                how = {"level": deck.level, "wording": wording, "order": order}
                rows.append({**about, **how, "prompt": text, "options": names, "right": right})
    return ChoiceQuestions(pd.DataFrame(rows), questions, pictures)


def chosen_in(text: str, options: Sequence[str]) -> int:
    """Position of the option that a text chooses, by its letter or else by naming no other one; -1 where it does not.

    A text that repeats the list of options chooses none.

    Examples
    --------
    >>> [chosen_in(text, ["Owl", "Tit"]) for text in ("B.", "The answer is A", "A tit", "Both")]
    [1, 0, 1, -1]
    """
    if len(set(_LISTED.findall(text))) > 1:
        return -1
    stated = _ALONE.match(text) or _STATED.search(text)
    if stated:
        position = ascii_uppercase.index(stated[1].upper())
        return position if position < len(options) else -1
    named = _names_of(tuple(sorted(options))).in_text(text).fine
    return list(options).index(named[0]) if len(named) == 1 else -1


@cache
def _names_of(options: tuple[str, ...]) -> ClassNames:
    return ClassNames.of(dict.fromkeys(options, ""))


@dataclass(frozen=True)
class _Deck:
    """The options of all test images at one level, and the examples shown before.

    Attributes
    ----------
    names
        Classes of the level.
    truth, options
        (test,) and (test, options) codes into `names`.
    examples
        By wording.
    """

    level: Level
    question: str
    names: np.ndarray
    truth: np.ndarray
    options: np.ndarray
    examples: list[tuple[Example, ...]]
    example_ids: list[str]

    @classmethod
    def of(
        cls,
        run: Run,
        images: "ImageSet",
        labels: Labels,
        miner: Miner,
        level: Level,
        options: int,
        examples: int,
        seed: int,
    ) -> Self:
        def deal(rows: np.ndarray, seed: int) -> np.ndarray:
            rng = np.random.default_rng([seed, labels.levels.index(level)])
            candidates = labels.candidates(level, rows)
            return offered(miner.similarity(level), candidates, codes[rows], options, rng)

        question = COARSE_QUESTION if level == "coarse" else run.manifest["prompt"]
        names, codes = labels.names(level), labels.codes(level)
        taught = examples_of(labels, level, examples, seed)
        told = cls(level, question, names, codes[taught], deal(taught, seed + 1), [], [])
        shown = [
            tuple(told.example(at, partial(images.open, int(row)), wording) for at, row in enumerate(taught))
            for wording in range(MOST)
        ]
        ids = run.images["id"].to_numpy(str)[taught].tolist()
        return cls(level, question, names, codes[labels.test], deal(labels.test, seed), shown, ids)

    def turns(self, at: int, wordings: int) -> Iterator[tuple[int, int, list[str], int]]:
        """Wording, order, names in that order and the place of the right one; nothing where there is no choice."""
        codes = self.options[at][self.options[at] != NOTHING]
        for wording, order in product(range(wordings), range(len(codes) if len(codes) > 1 else 0)):
            turned = np.roll(codes, order)
            names = [str(self.names[code]) for code in turned]
            yield wording, order, names, int(np.flatnonzero(turned == self.truth[at])[0])

    def example(self, at: int, picture: Callable[[], Image], wording: int) -> Example:
        """Question and right letter about an image whose options are these."""
        _, _, names, right = next(self.turns(at, 1))
        return Example(picture, choice_text(self.question, names, wording), ascii_uppercase[right])
