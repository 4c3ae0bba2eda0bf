"""Runs laid side by side: what each reads at each depth, where two differ, and whether they fail alike.

Models are compared on the images that all of them were tested on, so a difference at a depth is a mean of paired
differences, and holds for other classes of the same sort. The first run is the one that others are compared with.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import NotComparable
from fgdiag.sites import Site
from fgdiag.store import Run
from fgdiag_probes.agreement import agreement
from fgdiag_probes.comparable import Side, common_tests, outcome, refuse_unlike, short_names, what_differs
from fgdiag_probes.compare_figures import draw_depths, draw_differences, draw_relative_curves
from fgdiag_probes.compare_words import differences_in_words
from fgdiag_probes.depths import LOSING_STAGE, Depth, comparable, depth_at, sites_of
from fgdiag_probes.drops import SIGNIFICANT
from fgdiag_probes.intervals import accuracies, clustered_means, holm
from fgdiag_probes.labels import Level

AT_VISION, AT_NORM = -0.12, 1.08
"""Where the vision encoder and the final norm stand on the axis of relative depth."""
SPOKEN_BY = ("last llm layer", "answer")
"""Depths at which the errors of two runs are compared."""


@dataclass(frozen=True)
class Comparison:
    """Two runs or more on the same test images.

    Attributes
    ----------
    runs
        One row a run, the one that others are compared with first: `run` (its name), `model`, and the `stage` that its
        verdict names; "" where it was not judged.
    curves
        One row a level, run and site, the best readout of the site: `relative_depth`, `accuracy` in [0, 1] and its
        95 % interval (`low`, `high`; clustered by fine class). Relative depth is the share of the language model's
        blocks that have been run: 0 for what enters it (`projector`), 1 for what leaves its last block. The vision
        encoder stands before 0 and the final norm behind 1, at places of no meaning.
    depths
        One row a level, run and depth: the same for the depths of the loss budget, with `site`, `readout` and
        `chance`.
    differences
        One row a level, run but the first, and depth: `difference` in points of accuracy from the `first` run with its
        95 % interval, `p_value` (Holm-corrected over the depths of the level), `significant`, `differing`: on how
        many of the `images` only one of the two is right, and the `outcome` in a word or two.
    agreement
        One row a level, pair of runs and depth that speaks for them; see `fgdiag_probes.agreement.agreement`.
    words
        Differences in what is chosen or said in words; see `fgdiag_probes.compare_words.differences_in_words`.
    notes
        What differs between the runs besides the model, a sentence each.
    images
        How many test images all runs have.
    """

    runs: pd.DataFrame
    curves: pd.DataFrame
    depths: pd.DataFrame
    differences: pd.DataFrame
    agreement: pd.DataFrame
    words: pd.DataFrame
    notes: tuple[str, ...]
    images: int

    @property
    def levels(self) -> list[Level]:
        """The levels that were compared, the finest first."""
        return list(dict.fromkeys(self.depths["level"]))

    def frame(self) -> pd.DataFrame:
        """Return the paired differences as a table; see `differences`."""
        return self.differences

    def json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        tables = {
            name: json.loads(str(getattr(self, name).to_json(orient="records")))
            for name in ("runs", "depths", "differences", "agreement", "words", "curves")
        }
        return {"images": self.images, "notes": list(self.notes), **tables}

    def figure(self, level: Level | None = None) -> go.Figure:
        """Draw the paired differences of a level with their intervals; default: the finest."""
        level = level or self.levels[0]
        return draw_differences(_of(self.differences, level), level)

    def figures(self, level: Level | None = None) -> list[go.Figure]:
        """Draw a level: its depths side by side, its curves over relative depth, its differences."""
        level = level or self.levels[0]
        return [
            draw_depths(_of(self.depths, level), level),
            draw_relative_curves(_of(self.curves, level), level),
            self.figure(level),
        ]


def compare_runs(runs: Sequence[Run | str | Path]) -> Comparison:
    """Lay recorded runs side by side; probed first where that was not done.

    Parameters
    ----------
    runs
        Two or more, open or as folders. Others are compared with the first.

    Raises
    ------
    NotComparable
        They differ in more than the model: other images, splits, class names, question or readouts.
    """
    opened = [run if isinstance(run, Run) else Run.open(run) for run in runs]
    apart = {run.path.resolve(): run for run in opened}
    if len(apart) < 2:
        raise NotComparable(f"Got {len(apart)} run, expected two or more; name another.")
    names = short_names([run.path for run in apart.values()])
    return compare([Side.of(run, name) for name, run in zip(names, apart.values(), strict=True)])


def compare(sides: Sequence[Side]) -> Comparison:
    """Compare runs that are read already. Errors as of `compare_runs`."""
    refuse_unlike(sides)
    notes = what_differs(sides)
    if any(side.attended != sides[0].attended for side in sides):
        sides = [side.without_attention() for side in sides]
    ids = common_tests(sides)
    levels = [
        _At(level, sides, ids)
        for level in sides[0].curves.labels.levels
        if all(level in side.curves.labels.levels for side in sides)
    ]
    if not levels[0].names:
        raise NotComparable(
            f"{' and '.join(side.name for side in sides)} have recorded no depth that is the same. Record them with "
            "the same --sites, vision and projector among them."
        )
    return Comparison(
        runs=pd.DataFrame([_facts(side) for side in sides]),
        curves=pd.concat([at.curves() for at in levels], ignore_index=True),
        depths=pd.concat([at.depths() for at in levels], ignore_index=True),
        differences=pd.concat([at.differences() for at in levels], ignore_index=True),
        agreement=pd.DataFrame([row for at in levels for row in at.agreements()]),
        words=differences_in_words(sides, ids),
        notes=notes,
        images=len(ids),
    )


def relative_depth(site: str, blocks: int) -> float:
    """Return where a site stands on the axis of `Comparison.curves`.

    Examples
    --------
    >>> [relative_depth(site, 32) for site in ("projector", "llm.15", "llm.31")]
    [0.0, 0.5, 1.0]
    """
    place = Site.parse(site)
    if place.part == "vision":
        return AT_VISION
    if place.part == "projector":
        return 0.0
    return AT_NORM if place.index == "norm" else (int(place.index or 0) + 1) / blocks


class _At:
    """One level on the images that all runs are asked about there."""

    def __init__(self, level: Level, sides: Sequence[Side], ids: pd.Index) -> None:
        self.level: Level = level
        self.sides = sides
        places = [side.images.loc[ids, "at"].to_numpy() for side in sides]
        answered = all(side.answers is not None for side in sides)
        asked = np.ones(len(ids), bool)
        for side, at in zip(sides, places, strict=True):
            asked &= comparable(side.answers if answered else None, level, side.curves.labels)[at]
        self.positions = [at[asked] for at in places]
        found = [_depths(side, level, answered) for side in sides]
        self.names = [name for name in LOSING_STAGE if all(name in depths for depths in found)]
        self.chosen = [[depths[name] for name in self.names] for depths in found]
        labels = sides[0].curves.labels
        rows = labels.test[self.positions[0]]
        self.clusters, self.chance = labels.fine[rows], labels.chance[level][0]
        self.truth = labels.codes(level)[rows]
        self.candidates = labels.candidates(level, rows).sum(1)
        self.said = np.array(
            [
                [depth.reading.said[at] for depth in depths]
                for depths, at in zip(self.chosen, self.positions, strict=True)
            ]
        )
        """(runs, depths, images); class names are the same in all runs, so codes are too."""

    def depths(self) -> pd.DataFrame:
        """Score every run at every depth."""
        rows = []
        for side, chosen, said in zip(self.sides, self.chosen, self.said, strict=True):
            rows.append(
                self._scores((said == self.truth).astype(float)).assign(
                    run=side.name,
                    depth=self.names,
                    site=[depth.site for depth in chosen],
                    readout=[depth.readout for depth in chosen],
                    chance=self.chance,
                )
            )
        return _in_order(pd.concat(rows), "level", "run", "depth", "site", "readout")

    def curves(self) -> pd.DataFrame:
        """Score the best readout of every site, encoder blocks apart."""
        rows = []
        for side, at in zip(self.sides, self.positions, strict=True):
            sites = [str(site) for site in side.run.sites if site.part != "pixels" and not _is_block(site)]
            places = [place for site in sites if (place := side.best(self.level, site))]
            said = np.stack([side.curves.readings[place][self.level].said[at] for place in places])
            rows.append(
                self._scores((said == self.truth).astype(float)).assign(
                    run=side.name,
                    site=[site for site, _ in places],
                    readout=[readout for _, readout in places],
                    relative_depth=[relative_depth(site, side.blocks) for site, _ in places],
                    chance=self.chance,
                )
            )
        return _in_order(pd.concat(rows), "level", "run", "site", "readout", "relative_depth")

    def differences(self) -> pd.DataFrame:
        """Compare every run with the first, depth by depth."""
        right = self.said == self.truth
        first, rows = self.sides[0].name, []
        for side, correct in zip(self.sides[1:], right[1:], strict=True):
            change = correct.astype(float) - right[0]
            found = clustered_means(100 * change, self.clusters, step=100.0)
            p_value, differing = holm(found.p_value), np.abs(change).sum(1).astype(int)
            table = pd.DataFrame(
                {
                    "level": self.level,
                    "run": side.name,
                    "first": first,
                    "depth": self.names,
                    "difference": found.mean,
                    "low": found.low,
                    "high": found.high,
                    "p_value": p_value,
                    "significant": p_value < SIGNIFICANT,
                    "differing": differing,
                    "images": len(self.truth),
                }
            )
            rows.append(table.assign(outcome=[outcome(row) for row in table.to_dict("records")]))
        return pd.concat(rows)

    def agreements(self) -> Iterator[dict[str, Any]]:
        """Compare the errors of every two runs."""
        for depth in (name for name in SPOKEN_BY if name in self.names):
            said = self.said[:, self.names.index(depth)]
            for one, other in combinations(range(len(self.sides)), 2):
                yield {
                    "level": self.level,
                    "first": self.sides[one].name,
                    "second": self.sides[other].name,
                    "depth": depth,
                    **agreement(said[[one, other]], self.truth, self.candidates),
                }

    def _scores(self, correct: np.ndarray) -> pd.DataFrame:
        shares = accuracies(correct, self.clusters)
        return pd.DataFrame({"level": self.level, **shares, "images": correct.shape[1]})


def _depths(side: Side, level: Level, answered: bool) -> dict[str, Depth]:
    among = sites_of(side.curves).items()
    found = {name: depth for name, sites in among if (depth := depth_at(side.curves, level, name, sites))}
    if answered and side.answers is not None:
        found["answer"] = Depth("answer", "answer", "likelihood", side.answers[level])
    return found


def _facts(side: Side) -> dict[str, Any]:
    judged = side.run.result_path("verdict.json").exists()
    stage = side.run.read_json("verdict")["stage"] if judged else ""
    return {"run": side.name, "model": side.manifest["model"], "stage": stage}


def _is_block(site: Site) -> bool:
    return site.part == "vision" and site.index is not None


def _in_order(table: pd.DataFrame, *first: str) -> pd.DataFrame:
    return table.loc[:, [*first, *(str(name) for name in table if name not in first)]]


def _of(table: pd.DataFrame, level: Level) -> pd.DataFrame:
    return table.loc[table["level"] == level]
