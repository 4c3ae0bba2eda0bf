"""From likelihood to words: what is lost when the model must choose a letter, or say a name of its own accord.

Choosing among five is easier than naming one of all, so neither is compared with the other. Each way of answering is
compared with what the likelihood of the names would have answered to the *same* question, on the same images.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from fgdiag.store import Run, if_made
from fgdiag_probes.answered import kept_scores
from fgdiag_probes.drops import SIGNIFICANT
from fgdiag_probes.free_text import FreeText
from fgdiag_probes.intervals import clustered_means, holm
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.multiple_choice import MultipleChoice, among
from fgdiag_probes.reading import Readings

Way = Literal["multiple choice", "free text"]
COLUMNS = [
    *("level", "way", "images", "accuracy", "by_likelihood", "chance", "drop", "low", "high", "p_value"),
    *("significant", "drop_bits", "linked"),
]


@dataclass(frozen=True)
class _Task:
    """The same question answered twice, image by image.

    Attributes
    ----------
    rows
        (images,) rows of the run.
    said, by_likelihood
        (images,) share in [0, 1] answered rightly, in words and by the likelihood of the names on offer.
    chance
        Accuracy of a guess.
    bits_lost
        (images,) bits of the right answer that the likelihood gives and the words do not; None where words have none.
    """

    way: Way
    rows: np.ndarray
    said: np.ndarray
    by_likelihood: np.ndarray
    chance: float
    bits_lost: np.ndarray | None


def steps_to_words(run: Run, labels: Labels, answers: Readings) -> pd.DataFrame:
    """Compare multiple choice and free text with the likelihood of the names, as far as they were asked.

    Parameters
    ----------
    answers
        What the likelihood answers among all names of a level; see `fgdiag_probes.answered.read_answers`.

    Returns
    -------
    DataFrame
        One row a level and `way`: `accuracy` of the words and `by_likelihood` on the same `images` and the same
        question, `chance` of a guess; the `drop` between them in points (paired, 95 % interval `low` to `high`
        clustered by fine class, `p_value` Holm-corrected over the ways of a level, `significant`), `drop_bits`. And
        `linked`: the accuracy on the scale of the level, in [0, 1]. There the words keep the share of what the
        likelihood knows beyond chance that they keep of it at their own question, as index numbers are linked.
    """
    asked = _Asked.read(run)
    tables = [
        _compared(list(_tasks(asked, labels, answers, level)), labels, answers, level)
        for level in labels.levels
    ]
    return pd.concat(
        [table for table in tables if len(table)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True
    )


@dataclass(frozen=True)
class _Asked:
    """What a run has of words; None where it was not asked."""

    choice: MultipleChoice | None
    text: FreeText | None
    fine: pd.DataFrame | None
    coarse: pd.DataFrame | None

    @classmethod
    def read(cls, run: Run) -> Self:
        chosen = if_made(partial(MultipleChoice.read, run))
        told = if_made(partial(FreeText.read, run))
        fine, coarse = (kept_scores(run, level) if chosen else None for level in ("fine", "coarse"))
        return cls(chosen, told, fine, coarse)


def _tasks(asked: _Asked, labels: Labels, answers: Readings, level: Level) -> Iterator[_Task]:
    scores = asked.coarse if level == "coarse" else asked.fine
    if asked.choice and scores is not None and level in asked.choice.levels:
        yield _choosing(asked.choice, scores, level)
    if asked.text and level in asked.text.levels:
        yield _telling(asked.text, labels, answers, level)


def _choosing(found: MultipleChoice, scores: pd.DataFrame, level: Level) -> _Task:
    """Letters against the likeliest of the names on offer, in bits too; every order of the options is a question."""
    by = "letters" if "letters" in found.ways else "text"
    table = found.table.query("level == @level")
    rows, right = table["row"].to_numpy(), table["right"].to_numpy()
    values, at = scores.to_numpy(), scores.index.get_indexer(pd.Index(rows))
    column = {name: number for number, name in enumerate(scores)}
    offered = [
        values[row, [column[name] for name in options]]
        for row, options in zip(at, table["options"], strict=True)
    ]
    images, of_image = np.unique(rows, return_inverse=True)

    def mean(values: ArrayLike) -> np.ndarray:
        return np.bincount(of_image, np.asarray(values, float)) / np.bincount(of_image)

    said = mean(table[f"by_{by}"].to_numpy() == right)
    known = mean([of.argmax() == place for of, place in zip(offered, right, strict=True)])
    chance = float(mean([1 / len(of) for of in offered]).mean())
    bits = (
        mean(_bits(map(among, table["letters"]), right) - _bits(offered, right)) if by == "letters" else None
    )
    return _Task("multiple choice", images, said, known, chance, bits)


def _bits(scores: Iterable[np.ndarray], right: np.ndarray) -> np.ndarray:
    """Minus the log2 of the probability of the right one of a few, whose scores are in nats."""
    return np.array(
        [(np.logaddexp.reduce(of) - of[at]) / np.log(2) for of, at in zip(scores, right, strict=True)]
    )


def _telling(found: FreeText, labels: Labels, answers: Readings, level: Level) -> _Task:
    """Free text against the likeliest of all names of the level."""
    said = found.correct(labels.test, level)
    both = ~np.isnan(said) & ~np.isnan(answers[level].bits) & labels.asked(level, labels.test)
    right = answers[level].correct(labels, level).astype(float)
    return _Task("free text", labels.test[both], said[both], right[both], 0.0, None)


def _compared(tasks: list[_Task], labels: Labels, answers: Readings, level: Level) -> pd.DataFrame:
    rows = [_row(task, labels, answers, level) for task in tasks]
    table = pd.DataFrame(rows, columns=COLUMNS)
    p_value = holm(table["p_value"].to_numpy(float)) if rows else np.zeros(0)
    return table.assign(
        p_value=p_value, significant=(p_value < SIGNIFICANT) & (table["drop"].to_numpy(float) > 0)
    )


def _row(task: _Task, labels: Labels, answers: Readings, level: Level) -> dict[str, object]:
    clusters = labels.fine[task.rows]
    fall = clustered_means(100 * (task.by_likelihood - task.said)[None], clusters, step=100.0)
    accuracy, before = float(task.said.mean()), float(task.by_likelihood.mean())
    return {
        "level": level,
        "way": task.way,
        "images": len(task.rows),
        "accuracy": accuracy,
        "by_likelihood": before,
        "chance": task.chance,
        "drop": float(fall.mean[0]),
        "low": float(fall.low[0]),
        "high": float(fall.high[0]),
        "p_value": float(fall.p_value[0]),
        "drop_bits": np.nan if task.bits_lost is None else float(task.bits_lost.mean()),
        "linked": _linked(accuracy, before, task.chance, *_on_the_scale(labels, answers, level)),
    }


def _on_the_scale(labels: Labels, answers: Readings, level: Level) -> tuple[float, float]:
    """Accuracy of the likelihood among all names of the level, on all images, and chance there."""
    asked = labels.asked(level, labels.test) & ~np.isnan(answers[level].bits)
    return float(answers[level].correct(labels, level)[asked].mean()), labels.chance[level][0]


def _linked(said: float, by_likelihood: float, chance: float, whole: float, whole_chance: float) -> float:
    """NaN where the likelihood knows nothing beyond chance, of which no share can be kept."""
    if by_likelihood <= chance or whole <= whole_chance:
        return np.nan
    kept = max(0.0, (said - chance) / (by_likelihood - chance))
    base = whole_chance if chance else 0.0
    return min(1.0, base + kept * (whole - base))
