"""What is asked about an image and what is to be answered, as text and as tokens around the image."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

import numpy as np

from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.prompts import COARSE_QUESTION, FINE_QUESTION, answer_tokens, spoken


@dataclass(frozen=True)
class Kind:
    """One kind of question: its wordings, and the answer, in which `{fine}` and `{coarse}` are filled in."""

    questions: tuple[str, ...]
    answer: str


_DESCRIBE = ("Describe the picture.", "What does the picture show?", "Caption this picture.")
KINDS: Mapping[str, Kind] = {
    "fine": Kind(
        (
            FINE_QUESTION,
            "Name exactly what is shown.",
            "Which exact kind is this?",
            "What is the specific name of this?",
            "Tell me precisely what you see.",
        ),
        "{fine}",
    ),
    "coarse": Kind(
        (
            COARSE_QUESTION,
            "Name the general kind of thing shown.",
            "Which kind does this belong to?",
            "In general, what is this?",
        ),
        "{coarse}",
    ),
    "caption": Kind(_DESCRIBE, "A picture of {fine}, a kind of {coarse}."),
    "caption-without-names": Kind(_DESCRIBE, "A picture of {coarse}."),
}
"""What a plan can ask. The last two are captions that name the fine class, and that do not."""


@dataclass(frozen=True)
class Teaching:
    """Images to learn from, and what is asked about them.

    Attributes
    ----------
    images
        Their `train` rows are learnt from, their `val` rows only scored.
    questions
        Wordings of one question that the fine label answers, such as "How many birds are there?" where the labels are
        numbers; none where the plan's kinds of question are asked.
    """

    images: ImageSet
    questions: tuple[str, ...] = ()

    @classmethod
    def open(cls, source: str) -> Self:
        """Open `IMAGES`, or `IMAGES?QUESTION` where the fine labels answer a question of their own.

        Raises
        ------
        ImagesNotUsable
            See `fgdiag.open_images`.
        """
        place, question = source_and_question(source)
        return cls.of(open_images(place), question)

    @classmethod
    def of(cls, images: ImageSet, question: str) -> Self:
        """Teach by opened images; by the plan's kinds of question where the question is empty."""
        return cls(images, (question,) if question else ())

    @property
    def digest(self) -> str:
        """Changes with the images, their labels or the questions."""
        return "/".join((self.images.digest, *self.questions))

    def draw(self, row: int, ask: Mapping[str, float], rng: np.random.Generator) -> tuple[str, str]:
        """Draw a question about the image of a row, and its answer."""
        label = self.images.table.iloc[row]
        if self.questions:
            return str(rng.choice(self.questions)), spoken(label["fine"])
        shares = np.array(list(ask.values()), float)
        kind = KINDS[list(ask)[rng.choice(len(shares), p=shares / shares.sum())]]
        names = {level: spoken(label[level]) for level in ("fine", "coarse")}
        return str(rng.choice(kind.questions)), kind.answer.format(**names)


def source_and_question(source: str) -> tuple[str, str]:
    """Take `IMAGES?QUESTION` apart; the question is empty where there is none."""
    place, _, question = source.partition("?")
    return place, question.strip()


@dataclass(frozen=True)
class Lesson:
    """Token ids around the image: `before` <image> `question`, then the `answer` the loss falls on."""

    before: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]


class Tokenized:
    """Turns questions and answers into lessons, with the chat template of a processor."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.lesson = cache(self._lesson)

    def _lesson(self, question: str, answer: str) -> Lesson:
        content: Any = [{"type": "image"}, {"type": "text", "text": question}]
        prompt = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        tokenizer = self.processor.tokenizer
        asked = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        image = asked.index(tokenizer.convert_tokens_to_ids(self.processor.image_token))
        said = (*answer_tokens(tokenizer, prompt, answer), tokenizer.eos_token_id)
        return Lesson(tuple(asked[:image]), tuple(asked[image + 1 :]), said)
