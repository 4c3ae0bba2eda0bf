"""What a model is asked and what it replies, whoever runs it: this process or a server."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL.Image import Image


@dataclass(frozen=True)
class Example:
    """A question about another picture with its right answer, shown as an earlier turn of the conversation.

    Attributes
    ----------
    picture
        Opens the RGB image.
    text
        What was asked about it.
    answer
        The right reply.
    """

    picture: Callable[[], Image]
    text: str
    answer: str


@dataclass(frozen=True)
class Question:
    """One question about one picture.

    Attributes
    ----------
    picture
        Opens the RGB image; called only where the question is really asked.
    text
        What is asked, without chat template.
    letters
        Letters of which one is expected as the answer; none where the answer is free text.
    examples
        Shown before the question; they need a model that takes several images.
    """

    picture: Callable[[], Image]
    text: str
    letters: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True)
class Reply:
    """What a model replied.

    Attributes
    ----------
    text
        The generated text as it came.
    letters
        Log-probability in nats of each of the question's letters as the beginning of the reply, in their order, -inf
        where the model does not tell of one; None where it tells of none at all.
    """

    text: str
    letters: tuple[float, ...] | None = None


class Respondent(Protocol):
    """Whoever answers questions: an opened VLM, or a served one."""

    name: str
    """As it is written into results."""
    keeps_replies: bool
    """Whether it keeps what it has replied itself; else the run does."""

    def replies(self, questions: Sequence[Question]) -> Iterator[Reply]:
        """Answer every question, in order, each as soon as it is there."""
        ...
