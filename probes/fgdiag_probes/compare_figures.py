"""Runs side by side, drawn: what is left at each depth, curves over relative depth, and paired differences."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.budget_figure import TICKS
from fgdiag_probes.style import (
    BLUE,
    GREEN,
    GREY,
    LEVEL_WORDS,
    ORANGE,
    PURPLE,
    READOUT_WORDS,
    SKY,
    TEMPLATE,
    VERMILION,
    faded,
    minus,
)

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY)
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
"""Of the runs in their order, so that none is told by its colour alone."""
QUARTERS = (0.25, 0.5, 0.75, 1.0)


def draw_depths(rows: pd.DataFrame, level: str) -> go.Figure:
    """Draw accuracy at each depth with its 95 % interval, a line a run.

    Parameters
    ----------
    rows
        Those of `Comparison.depths` of one level.
    """
    order = list(dict.fromkeys(rows["depth"]))
    figure = go.Figure(layout={"template": TEMPLATE})
    for at, (name, some), apart in _runs(rows):
        score = 100 * some["accuracy"]
        figure.add_scatter(
            x=[order.index(depth) + apart for depth in some["depth"]],
            y=score,
            error_y={
                "array": 100 * some["high"] - score,
                "arrayminus": score - 100 * some["low"],
                "thickness": 1.2,
                "width": 4,
            },
            mode="lines+markers",
            name=name,
            line={"color": COLOURS[at % len(COLOURS)], "width": 2.5},
            marker={"size": 9, "symbol": SYMBOLS[at % len(SYMBOLS)]},
            customdata=_hover(some),
            hovertemplate="%{y:.1f} % (%{customdata})",
        )
    _add_chance(figure, rows)
    return figure.update_layout(
        title_text=f"At each depth: {LEVEL_WORDS[level]}",
        hovermode="closest",
        margin={"r": 56},
        xaxis={
            "tickvals": list(range(len(order))),
            "ticktext": [TICKS[depth] for depth in order],
            "range": [-0.4, len(order) - 0.6],
        },
        yaxis={"title_text": "accuracy (% of test images)", "range": [0, 103]},
    )


def draw_relative_curves(rows: pd.DataFrame, level: str) -> go.Figure:
    """Draw accuracy over relative depth with its 95 % interval shaded, a line a run.

    Parameters
    ----------
    rows
        Those of `Comparison.curves` of one level.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    for at, (name, some), _ in _runs(rows):
        some, colour = some.sort_values(by=["relative_depth"]), COLOURS[at % len(COLOURS)]
        x, low, high = some["relative_depth"], 100 * some["low"], 100 * some["high"]
        figure.add_scatter(
            x=[*x, *x[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor=faded(colour, 0.14),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
        figure.add_scatter(
            x=x,
            y=100 * some["accuracy"],
            mode="lines+markers",
            name=name,
            legendgroup=name,
            line={"color": colour, "width": 2},
            marker={"size": 5, "symbol": SYMBOLS[at % len(SYMBOLS)]},
            customdata=_hover(some),
            hovertemplate="%{y:.1f} % (%{customdata})",
        )
    _add_chance(figure, rows)
    return figure.update_layout(
        title_text=f"Along the model: {LEVEL_WORDS[level]}",
        hovermode="closest",
        margin={"r": 56},
        xaxis={"title_text": "share of the language model's blocks that have been run", **_ticks(rows)},
        yaxis={"title_text": "accuracy (% of test images)", "range": [0, 103]},
    )


def draw_differences(rows: pd.DataFrame, level: str) -> go.Figure:
    """Draw the paired difference at each depth with its 95 % interval; filled where it is significant.

    Parameters
    ----------
    rows
        Those of `Comparison.differences` of one level.
    """
    order = list(dict.fromkeys(rows["depth"]))
    figure = go.Figure(layout={"template": TEMPLATE})
    for at, (name, some), apart in _runs(rows):
        colour = COLOURS[(at + 1) % len(COLOURS)]  # the first run has the first colour elsewhere
        figure.add_scatter(
            x=[order.index(depth) + 2 * apart for depth in some["depth"]],
            y=some["difference"],
            error_y={
                "array": some["high"] - some["difference"],
                "arrayminus": some["difference"] - some["low"],
                "thickness": 1.4,
                "width": 5,
            },
            mode="markers",
            name=f"{name} {minus('-')} {some['first'].iloc[0]}",
            marker={
                "size": 10,
                "color": [colour if sure else "rgba(0,0,0,0)" for sure in some["significant"]],
                "line": {"color": colour, "width": 2},
                "symbol": SYMBOLS[(at + 1) % len(SYMBOLS)],
            },
            error_y_color=colour,
            customdata=some["outcome"],
            hovertemplate="%{y:+.1f} points: %{customdata}",
            showlegend=True,
        )
    figure.add_hline(y=0, line={"color": GREY, "width": 1.5})
    reach = 1.1 * max(10.0, float(np.abs(rows[["low", "high"]].to_numpy()).clip(0, 100).max(initial=0)))
    return figure.update_layout(
        title_text=f"Differences: {LEVEL_WORDS[level]}",
        hovermode="closest",
        xaxis={
            "tickvals": list(range(len(order))),
            "ticktext": [TICKS[depth] for depth in order],
            "range": [-0.5, len(order) - 0.5],
        },
        yaxis={"title_text": "difference (points of accuracy)", "range": [-reach, reach]},
    )


def _runs(rows: pd.DataFrame) -> Iterator[tuple[int, tuple[str, pd.DataFrame], float]]:
    """Each run with its place in the order of runs, and how far beside the depth it is drawn."""
    found = [(str(name), some) for name, some in rows.groupby("run", sort=False)]
    for at, one in enumerate(found):
        yield at, one, (at - (len(found) - 1) / 2) * 0.05


def _hover(rows: pd.DataFrame) -> list[str]:
    return [
        f"{site}, {READOUT_WORDS.get(readout, readout)}"
        for site, readout in rows[["site", "readout"]].itertuples(index=False)
    ]


def _add_chance(figure: go.Figure, rows: pd.DataFrame) -> None:
    chance = 100 * float(rows["chance"].iloc[0])
    figure.add_hline(y=chance, line={"color": GREY, "width": 1.2, "dash": "dot"})
    figure.add_annotation(
        x=1, xref="paper", xanchor="left", y=chance, yanchor="middle", text=" chance", showarrow=False
    )


def _ticks(rows: pd.DataFrame) -> dict[str, Any]:
    named = {"vision": "vision", "llm.norm": "norm"}
    ends = rows.drop_duplicates("site").loc[lambda some: some["site"].isin(named)]
    marks = {0.0: "projector", **{quarter: f"{quarter:g}" for quarter in QUARTERS}}
    marks |= {float(x): named[site] for x, site in ends[["relative_depth", "site"]].itertuples(index=False)}
    at = sorted(marks)
    return {
        "tickvals": at,
        "ticktext": [marks[x] for x in at],
        "tickangle": -45,
        "range": [at[0] - 0.05, at[-1] + 0.05],
    }
