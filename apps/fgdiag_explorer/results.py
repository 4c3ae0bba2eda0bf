"""What was found in a run, read when it is first asked for. Nothing is computed anew, nothing is written."""

import shlex
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from fgdiag_probes import reading
from fgdiag_probes.answered import read_answers
from fgdiag_probes.answers import Answers
from fgdiag_probes.bottleneck import LossBudget
from fgdiag_probes.controls import Control
from fgdiag_probes.curves import LayerCurves, Place, key_of
from fgdiag_probes.evidence import Evidence
from fgdiag_probes.fold import Fold
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Reading, Readings
from fgdiag_probes.said_folds import said_folds
from fgdiag_probes.separability import PairCurves
from fgdiag_probes.stability import Stability

from fgdiag.errors import RunIncomplete
from fgdiag.store import RESULTS, Run, thumbnail_path

ANSWER: Place = ("answer", "likelihood")
"""Where the model itself speaks; see `fgdiag_probes.bottleneck`."""

MADE_BY = {
    "probes": "fgdiag probe {run}",
    "verdict": "fgdiag report {run}",
    "evidence": "fgdiag probe {run}",
    "stability": "fgdiag report {run}",
    "answers": "fgdiag answer {run}",
    "pairs": "fgdiag pairs {run}",
    "embedding": "fgdiag embed {run}",
}
"""The command that makes a result."""


class NotMade(RunIncomplete):
    """A result has not been made yet.

    Attributes
    ----------
    command
        The one that makes it.
    """

    def __init__(self, result: str, run: Path) -> None:
        self.command = MADE_BY[result].format(run=shlex.quote(str(run)))
        super().__init__(f"This run holds no {result} yet. `{self.command}` makes it.")


