"""The layer curve drawn: accuracy, or another score, along the forward pass."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.sites import ATTENTION, Site
from fgdiag_probes.style import GREY, LEVEL_WORDS, READOUT_COLOURS, READOUT_WORDS, TEMPLATE, faded


@dataclass(frozen=True)
class Metric:
    """A score of `LayerCurves.table` that can be drawn.

    Attributes
    ----------
    column, low, high, chance
        Columns of the score, of its 95 % interval and of what chance scores; "" where there is none.
    times
        What the score is multiplied with, to be in `unit`.
    axis, unit
        Words on the axis and behind a number.
    """

    column: str
    low: str
    high: str
    chance: str
    times: float
    axis: str
    unit: str


METRICS = {
    "accuracy": Metric("accuracy", "low", "high", "chance", 100, "accuracy (% of test images)", "%"),
    "balanced": Metric("balanced", "", "", "", 100, "accuracy, every class counting the same (%)", "%"),
    "bits": Metric("bits", "bits_low", "bits_high", "chance_bits", 1, "log-loss (bits an image)", "bits"),
    "selectivity": Metric("selectivity", "", "", "", 100, "above random kinds (points)", "points"),
    "held out": Metric("cv_accuracy", "", "", "", 100, "accuracy (% of held-out training images)", "%"),
}
"""By the name under which a metric is chosen. Selectivity is known at level `coarse` only."""


def draw_curves(table: pd.DataFrame, level: str, metric: str = "accuracy") -> go.Figure:
    """Draw one level: a line a readout with its interval shaded, the chance line and the pixel baseline.

    Parameters
    ----------
    table
        Scores as in `LayerCurves.table`, sites in the order of the forward pass.
    level
        Which level to draw.
    metric
        Which score, by its name in `METRICS`.
    """
    drawn = METRICS[metric]
    by_level = {str(name): rows for name, rows in table.groupby("level", sort=False)}
    by_readout = {str(name): rows for name, rows in by_level[level].groupby("readout", sort=False)}
    sites = [str(site) for site in dict.fromkeys(by_level[level]["site"]) if site != "pixels"]
    figure = go.Figure(layout={"template": TEMPLATE})
    for readout, points in by_readout.items():
        _add_line(figure, readout, points.query("site != 'pixels'"), sites, drawn)
    if drawn.chance:
        chance = drawn.times * float(by_level[level][drawn.chance].iloc[0])
        _add_level_line(figure, chance, "chance", "dot", "bottom right")
    for site, score in zip(by_level[level]["site"], by_level[level][drawn.column], strict=True):
        if site == "pixels":
            _add_level_line(figure, drawn.times * score, "raw pixels", "dash", "top right")
    _mark_parts(figure, sites)
    return figure.update_layout(
        title_text=f"Linearly readable: {LEVEL_WORDS[level]}",
        xaxis={"title_text": "site, in the order of the forward pass", **site_ticks(sites)},
        yaxis={
            "title_text": drawn.axis,
            **({"range": [0, 103]} if drawn.unit == "%" else {"rangemode": "tozero"}),
        },
    )


def _add_line(figure: go.Figure, readout: str, points: pd.DataFrame, sites: list[str], drawn: Metric) -> None:
    """A line and its interval; none for the control, which is constant and has a test of its own."""
    colour = READOUT_COLOURS.get(readout, GREY)
    x = [sites.index(site) for site in points["site"]]
    score = drawn.times * points[drawn.column]
    low, high = (drawn.times * points[end] if end else score for end in (drawn.low, drawn.high))
    sparse = readout == ATTENTION  # at few sites, far apart: a line between them would claim more
    alone = len(x) == 1 or sparse
    if readout != "pre" and not alone and drawn.low:
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
        y=score,
        mode="markers" if sparse else "lines+markers",
        name=READOUT_WORDS.get(readout, readout),
        line={"color": colour, "width": 2, "dash": "dot" if readout == "pre" else "solid"},
        marker={"size": 8 if alone else 5},
        error_y={"array": high - score, "arrayminus": score - low} if alone and drawn.low else None,
        legendgroup=readout,
        customdata=np.column_stack([points["site"], low, high, *_counted(points)]),
        hovertemplate=_hover(drawn),
    )


def _counted(points: pd.DataFrame) -> list[np.ndarray]:
    """How many images were named right, and of how many."""
    asked = points["images"].to_numpy()
    return [(points["accuracy"].to_numpy() * asked).round().astype(int), asked]


def _hover(drawn: Metric) -> str:
    digits = 2 if drawn.unit == "bits" else 1
    span = f" (%{{customdata[1]:.{digits - 1}f}} to %{{customdata[2]:.{digits - 1}f}})" if drawn.low else ""
    counts = ", %{customdata[3]} of %{customdata[4]} images" if drawn.column == "accuracy" else ""
    return f"%{{y:.{digits}f}} {drawn.unit}{span}{counts}"


def _add_level_line(figure: go.Figure, y: float, words: str, dash: str, side: str) -> None:
    figure.add_hline(
        y=y,
        line={"color": GREY, "width": 1.5, "dash": dash},
        annotation={"text": words, "font": {"size": 11}},
        annotation_position=side,
    )


def _mark_parts(figure: go.Figure, sites: list[str]) -> None:
    """A faint line wherever one part of the model hands over to the next."""
    parts = [Site.parse(site).part for site in sites]
    for left, (part, following) in enumerate(pairwise(parts)):
        if part != following:
            figure.add_vline(x=left + 0.5, line={"color": GREY, "width": 0.7}, opacity=0.5)


def site_ticks(sites: list[str], most: int = 9, *, answer: bool = False) -> dict[str, Any]:
    """Name the sites where parts begin, the last, and some in between: all would not fit on a phone.

    Parameters
    ----------
    answer
        Whether the answer follows behind the last site.
    """
    step = max(1, -(-len(sites) // most))
    parts = [Site.parse(site).part for site in sites]
    starts = [i for i, part in enumerate(parts) if i == 0 or part != parts[i - 1]]
    marks = {*starts, len(sites) - 1}
    for i in range(starts[-1] + step, len(sites) - step + 1, step):
        marks.add(i)
    shown = sorted(marks)
    names = [sites[i] for i in shown]
    return {
        "tickvals": [*shown, len(sites)] if answer else shown,
        "ticktext": [*names, "answer"] if answer else names,
        "range": [-0.5, len(sites) - 0.5 + answer],
        "tickangle": -45,
    }
