"""What the VLM itself says of every test image: which class name it finds likeliest as its answer.

And what it would say without looking: the names' likelihoods when the same is asked without an image. They are a
control, and the prior by which the likelihoods with the image are corrected.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from PIL import Image

from fgdiag.memory import no_memory
from fgdiag.progress import say, track
from fgdiag.prompts import COARSE_QUESTION, spoken
from fgdiag.store import write_table
from fgdiag_probes.likelihood import name_likelihood

if TYPE_CHECKING:
    from fgdiag.images import ImageSet
    from fgdiag.store import Run
    from fgdiag.vlm import VLM

IMAGES_A_PART = 64
METHOD = 2
"""Raised when parts of the answers are computed otherwise, so that those of an older fgdiag are not mixed in."""

Way = Literal["plain", "corrected", "blind"]
WAYS: dict[Way, str] = {"plain": "", "corrected": "_corrected", "blind": "_blind"}
"""How a name is chosen, and how the columns `said_...` of that choice end."""

Scores = dict[str, np.ndarray]
"""Nats by level."""


@dataclass(frozen=True)
class Answers:
    """What the VLM said of every test image, by the likelihood of the class names.

    Attributes
    ----------
    table
        One row a test image: `row`, `fine`, `coarse`; `said_fine` among all fine names, `said_fine_within_coarse`
        among those of the image's coarse class, `said_coarse` among all coarse names; and `bits_...`, minus the
        log2 of the true name's probability among the same names. `said_..._blind` is what the model finds
        likeliest without any image, `said_..._corrected` what the image makes likelier by the largest factor:
        P(name | image, question) / P(name | question), the domain-conditional PMI of [1]_. It uses no label, and
        no other image. Both are missing where the model cannot run without an image.

    References
    ----------
    .. [1] A. Holtzman et al., "Surface Form Competition", EMNLP 2021, arXiv 2104.08315.
    """

    table: pd.DataFrame

    def accuracy(self, way: Way = "plain") -> dict[str, float]:
        """Share of test images named right, by level; fine|coarse counts images whose class has siblings.

        A level without such images is left out, and so is all that the table lacks.

        Parameters
        ----------
        way
            `plain`: by the likelihood as it is; `corrected`: by the likelihood over the one without the image;
            `blind`: by that alone, so always the same name, or among siblings always the same one of them.
        """
        column = {str(name): self.table[name].to_numpy() for name in self.table}
        end, right = WAYS[way], {}
        if f"said_fine{end}" in column:
            right["fine"] = column[f"said_fine{end}"] == column["fine"]
        if f"said_coarse{end}" in column:
            right["coarse"] = column[f"said_coarse{end}"] == column["coarse"]
            within = column[f"said_fine_within_coarse{end}"] == column["fine"]
            right["fine|coarse"] = within[column["siblings"] > 1]
        return {level: float(hits.mean()) for level, hits in right.items() if len(hits)}

    def frame(self) -> pd.DataFrame:
        """One row a level: `level`, `accuracy` in [0, 1], and the same `corrected` and `blind` where there is that."""
        found = {"accuracy": self.accuracy()} | self._controls()
        return pd.DataFrame(found).rename_axis("level").reset_index()

    def json(self) -> dict[str, Any]:
        """How many images were asked about, and the accuracy by level; the same `corrected` and `blind`."""
        return {"images": len(self.table), "accuracy": self.accuracy(), **self._controls()}

    def _controls(self) -> dict[str, dict[str, float]]:
        found = {way: self.accuracy(way) for way in ("corrected", "blind")}
        return {way: by_level for way, by_level in found.items() if by_level}


def answer(run: "Run", vlm: "VLM", images: "ImageSet") -> Answers:
    """Ask the VLM about every readable test image and write `results/answers.parquet`.

    The fine names are asked for with the run's own prompt, the coarse ones with "What kind of thing is this?".
    Parts of 64 images are kept in `results/answers/`, so an interrupted call goes on where it stopped. What the
    model says without an image is kept in `results/blind.json`.
    """
    table = run.images
    split = table["split"].to_numpy(str)
    test = np.flatnonzero((split == "test") & (table["status"] == "ok").to_numpy())
    names = {level: np.unique(table[level].to_numpy(str)[split != "excluded"]) for level in images.levels}
    blind = blind_scores(run, vlm, names)
    starts = range(0, len(test), IMAGES_A_PART)
    files = [run.result_path(f"answers/{METHOD}/{start:06d}.parquet") for start in starts]
    todo = [(start, file) for start, file in zip(starts, files, strict=True) if not file.exists()]
    done = len(test) - sum(len(test[start : start + IMAGES_A_PART]) for start, _ in todo)
    for start, file in track(
        todo, description="asking the model", total=len(test), done=done, size=IMAGES_A_PART
    ):
        rows = test[start : start + IMAGES_A_PART]
        write_table(file, _ask(vlm, images, table, rows, names, run.manifest["prompt"], blind))
    answers = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    run.write_table("answers", answers)
    return Answers(answers)


def blind_scores(run: "Run", vlm: "VLM", names: dict[str, np.ndarray]) -> Scores:
    """Log-probability of each class name where the question is asked without an image.

    Parameters
    ----------
    names
        Class names by level: `fine`, and perhaps `coarse`.

    Returns
    -------
    dict
        (names,) float32 in nats by level; empty where the model cannot run without an image. Either is kept in
        `results/blind.json`, and read from there the next time.
    """
    if not run.result_path("blind.json").exists():
        scores, reason = _ask_blind(vlm, names, run.manifest["prompt"])
        if reason:
            say(f"the model is not asked without an image: {reason}")
        kept = {
            level: dict(zip(names[level].tolist(), values.tolist(), strict=True))
            for level, values in scores.items()
        }
        run.write_json("blind", {"scores": kept, "skipped": reason})
    kept = run.read_json("blind")["scores"]
    return {level: np.array([of[name] for name in names[level]], np.float32) for level, of in kept.items()}


def _ask_blind(vlm: "VLM", names: dict[str, np.ndarray], prompt: str) -> tuple[Scores, str | None]:
    """Scores by level; or none, and why."""
    questions = {"fine": prompt, "coarse": COARSE_QUESTION}
    try:
        scores = {
            level: _likelihood(_Blinded(vlm), [_UNSEEN], of, questions[level])[0]
            for level, of in names.items()
        }
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        if no_memory(error):
            raise
        return {}, f"it cannot run so ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if not all(np.isfinite(values).all() for values in scores.values()):
        return {}, "its likelihoods are then not finite"
    return scores, None


_UNSEEN = Image.new("RGB", (8, 8))


class _Blinded:
    """A VLM whose prompts have no image, whatever picture is given with them."""

    def __init__(self, vlm: "VLM") -> None:
        self._vlm = vlm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vlm, name)

    def chat(self, question: str) -> str:
        return self._vlm.chat(question, image=False)

    def inputs(self, _pictures: object, text: str) -> Any:
        return self._vlm.inputs([], text)


def _likelihood(vlm: Any, pictures: list[Image.Image], names: np.ndarray, question: str) -> np.ndarray:
    return name_likelihood(vlm, pictures, [spoken(name) for name in names], question)


def _ask(
    vlm: "VLM",
    images: "ImageSet",
    table: pd.DataFrame,
    rows: np.ndarray,
    names: dict[str, np.ndarray],
    prompt: str,
    blind: Scores,
) -> pd.DataFrame:
    pictures = [images.open(int(row)) for row in rows]
    fine_of, coarse_of = table["fine"].to_numpy(str), table["coarse"].to_numpy(str)
    part = pd.DataFrame({"row": rows, "fine": fine_of[rows], "coarse": coarse_of[rows]})
    fine = _likelihood(vlm, pictures, names["fine"], prompt)
    _record(part, "fine", fine, names["fine"], blind.get("fine"))
    if "coarse" in names:
        coarse = _likelihood(vlm, pictures, names["coarse"], COARSE_QUESTION)
        _record(part, "coarse", coarse, names["coarse"], blind.get("coarse"))
        kind_of = dict(zip(fine_of, coarse_of, strict=True))
        kinds = np.array([kind_of[name] for name in names["fine"]])
        siblings = kinds[None] == coarse_of[rows, None]
        _record(
            part, "fine_within_coarse", np.where(siblings, fine, -np.inf), names["fine"], blind.get("fine")
        )
        part["siblings"] = siblings.sum(1)
    return part


def _record(
    part: pd.DataFrame, what: str, scores: np.ndarray, names: np.ndarray, blind: np.ndarray | None
) -> None:
    """Add what was said, and the bits of the true name, its probability taken among the names that are not at -inf."""
    truth = part["coarse" if what == "coarse" else "fine"].to_numpy(str)
    true = scores[np.arange(len(scores)), np.searchsorted(names, truth)]
    total = np.logaddexp.reduce(scores.astype(np.float64), axis=1)
    part[f"said_{what}"] = names[scores.argmax(1)]
    part[f"bits_{what}"] = ((total - true) / np.log(2)).astype(np.float32)
    if blind is not None:
        part[f"said_{what}_corrected"] = names[(scores - blind).argmax(1)]
        part[f"said_{what}_blind"] = names[np.where(np.isneginf(scores), -np.inf, blind).argmax(1)]
