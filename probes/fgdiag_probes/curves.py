"""Layer-wise probes: how well each site and readout of a run names the classes of the test images."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import ControlFailed
from fgdiag.progress import track
from fgdiag.sites import Site
from fgdiag_probes import reading
from fgdiag_probes.controls import Control, tokens_before_the_image
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.linear import PENALTIES
from fgdiag_probes.reading import Reading, Readings
from fgdiag_probes.style import GREY, LEVEL_WORDS, READOUT_COLOURS, READOUT_WORDS, TEMPLATE, faded

if TYPE_CHECKING:
    from fgdiag.store import Run

FOLDS = 3
METHOD = f"1: penalties {PENALTIES}, {FOLDS} folds"
"""Changes whenever the same activations would be read differently, so that no old reading is taken for new."""
RELATIVE_ROUNDING = {"float32": 1e-5, "float16": 4 * 2**-10, "bfloat16": 4 * 2**-7}
"""Rounding noise of a model computing in this dtype, as a share of the numbers it computes with."""

Place = tuple[str, str]
"""Names of a site and of a readout."""


@dataclass(frozen=True)
class LayerCurves:
    """Scores of linear probes at every site and readout of a run.

    Attributes
    ----------
    table
        One row a level, site and readout, sites in the order of the forward pass. `accuracy` in [0, 1] and
        `bits` (log-loss) on the test images, each with its 95 % interval (`low`, `high`, `bits_low`,
        `bits_high`; bootstrap clustered by fine class) and what chance scores (`chance`, `chance_bits`).
        `cv_accuracy`, `cv_bits`: the same on training images held out by cross-validation, by which every
        choice is made. `penalty`, `at_edge`, `converged`, `gradient_norm`: the fit.
    labels
        Who was trained and tested.
    readings
        What every place said about every test image.
    control
        Outcome of the negative control: tokens before the image.
    """

    table: pd.DataFrame
    labels: Labels
    readings: dict[Place, Readings]
    control: Control

    def frame(self) -> pd.DataFrame:
        """Return the scores as a table; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return the scores as plain numbers: a list of rows and the control."""
        return {
            "curves": json.loads(self.table.to_json(orient="records")),
            "control": self.control.json(),
            "images": {"train": len(self.labels.train), "test": len(self.labels.test)},
        }

    def best(self, level: Level, sites: Iterable[str]) -> Place | None:
        """Return the place that reads a level best on held-out *training* images; None if there is no such site.

        The control readout `pre` never competes.
        """
        rows = self.table[
            (self.table["level"] == level)
            & self.table["site"].isin(list(sites))
            & (self.table["readout"] != "pre")
        ]
        if rows.empty:
            return None
        row = rows.sort_values(["cv_accuracy", "cv_bits"], ascending=[False, True], kind="stable").iloc[0]
        return str(row["site"]), str(row["readout"])

    def row(self, level: Level, place: Place) -> pd.Series:
        """Return the scores of one place at one level."""
        site, readout = place
        table = self.table
        return table[
            (table["level"] == level) & (table["site"] == site) & (table["readout"] == readout)
        ].iloc[0]

    def figure(self, level: Level | None = None) -> go.Figure:
        """Draw accuracy along the forward pass: a line a readout, its interval, chance, and the pixel baseline.

        Parameters
        ----------
        level
            Default: the finest there is, `fine|coarse` or else `fine`.
        """
        level = level or self.labels.levels[0]
        rows = self.table[self.table["level"] == level]
        inside = rows[rows["site"] != "pixels"]
        sites = list(dict.fromkeys(inside["site"]))
        figure = go.Figure(layout={"template": TEMPLATE})
        for readout, points in inside.groupby("readout", sort=False):
            _add_line(figure, str(readout), points, sites)
        _add_level_line(figure, 100 * rows["chance"].iloc[0], "chance", "dot")
        for accuracy in rows.loc[rows["site"] == "pixels", "accuracy"]:
            _add_level_line(figure, 100 * accuracy, "raw pixels", "dash")
        _mark_parts(figure, sites)
        figure.update_layout(
            title_text=f"Linearly readable: {LEVEL_WORDS[level]}",
            xaxis={"title_text": "site, in the order of the forward pass", **_site_ticks(sites)},
            yaxis={"title_text": "accuracy (% of test images)", "range": [0, 103]},
        )
        return figure


def probe_layers(run: "Run", *, seed: int = 0) -> LayerCurves:
    """Probe every site and readout of a run, at every level; what was probed before is read back.

    Writes `results/probes.parquet`, `results/probes.json` and what each place said about each test image under
    `results/probes/`.

    Parameters
    ----------
    run
        An extracted run.
    seed
        Seed of the cross-validation folds and of the bootstrap.

    Raises
    ------
    ControlFailed
        In a causal model, tokens before the image name its class better than chance.
    """
    labels = Labels.of(run)
    folds = labels.folds(folds=FOLDS, seed=seed)
    places = [(str(site), str(readout)) for site in run.sites for readout in run.readouts(str(site))]
    key = _key(run, seed)
    readings: dict[Place, Readings] = {}
    for place in places:
        if kept := reading.load(_path(run, place), key, labels):
            readings[place] = kept
    todo = [place for place in places if place not in readings]
    for place in track(
        todo,
        description="probing the layers",
        total=len(places),
        unit="readouts",
        done=len(places) - len(todo),
    ):
        readings[place] = reading.read(
            run.activations(*place), labels, folds, resolution=_resolution(run, place)
        )
        reading.save(_path(run, place), key, readings[place])
    readings = {place: readings[place] for place in places}
    table = pd.concat([_scores(level, readings, labels, seed) for level in labels.levels], ignore_index=True)
    control = tokens_before_the_image(
        {place: found["fine"] for place, found in readings.items() if place[1] == "pre"},
        labels,
        applies=bool(run.manifest.get("causal", True)),
    )
    curves = LayerCurves(table, labels, readings, control)
    run.write_table("probes", table)
    run.write_json("probes", curves.json())
    if not control.passed:
        raise ControlFailed(control.sentence)
    return curves


def _key(run: "Run", seed: int) -> str:
    """What a reading depends on, apart from the place."""
    manifest = run.manifest
    made_of = [
        manifest.get("fingerprint"),
        manifest.get("prompt"),
        manifest.get("dtype"),
        manifest["images"].get("digest"),
    ]
    return hashlib.blake2b(json.dumps([METHOD, seed, *made_of]).encode(), digest_size=16).hexdigest()


def _path(run: "Run", place: Place):
    return run.result_path("probes") / f"{place[0]}.{place[1]}.npz"


def _resolution(run: "Run", place: Place) -> float:
    if place[0] == "pixels":
        return 0.0
    return RELATIVE_ROUNDING.get(str(run.manifest.get("dtype")).removeprefix("torch."), 1e-5)


def _scores(level: Level, readings: dict[Place, Readings], labels: Labels, seed: int) -> pd.DataFrame:
    asked = labels.asked(level, labels.test)
    found: list[Reading] = [readings[place][level] for place in readings]
    clusters = labels.fine[labels.test][asked]
    accuracy = clustered_means(
        np.stack([one.correct(labels, level)[asked] for one in found]), clusters, seed=seed
    )
    bits = clustered_means(np.stack([one.bits[asked] for one in found]), clusters, seed=seed)
    choices = pd.DataFrame([vars(one.choice) for one in found])
    chance, chance_bits = labels.chance[level]
    table = pd.DataFrame(
        {
            "level": level,
            "site": [site for site, _ in readings],
            "readout": [readout for _, readout in readings],
            "stage": [Site.parse(site).stage for site, _ in readings],
            "accuracy": accuracy.mean,
            "low": accuracy.low.clip(0, 1),
            "high": accuracy.high.clip(0, 1),
            "chance": chance,
            "bits": bits.mean,
            "bits_low": bits.low.clip(0),
            "bits_high": bits.high,
            "chance_bits": chance_bits,
            "images": int(asked.sum()),
        }
    )
    return table.join(choices.rename(columns={"accuracy": "cv_accuracy", "bits": "cv_bits"}))


def _add_line(figure: go.Figure, readout: str, points: pd.DataFrame, sites: list[str]) -> None:
    colour = READOUT_COLOURS.get(readout, GREY)
    x = [sites.index(site) for site in points["site"]]
    low, high = 100 * points["low"], 100 * points["high"]
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=faded(colour, 0.18),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        legendgroup=readout,
    )
    figure.add_scatter(
        x=x,
        y=100 * points["accuracy"],
        mode="lines+markers",
        name=READOUT_WORDS.get(readout, readout),
        line={"color": colour, "width": 2, "dash": "dot" if readout == "pre" else "solid"},
        marker={"size": 5},
        legendgroup=readout,
        customdata=np.column_stack([points["site"], low, high]),
        hovertemplate="%{y:.1f} % (%{customdata[1]:.0f} to %{customdata[2]:.0f})",
    )


def _add_level_line(figure: go.Figure, y: float, words: str, dash: str) -> None:
    figure.add_hline(
        y=y,
        line={"color": GREY, "width": 1.5, "dash": dash},
        annotation={"text": words, "font": {"size": 11}, "xanchor": "right", "yanchor": "bottom"},
    )


def _mark_parts(figure: go.Figure, sites: list[str]) -> None:
    """A faint line wherever one part of the model hands over to the next."""
    parts = [Site.parse(site).part for site in sites]
    for left, (part, following) in enumerate(zip(parts, parts[1:], strict=False)):
        if part != following:
            figure.add_vline(x=left + 0.5, line={"color": GREY, "width": 0.7}, opacity=0.5)


def _site_ticks(sites: list[str], most: int = 9) -> dict[str, Any]:
    """Name the sites where parts begin, the last, and some in between: all would not fit on a phone."""
    step = max(1, -(-len(sites) // most))
    parts = [Site.parse(site).part for site in sites]
    starts = [i for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
    marks = {*starts, len(sites) - 1}
    for i in range(starts[-1] + step, len(sites) - step + 1, step):
        marks.add(i)
    shown = sorted(marks)
    return {
        "tickvals": shown,
        "ticktext": [sites[i] for i in shown],
        "range": [-0.5, len(sites) - 0.5],
        "tickangle": -45,
    }
