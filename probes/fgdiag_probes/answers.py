"""What the VLM itself says of every test image: which class name it finds likeliest as its answer.

By the likelihood as it is, by its mean over a name's tokens, less a prior of the names, and without looking.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from fgdiag.progress import track
from fgdiag.prompts import COARSE_QUESTION, spoken
from fgdiag.store import write_table
from fgdiag_probes.blind import Scores, blind_scores
from fgdiag_probes.likelihood import name_lengths, name_likelihood
from fgdiag_probes.prior import Correction, choose_correction, training_prior, training_sample

if TYPE_CHECKING:
    from fgdiag.images import ImageSet
    from fgdiag.store import Run
    from fgdiag.vlm import VLM

IMAGES_A_PART = 64
METHOD = 3
"""Raised when parts of the answers are computed otherwise, so that those of an older fgdiag are not mixed in."""

Way = Literal["plain", "mean", "corrected", "blind"]
WAYS: dict[Way, str] = {"plain": "", "mean": "_mean", "corrected": "_corrected", "blind": "_blind"}
"""How a name is chosen, and how the columns `said_...` of that choice end."""

LEVELS = {"fine": "fine", "coarse": "coarse", "fine_within_coarse": "fine|coarse"}
"""What is said, as the columns name it, and the level of that."""


@dataclass(frozen=True)
class Answers:
    """What the VLM said of every test image, by the likelihood of the class names.

    Attributes
    ----------
    table
        One row a test image: `row`, `fine`, `coarse`; `said_fine` among all fine names, `said_fine_within_coarse`
        among those of the image's coarse class, `said_coarse` among all coarse names; and `bits_...`, minus the
        log2 of the true name's probability among the same names. `said_..._mean` is the likeliest name by the mean
        over its tokens instead of their sum; `said_..._corrected` by the likelihood less a weighted prior of the
        names, `weight_...` of it, both chosen on training images (`fgdiag_probes.prior`); `said_..._blind` is what
        the model finds likeliest without any image. Columns are missing where the model cannot run without an
        image, and in runs of an older fgdiag, whose prior was the answer without an image, at weight 1.
    """

    table: pd.DataFrame

    def accuracy(self, way: Way = "plain") -> dict[str, float]:
        """Share of test images named right, by level; fine|coarse counts images whose class has siblings.

        A level without such images is left out, and so is all that the table lacks.

        Parameters
        ----------
        way
            `plain`: by the likelihood as it is; `mean`: by its mean over the tokens of a name; `corrected`: less a
            prior of the names; `blind`: by the likelihood without the image alone, so always the same name, or
            among siblings always the same one of them.
        """
        table, right = self.table, {}
        for what, level in LEVELS.items():
            said = f"said_{what}{WAYS[way]}"
            if said in table:
                hits = (table[said] == table["coarse" if level == "coarse" else "fine"]).to_numpy()
                right[level] = hits[table["siblings"] > 1] if level == "fine|coarse" else hits
        return {level: float(hits.mean()) for level, hits in right.items() if len(hits)}

    def frame(self) -> pd.DataFrame:
        """One row a level: `level`, `accuracy` in [0, 1], and the same by the other ways that the table has."""
        found = {"accuracy": self.accuracy()} | self._other_ways()
        return pd.DataFrame(found).rename_axis("level").reset_index()

    def json(self) -> dict[str, Any]:
        """How many images were asked about, and the accuracy by level; the same by the other ways, and the weights."""
        weights = {LEVELS[what]: float(self.table[f"weight_{what}"].iloc[0]) for what in self._weighted()}
        found: dict[str, Any] = {"images": len(self.table), "accuracy": self.accuracy(), **self._other_ways()}
        return found | ({"weights": weights} if weights else {})

    def _weighted(self) -> list[str]:
        return [what for what in LEVELS if f"weight_{what}" in self.table and len(self.table)]

    def _other_ways(self) -> dict[str, dict[str, float]]:
        found = {way: self.accuracy(way) for way in WAYS if way != "plain"}
        return {way: by_level for way, by_level in found.items() if by_level}


def answer(run: "Run", vlm: "VLM", images: "ImageSet") -> Answers:
    """Ask the VLM about every readable test image and write `results/answers.parquet`.

    The fine names are asked for with the run's own prompt, the coarse ones with "What kind of thing is this?".
    The names' scores are kept in `results/answers/` in parts of 64 images, so an interrupted call goes on where it
    stopped. What the model says without an image is kept in `results/blind.json`, and in `results/prior.json` the
    prior and the weight that name most of up to 200 training images rightly, with the accuracy of all that were tried.
    """
    table = run.images
    used = table["split"] != "excluded"
    names = {level: np.unique(table[level].to_numpy(str)[used]) for level in images.levels}
    questions = {"fine": run.manifest["prompt"], "coarse": COARSE_QUESTION}
    blind = blind_scores(run, vlm, names)
    asked = _Asked(run, vlm, images, names, questions)
    naming = _Naming(table, names, asked.lengths(), blind, _corrections(run, asked, names, blind))
    test = np.flatnonzero(((table["split"] == "test") & (table["status"] == "ok")).to_numpy())
    parts = asked.about(test, "test", "asking the model")
    answers = pd.concat([naming.said(rows, scores) for rows, scores in parts], ignore_index=True)
    run.write_table("answers", answers)
    return Answers(answers)


# --- asking, in parts that are kept -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Asked:
    """Who is asked what: class names and question by level."""

    run: "Run"
    vlm: "VLM"
    images: "ImageSet"
    names: dict[str, np.ndarray]
    questions: dict[str, str]

    def lengths(self) -> dict[str, np.ndarray]:
        """Tokens of each name, by level."""
        return {
            level: name_lengths(self.vlm, [spoken(name) for name in names], self.questions[level])
            for level, names in self.names.items()
        }

    def about(self, rows: np.ndarray, which: str, doing: str) -> Iterator[tuple[np.ndarray, Scores]]:
        """Ask about images, and yield the rows of each part with (rows, names) scores by level."""
        parts = {
            self.run.result_path(f"answers/{METHOD}/{which}-{start:06d}.parquet"): rows[
                start : start + IMAGES_A_PART
            ]
            for start in range(0, len(rows), IMAGES_A_PART)
        }
        todo = [(file, part) for file, part in parts.items() if not file.exists()]
        done = len(rows) - sum(len(part) for _, part in todo)
        for file, part in track(todo, description=doing, total=len(rows), done=done, size=IMAGES_A_PART):
            write_table(file, self._ask(part))
        for file, part in parts.items():
            kept = pd.read_parquet(file)
            yield part, {level: kept[self._columns(level)].to_numpy(np.float32) for level in self.names}

    def _ask(self, rows: np.ndarray) -> pd.DataFrame:
        pictures = [self.images.open(int(row)) for row in rows]
        found = {
            level: name_likelihood(
                self.vlm, pictures, [spoken(name) for name in names], self.questions[level]
            )
            for level, names in self.names.items()
        }
        frames = [pd.DataFrame(scores, columns=self._columns(level)) for level, scores in found.items()]
        return pd.concat([pd.DataFrame({"row": rows}), *frames], axis=1)

    def _columns(self, level: str) -> list[str]:
        return [f"{level}: {name}" for name in self.names[level]]


# --- from scores to names ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Naming:
    """What is said, given the scores of the names, in every way of choosing."""

    table: pd.DataFrame
    names: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    blind: Scores
    corrections: dict[str, Correction]

    def said(self, rows: np.ndarray, scores: Scores) -> pd.DataFrame:
        """Columns of `Answers.table` for some rows of the run."""
        part = self.table.iloc[rows][["fine", "coarse"]].astype(str).reset_index(drop=True)
        part.insert(0, "row", rows)
        for what, (level, own, truth) in _candidates(self.table, self.names, rows, scores).items():
            self._record(part, what, level, own, truth)
        if "coarse" in self.names:
            part["siblings"] = _siblings(self.table, self.names["fine"], rows).sum(1)
        return part

    def _record(
        self, part: pd.DataFrame, what: str, level: str, scores: np.ndarray, truth: np.ndarray
    ) -> None:
        names, wide = self.names[level], scores.astype(np.float64)
        true = wide[np.arange(len(wide)), truth]
        part[f"said_{what}"] = names[scores.argmax(1)]
        part[f"bits_{what}"] = ((np.logaddexp.reduce(wide, axis=1) - true) / np.log(2)).astype(np.float32)
        part[f"said_{what}_mean"] = names[(scores / self.lengths[level]).argmax(1)]
        if what in self.corrections:
            part[f"said_{what}_corrected"] = names[self.corrections[what](scores).argmax(1)]
            part[f"weight_{what}"] = self.corrections[what].weight
        if level in self.blind:
            part[f"said_{what}_blind"] = names[
                np.where(np.isneginf(scores), scores, self.blind[level]).argmax(1)
            ]


def _candidates(
    table: pd.DataFrame, names: dict[str, np.ndarray], rows: np.ndarray, scores: Scores
) -> dict[str, tuple[str, np.ndarray, np.ndarray]]:
    """By what is said: its level, (rows, names) scores with -inf at names not asked for, (rows,) right name."""
    right = {level: np.searchsorted(of, table[level].to_numpy(str)[rows]) for level, of in names.items()}
    found = {level: (level, scores[level], right[level]) for level in names}
    if "coarse" in names:
        within = np.where(_siblings(table, names["fine"], rows), scores["fine"], -np.inf)
        found["fine_within_coarse"] = ("fine", within, right["fine"])
    return found


def _siblings(table: pd.DataFrame, fine: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(rows, names) bool: whether a fine name is of the image's coarse class."""
    coarse = table["coarse"].to_numpy(str)
    kind_of = dict(zip(table["fine"].to_numpy(str), coarse, strict=True))
    return np.array([kind_of[name] for name in fine])[None] == coarse[rows, None]


def _corrections(
    run: "Run", asked: _Asked, names: dict[str, np.ndarray], blind: Scores
) -> dict[str, Correction]:
    """By what is said, the correction that training images choose; `results/prior.json` tells what was tried."""
    rows = training_sample(run.images)
    if not len(rows):
        return {}
    parts = [scores for _, scores in asked.about(rows, "training", "asking the model about training images")]
    scores = {level: np.concatenate([part[level] for part in parts]) for level in names}
    found = {}
    for what, (level, own, truth) in _candidates(run.images, names, rows, scores).items():
        several = np.isfinite(own).sum(1) > 1
        chosen = several if several.any() else ~several
        priors = {"blind": blind[level]} if level in blind else {}
        priors["training"] = training_prior(scores[level])
        found[what] = choose_correction(own[chosen], truth[chosen], names[level], priors)
    run.write_json("prior", {LEVELS[what]: chosen.json() for what, chosen in found.items()})
    return found
