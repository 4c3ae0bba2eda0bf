"""Image-only baselines drawn: how each does beside the VLM, and where the VLM stays furthest behind."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.style import BLUE, GREEN, GREY, LEVEL_WORDS, ORANGE, PURPLE, TEMPLATE, VERMILION, faded

METHOD_COLOURS = {
    "linear probe": BLUE,
    "nearest neighbours": ORANGE,
    "class means": GREEN,
    "zero-shot": PURPLE,
}
ROW = 30
"""Pixels of height a row."""


def draw_accuracies(rows: pd.DataFrame, level: str, *, vlm: str) -> go.Figure:
    """Draw accuracy with 95 % interval, a row a model and method, best on top, and the VLM's own as a line.

    Parameters
    ----------
    rows
        Those of `Baselines.table` of one level.
    vlm
        The model that stands for the VLM's answers.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    baselines = rows.loc[rows["model"] != vlm].sort_values(by=["accuracy"])
    names = _names(baselines)
    for method, colour in METHOD_COLOURS.items():
        part = baselines.loc[baselines["method"] == method]
        if len(part):
            figure.add_scatter(
                **_with_interval(100 * part[["accuracy", "low", "high"]].to_numpy()),
                y=_names(part),
                mode="markers",
                name=method,
                marker={"size": 10, "color": colour},
                hovertemplate="%{x:.1f} %",
            )
    for answer in rows.loc[rows["model"] == vlm].to_dict("records"):
        figure.add_vrect(
            100 * answer["low"], 100 * answer["high"], fillcolor=faded(VERMILION, 0.12), line_width=0
        )
        figure.add_vline(100 * answer["accuracy"], line={"color": VERMILION, "width": 2})
        figure.add_scatter(x=[None], y=[None], mode="lines", name=vlm, line={"color": VERMILION, "width": 2})
    chance = 100 * rows["chance"].iloc[0]
    figure.add_vline(chance, line={"color": GREY, "width": 1.2, "dash": "dot"})
    figure.add_scatter(
        x=[None], y=[None], mode="lines", name="chance", line={"color": GREY, "width": 1.2, "dash": "dot"}
    )
    return figure.update_layout(
        title_text=f"Read from the images alone: {LEVEL_WORDS[level]}",
        xaxis={"title_text": "accuracy (% of test images)", "range": [0, 102]},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": names},
        hovermode="closest",
        height=190 + ROW * len(names),
    )


def draw_gaps(rows: pd.DataFrame, level: str) -> go.Figure:
    """Draw the gap of each class with its 95 % interval, the largest on top.

    Parameters
    ----------
    rows
        Some of `Baselines.gaps`, of one level, one baseline and one `by`, the largest gap first.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    clear = (rows["p_value"] < 0.05).to_numpy(bool)
    for name, colour, part in (
        ("clear gap", BLUE, rows.loc[clear]),
        ("no clear gap", GREY, rows.loc[~clear]),
    ):
        figure.add_scatter(
            **_with_interval(part[["gap", "low", "high"]].to_numpy(float)),
            y=part["of"],
            mode="markers",
            name=name,
            marker={"size": 9, "color": colour},
            customdata=[
                f"{row['images']} images: {100 * row['accuracy']:.0f} % against {100 * row['vlm_accuracy']:.0f} %"
                for row in part.to_dict("records")
            ],
            hovertemplate="%{x:.1f} points; %{customdata}",
        )
    figure.add_vline(0, line={"color": GREY, "width": 1.2})
    first = rows.iloc[0].to_dict() if len(rows) else {"model": "a baseline", "method": "none", "by": "any"}
    return figure.update_layout(
        title_text=f"Where the VLM stays behind: {LEVEL_WORDS[level]}",
        xaxis={"title_text": f"more named right by {first['model']}, {first['method']} (points)"},
        yaxis={
            "type": "category",
            "title_text": f"{first['by']} class",
            "categoryorder": "array",
            "categoryarray": rows["of"].tolist()[::-1],
        },
        hovermode="closest",
        height=190 + 24 * max(1, len(rows)),
    )


def _with_interval(points: np.ndarray) -> dict:
    """Positions and error bars of (rows, 3) estimates with the ends of their intervals."""
    x, low, high = points.T
    error = {"type": "data", "array": high - x, "arrayminus": x - low, "thickness": 1.2, "width": 4}
    return {"x": x, "error_x": error}


def _names(rows: pd.DataFrame) -> list[str]:
    return [f"{model}, {method}" for model, method in zip(rows["model"], rows["method"], strict=True)]
