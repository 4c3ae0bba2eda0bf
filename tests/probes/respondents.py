"""Respondents whose every answer is known beforehand."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from fgdiag_probes.asking import Question, Reply
from PIL import Image


class Pictures:
    """Opens images as an image set does; each is its row, written in its width."""

    def open(self, row: int) -> Image.Image:
        return Image.new("L", (row + 1, 1))


@dataclass
class Scripted:
    """Answers by a function of a question and of the row of its image; counts what it is asked."""

    answer: Callable[[Question, int], Reply]
    name: str = "scripted"
    keeps_replies: bool = False
    asked: int = 0
    stop_after: int | None = None
    rows: list[int] = field(default_factory=list)

    def replies(self, questions: Sequence[Question]) -> Iterator[Reply]:
        for question in questions:
            if self.asked == self.stop_after:
                raise KeyboardInterrupt
            self.asked += 1
            row = question.picture().width - 1
            self.rows.append(row)
            yield self.answer(question, row)


def letter(question: Question, chosen: str, sure: float = 2.0) -> Reply:
    """Say a letter, by `sure` nats likelier than each other one."""
    logs = np.array([sure * (one == chosen) for one in question.letters])
    return Reply(chosen, tuple((logs - np.logaddexp.reduce(logs)).tolist()))


def options_in(question: Question) -> dict[str, str]:
    """Letter by option, as the question shows them."""
    lines = [line.partition(". ") for line in question.text.splitlines()]
    return {name: mark for mark, _, name in lines if len(mark) == 1}
