"""What the VLM itself says of every test image: which class name it finds likeliest as its answer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fgdiag.progress import track
from fgdiag.prompts import COARSE_QUESTION, spoken
from fgdiag.store import write_table
from fgdiag_probes.likelihood import name_likelihood

if TYPE_CHECKING:
    from fgdiag.images import ImageSet
    from fgdiag.store import Run
    from fgdiag.vlm import VLM

IMAGES_A_PART = 64


@dataclass(frozen=True)
class Answers:
    """What the VLM said of every test image, by the likelihood of the class names.

    Attributes
    ----------
    table
        One row a test image: `row`, `fine`, `coarse`; `said_fine` among all fine names, `said_fine_within_coarse`
        among those of the image's coarse class, `said_coarse` among all coarse names; and `bits_...`, minus the
        log2 of the true name's probability among the same names.
    """

    table: pd.DataFrame

    def accuracy(self) -> dict[str, float]:
        """Share of test images named right, by level; fine|coarse counts images whose class has siblings.

        A level without such images is left out.
        """
        column = {str(name): self.table[name].to_numpy() for name in self.table}
        right = {"fine": column["said_fine"] == column["fine"]}
        if "said_coarse" in column:
            right["coarse"] = column["said_coarse"] == column["coarse"]
            within = column["said_fine_within_coarse"] == column["fine"]
            right["fine|coarse"] = within[column["siblings"] > 1]
        return {level: float(hits.mean()) for level, hits in right.items() if len(hits)}

    def frame(self) -> pd.DataFrame:
        """One row a level: `level`, `accuracy` in [0, 1]."""
        return pd.DataFrame(list(self.accuracy().items()), columns=["level", "accuracy"])

    def json(self) -> dict[str, Any]:
        """Accuracy by level, and how many images were asked about."""
        return {"images": len(self.table), "accuracy": self.accuracy()}


def answer(run: "Run", vlm: "VLM", images: "ImageSet") -> Answers:
    """Ask the VLM about every readable test image and write `results/answers.parquet`.

    The fine names are asked for with the run's own prompt, the coarse ones with "What kind of thing is this?".
    Parts of 64 images are kept in `results/answers/`, so an interrupted call goes on where it stopped.
    """
    table = run.images
    split = table["split"].to_numpy(str)
    test = np.flatnonzero((split == "test") & (table["status"] == "ok").to_numpy())
    names = {level: np.unique(table[level].to_numpy(str)[split != "excluded"]) for level in images.levels}
    starts = range(0, len(test), IMAGES_A_PART)
    files = [run.result_path(f"answers/{start:06d}.parquet") for start in starts]
    todo = [(start, file) for start, file in zip(starts, files, strict=True) if not file.exists()]
    done = len(test) - sum(len(test[start : start + IMAGES_A_PART]) for start, _ in todo)
    for start, file in track(
        todo, description="asking the model", total=len(test), done=done, size=IMAGES_A_PART
    ):
        rows = test[start : start + IMAGES_A_PART]
        file.parent.mkdir(parents=True, exist_ok=True)
        write_table(file, _ask(vlm, images, table, rows, names, run.manifest["prompt"]))
    answers = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    run.write_table("answers", answers)
    return Answers(answers)


def _ask(
    vlm: "VLM",
    images: "ImageSet",
    table: pd.DataFrame,
    rows: np.ndarray,
    names: dict[str, np.ndarray],
    prompt: str,
) -> pd.DataFrame:
    pictures = [images.open(int(row)) for row in rows]
    fine_of, coarse_of = table["fine"].to_numpy(str), table["coarse"].to_numpy(str)
    part = pd.DataFrame({"row": rows, "fine": fine_of[rows], "coarse": coarse_of[rows]})
    fine = name_likelihood(vlm, pictures, [spoken(name) for name in names["fine"]], prompt)
    _record(part, "fine", fine, names["fine"])
    if "coarse" in names:
        coarse = name_likelihood(vlm, pictures, [spoken(name) for name in names["coarse"]], COARSE_QUESTION)
        _record(part, "coarse", coarse, names["coarse"])
        kind_of = dict(zip(fine_of, coarse_of, strict=True))
        kinds = np.array([kind_of[name] for name in names["fine"]])
        siblings = kinds[None] == coarse_of[rows, None]
        _record(part, "fine_within_coarse", np.where(siblings, fine, -np.inf), names["fine"])
        part["siblings"] = siblings.sum(1)
    return part


def _record(part: pd.DataFrame, what: str, scores: np.ndarray, names: np.ndarray) -> None:
    """Add what was said and the bits of the true name, its probability taken among the given names."""
    truth = part["coarse" if what == "coarse" else "fine"].to_numpy(str)
    true = scores[np.arange(len(scores)), np.searchsorted(names, truth)]
    total = np.logaddexp.reduce(scores.astype(np.float64), axis=1)
    part[f"said_{what}"] = names[scores.argmax(1)]
    part[f"bits_{what}"] = ((total - true) / np.log(2)).astype(np.float32)
