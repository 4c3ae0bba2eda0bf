"""The layer curve drawn: accuracy along the forward pass."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.sites import Site
from fgdiag_probes.style import GREY, LEVEL_WORDS, READOUT_COLOURS, READOUT_WORDS, TEMPLATE, faded


def draw_curves(table: pd.DataFrame, level: str) -> go.Figure:
    """Draw one level: a line a readout with its interval shaded, the chance line and the pixel baseline.

    Parameters
    ----------
    table
        Scores as in `LayerCurves.table`, sites in the order of the forward pass.
    level
        Which level to draw.
    """
    by_level = {str(name): rows for name, rows in table.groupby("level", sort=False)}
    by_readout = {str(name): rows for name, rows in by_level[level].groupby("readout", sort=False)}
    sites = [str(site) for site in dict.fromkeys(by_level[level]["site"]) if site != "pixels"]
    figure = go.Figure(layout={"template": TEMPLATE})
    for readout, points in by_readout.items():
        _add_line(figure, readout, points.query("site != 'pixels'"), sites)
    _add_level_line(figure, 100 * float(by_level[level]["chance"].iloc[0]), "chance", "dot", "bottom right")
    for site, accuracy in zip(by_level[level]["site"], by_level[level]["accuracy"], strict=True):
        if site == "pixels":
            _add_level_line(figure, 100 * accuracy, "raw pixels", "dash", "top right")
    _mark_parts(figure, sites)
    return figure.update_layout(
        title_text=f"Linearly readable: {LEVEL_WORDS[level]}",
        xaxis={"title_text": "site, in the order of the forward pass", **_site_ticks(sites)},
        yaxis={"title_text": "accuracy (% of test images)", "range": [0, 103]},
    )


def _add_line(figure: go.Figure, readout: str, points: pd.DataFrame, sites: list[str]) -> None:
    """A line and its interval; none for the control, which is constant and has a test of its own."""
    colour = READOUT_COLOURS.get(readout, GREY)
    x = [sites.index(site) for site in points["site"]]
    low, high = 100 * points["low"], 100 * points["high"]
    sparse = readout == "attn"  # at few sites, far apart: a line between them would claim more
    alone = len(x) == 1 or sparse
    if readout != "pre" and not alone:
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
        mode="markers" if sparse else "lines+markers",
        name=READOUT_WORDS.get(readout, readout),
        line={"color": colour, "width": 2, "dash": "dot" if readout == "pre" else "solid"},
        marker={"size": 8 if alone else 5},
        error_y={"array": high - 100 * points["accuracy"], "arrayminus": 100 * points["accuracy"] - low}
        if alone
        else None,
        legendgroup=readout,
        customdata=np.column_stack([points["site"], low, high]),
        hovertemplate="%{y:.1f} % (%{customdata[1]:.0f} to %{customdata[2]:.0f})",
    )


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
