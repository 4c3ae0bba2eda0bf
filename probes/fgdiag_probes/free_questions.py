"""Questions about test images that any words may answer. Nothing is asked here."""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fgdiag.prompts import spoken
from fgdiag.store import Run
from fgdiag_probes.asking import Example, Question
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.sampled import examples_of, sampled
from fgdiag_probes.wordings import free_text

if TYPE_CHECKING:
    from fgdiag.images import ImageSet


@dataclass(frozen=True)
class FreeQuestions:
    """What is to be asked.

    Attributes
    ----------
    table
        One row a question: `row` of the run, `fine`, `coarse`, `level`, `wording`, `prompt`.
    questions
        One for each row of the table.
    pictures
        Ids of the images that each question shows.
    """

    table: pd.DataFrame
    questions: list[Question]
    pictures: list[str]


def free_questions(
    run: Run,
    images: "ImageSet",
    labels: Labels,
    *,
    wordings: int = 1,
    examples: int = 0,
    sample: int | None = None,
    seed: int = 0,
) -> FreeQuestions:
    """Write the questions about test images at every level, in `wordings` of `fgdiag_probes.wordings.FREE`.

    Parameters
    ----------
    wordings, examples, sample, seed
        See `fgdiag_probes.choices.choice_questions`.
    """
    ids = run.images["id"].to_numpy(str)
    fine, coarse = (run.images[name].to_numpy(str) for name in ("fine", "coarse"))

    def asked(level: Level, row: int, wording: int) -> str:
        return free_text(level, run.manifest["prompt"], str(coarse[row]), wording)

    taught = {level: examples_of(labels, level, examples, seed).tolist() for level in labels.levels}
    shown = {
        (level, wording): tuple(
            Example(
                partial(images.open, row),
                asked(level, row, wording),
                spoken(str(coarse[row] if level == "coarse" else fine[row])),
            )
            for row in taught[level]
        )
        for level in labels.levels
        for wording in range(wordings)
    }
    rows, questions, pictures = [], [], []
    for row in sampled(labels, sample, seed).tolist():
        picture = partial(
            images.open, row
        )  # one and the same for all its questions, which then share its prefix
        for level in labels.levels:
            if not labels.asked(level, np.array([row]))[0]:
                continue
            for wording in range(wordings):
                text = asked(level, row, wording)
                questions.append(Question(picture, text, (), shown[level, wording]))
                pictures.append(" ".join(ids[[row, *taught[level]]].tolist()))
                about = {"row": row, "fine": fine[row], "coarse": coarse[row]}
                rows.append({**about, "level": level, "wording": wording, "prompt": text})
    return FreeQuestions(pd.DataFrame(rows), questions, pictures)