class Results:
    """One run as the pages see it.

    Parameters
    ----------
    name
        By which the browser asks for the run. It is looked up, never made into a path.
    path
        Folder of the run.

    Raises
    ------
    RunIncomplete, RunMismatch
        As `Run.open`.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.run = name, Run.open(path)
        self.seed = int(self.run.manifest["seed"])
        self._orders: dict[Level, np.ndarray] = {}
        self._columns: dict[str, np.ndarray] = {}
        self._known: dict[str, list[str]] = {}
        self._best: dict[tuple[Level, str], Place] = {}

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image; see `Run.images`."""
        return self.run.images

    def column(self, name: str) -> np.ndarray:
        """(images,) str, a column of `images`."""
        if name not in self._columns:
            self._columns[name] = self.images[name].to_numpy(str)
        return self._columns[name]

    def known(self, column: str) -> list[str]:
        """What stands in a column of `images`, sorted, each once."""
        if column not in self._known:
            self._known[column] = [str(name) for name in np.unique(self.column(column))]
        return self._known[column]

    @cached_property
    def labels(self) -> Labels:
        """Who was trained and tested."""
        return Labels.of(self.run, seed=self.seed)

    @property
    def finest(self) -> Level:
        """The level of which the verdict speaks."""
        return self.labels.levels[0]

    def has(self, result: str) -> bool:
        """Whether a result has been made."""
        folder = self.run.path / RESULTS
        return any((folder / f"{result}.{suffix}").exists() for suffix in ("json", "parquet"))

    @cached_property
    def curves(self) -> LayerCurves:
        """Scores of the probes; what they said of each image is read when it is asked for."""
        table = self._table("probes")
        control = Control(**self._made("probes").read_json("probes")["control"])
        readings = ReadingsOnDisk(self.run, self.labels, self.seed, table)
        fed = bool(self.run.manifest.get("class_token_fed", True))
        blocks = self.run.manifest.get("llm_blocks")
        return LayerCurves(table, self.labels, readings, control, fed, blocks)

    @cached_property
    def budget(self) -> LossBudget:
        """What is left at each depth, and the verdict."""
        return LossBudget.read(self._made("verdict"))

    @cached_property
    def evidence(self) -> Evidence:
        """Other looks at the depths."""
        return Evidence.read(self._made("evidence"))

    @cached_property
    def stability(self) -> Stability:
        """What other deals of the images say."""
        return Stability.read(self._made("stability"))

    @cached_property
    def answer_table(self) -> pd.DataFrame:
        """What the model said; see `fgdiag_probes.answers.Answers.table`."""
        return self._table("answers")

    @cached_property
    def answers(self) -> Readings | None:
        """The model's answers as readings; None where it has not been asked."""
        return read_answers(self.run, self.labels) if self.has("answers") else None

    @property
    def answered(self) -> Answers | None:
        """The model's answers, by the likelihood of names; None where it has not been asked."""
        return Answers(self.answer_table) if self.has("answers") else None

    @cached_property
    def texts(self) -> pd.DataFrame | None:
        """What the model wrote, one row an image, level and wording; None where it has not been asked."""
        return self._table("free_text") if self.has("free_text") else None

    @cached_property
    def said_folds(self) -> list[Fold]:
        """Tables of choices, texts and baselines, of which there may be none."""
        return said_folds(self.run)

    @cached_property
    def near_duplicates(self) -> pd.DataFrame | None:
        """Pairs of images that are nearly the same; None where nobody looked for them."""
        return self._table("near_duplicates") if self.has("near_duplicates") else None

    @cached_property
    def embedding(self) -> dict[str, pd.DataFrame]:
        """Where images lie on the map of each site: `row`, `x`, `y`."""
        by_site = self._table("embedding").groupby("site", sort=False)
        return {str(site): points.loc[:, ["row", "x", "y"]] for site, points in by_site}

    @cached_property
    def embedding_facts(self) -> dict[str, Any]:
        """How the map was made: `method`, and `trustworthiness` by site."""
        path = self.run.path / RESULTS / "embedding.json"
        return self.run.read_json("embedding") if path.exists() else {}

    @cached_property
    def pairs(self) -> PairCurves:
        """Pairs of classes that were followed through the model."""
        return PairCurves.read(self._made("pairs"))

    @cached_property
    def places(self) -> list[Place]:
        """Every probed place in the order of the forward pass, controls apart, and the answer where there is one."""
        pairs = self.curves.table[["site", "readout"]].drop_duplicates().itertuples(index=False, name=None)
        probed = [(str(site), str(readout)) for site, readout in pairs if readout != "pre"]
        return [*probed, *([ANSWER] if self.answers is not None else [])]

    @cached_property
    def sites(self) -> list[str]:
        """Sites of `places`, in order."""
        return list(dict.fromkeys(site for site, _ in self.places))

    def best(self, level: Level, site: str) -> Place:
        """Return the readout that speaks for a site: the one that reads training images best."""
        if site == ANSWER[0]:
            return ANSWER
        if (level, site) not in self._best:
            alone = next(place for place in self.places if place[0] == site)
            self._best[level, site] = self.curves.best(level, [site]) or alone
        return self._best[level, site]

    @cached_property
    def depths(self) -> dict[tuple[Level, str], Place]:
        """The place that speaks for a depth at a level, for those depths of which every image is known."""
        rows = self.budget.depths[["level", "depth", "site", "readout"]].itertuples(index=False, name=None)
        known = set(self.places)
        return {(level, depth): (site, out) for level, depth, site, out in rows if (site, out) in known}

    @cached_property
    def positions(self) -> np.ndarray:
        """(images,) where each image stands among the test images; -1 where it is not tested."""
        found = np.full(len(self.images), -1)
        found[self.labels.test] = np.arange(len(self.labels.test))
        return found

    def position(self, row: int) -> int | None:
        """Return where an image stands among the test images; None where it is not tested."""
        at = int(self.positions[row])
        return at if at >= 0 else None

    def order(self, level: Level) -> np.ndarray:
        """(classes,) codes of the classes in an order of similarity; see `fgdiag_explorer.confused.in_order`."""
        if level not in self._orders:
            from fgdiag_explorer.confused import in_order

            self._orders[level] = in_order(self, level)
        return self._orders[level]

    def reading(self, place: Place, level: Level) -> Reading:
        """Return what a place says of every test image."""
        if place == ANSWER and self.answers is not None:
            return self.answers[level]
        return self.curves.readings[place][level]

    def right(self, place: Place, level: Level) -> np.ndarray:
        """(test,) bool, whether a place names the right class; False where nothing is asked."""
        found = self.reading(place, level)
        return (found.said >= 0) & (found.said == self.labels.codes(level)[self.labels.test])

    def thumbnail(self, row: int) -> Path | None:
        """Where the small picture of an image lies; None where there is none, or no such row."""
        if not 0 <= row < len(self.images):
            return None
        path = thumbnail_path(self.run.path, row, int(self.run.manifest["block"]))
        return path if path.exists() else None

    def _table(self, name: str) -> pd.DataFrame:
        return self._made(name).read_table(name)

    def _made(self, result: str) -> Run:
        """The run, which holds a result."""
        if not self.has(result):
            raise NotMade(result, self.run.path)
        return self.run


class ReadingsOnDisk(Mapping[Place, Readings]):
    """What every place said of each test image; a file is read when it is first asked for."""

    def __init__(self, run: Run, labels: Labels, seed: int, table: pd.DataFrame) -> None:
        self._run, self._labels, self._key = run, labels, key_of(run, seed)
        pairs = table[["site", "readout"]].drop_duplicates().itertuples(index=False, name=None)
        self._read: dict[Place, Readings | None] = dict.fromkeys((str(site), str(out)) for site, out in pairs)

    def __getitem__(self, place: Place) -> Readings:
        found = self._read[place]
        if found is None:
            path = self._run.path / RESULTS / "probes" / f"{place[0]}.{place[1]}.npz"
            found = self._read[place] = reading.load(path, self._key, self._labels)
        if found is None:
            raise NotMade("probes", self._run.path)
        return found

    def __iter__(self) -> Iterator[Place]:
        return iter(self._read)

    def __len__(self) -> int:
        return len(self._read)
