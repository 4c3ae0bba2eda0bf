"""The way from one recipe to another, drawn: accuracy step by step, and what each ingredient contributes."""

from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fgdiag_probes.style import BLUE, GREEN, TEMPLATE, VERMILION

COLOURS = {"encoder": BLUE, "projector": GREEN, "last llm layer": VERMILION}
NARROW = 17
"""Letters in a line below an axis."""
APART = 0.06
"""Between the intervals of one step, so that they do not hide each other."""


def draw_bridge(path: pd.DataFrame, contributions: pd.DataFrame, start: str, end: str) -> go.Figure:
    """Draw the tables of `fgdiag_probes.bridge.Bridge`.

    Parameters
    ----------
    start, end
        Titles of the recipes.
    """
    figure = make_subplots(
        rows=2,
        vertical_spacing=0.22,
        row_heights=[0.52, 0.48],
        subplot_titles=(
            "Accuracy, changing one ingredient after the other",
            "What each ingredient contributes, on the mean over all orders (*: a paper does not tell, assumed)",
        ),
    )
    steps = [start, *(f"then {name}" for name in path["ingredient"].unique() if name)]
    last = len(steps) - 1
    steps[-1] += f" = {end}"
    named = contributions.query("depth == 'last llm layer'")
    order = named["ingredient"].tolist()
    for beside, (depth, colour) in enumerate(COLOURS.items()):
        line = _line(path.query("depth == @depth"), APART * (beside - 1), depth, colour)
        figure.add_scatter(**line, row=1, col=1)
        bars = _bars(contributions.query("depth == @depth"), order, depth, colour)
        figure.add_bar(**bars, row=2, col=1)
    figure.update_xaxes(
        row=1,
        tickvals=list(range(last + 1)),
        ticktext=[_narrow(step) for step in steps],
        range=[-0.4, last + 0.4],
    )
    labels = [
        _narrow(name + "\N{NO-BREAK SPACE}*" * assumed)
        for name, assumed in zip(order, named["assumed"], strict=True)
    ]
    figure.update_xaxes(row=2, tickvals=list(range(len(labels))), ticktext=labels)
    figure.update_yaxes(row=1, title="test images named right (%)", rangemode="tozero")
    figure.update_yaxes(row=2, title="change of accuracy (points)", zeroline=True, zerolinewidth=1.5)
    figure.update_annotations(x=0, xanchor="left", font={"size": 14})
    return figure.update_layout(
        template=TEMPLATE,
        title=f"From the probes of {start} to those of {end}",
        height=780,
        bargap=0.25,
        hovermode="closest",
        legend={"y": 1.04},
    )


def _line(rows: pd.DataFrame, beside: float, depth: str, colour: str) -> dict[str, Any]:
    accuracy, low, high = 100 * rows[["accuracy", "low", "high"]].to_numpy().T
    return {
        "x": rows["step"] + beside,
        "y": accuracy,
        "error_y": _reach(accuracy, low, high),
        "mode": "lines+markers",
        "name": depth,
        "legendgroup": depth,
        "line": {"color": colour, "width": 2.5},
        "marker": {"size": 8},
        "hovertemplate": "%{y:.1f} %",
    }


def _bars(rows: pd.DataFrame, order: list[str], depth: str, colour: str) -> dict[str, Any]:
    points, low, high = rows[["points", "low", "high"]].to_numpy().T
    return {
        "x": [order.index(ingredient) for ingredient in rows["ingredient"]],
        "y": points,
        "error_y": _reach(points, low, high),
        "name": depth,
        "legendgroup": depth,
        "showlegend": False,
        "marker": {"color": colour},
        "customdata": rows[["first", "last"]],
        "hovertemplate": "%{y:.1f} points; changed first %{customdata[0]:.1f}, changed last %{customdata[1]:.1f}",
    }


def _reach(middle: np.ndarray, low: np.ndarray, high: np.ndarray) -> dict[str, Any]:
    return {"type": "data", "array": high - middle, "arrayminus": middle - low, "thickness": 1.2, "width": 4}


def _narrow(text: str) -> str:
    return "<br>".join(wrap(text, NARROW))
