"""Confusion matrices drawn: readable with a handful of classes as with two hundred."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fgdiag.prompts import spoken
from fgdiag_probes.style import GREY, TEMPLATE, VERMILION, faded

if TYPE_CHECKING:
    from fgdiag_probes.confusion_matrix import ConfusionMatrix

HEIGHT = 880
"""Pixels of a matrix with many classes."""
ALL_NAMED, MANY = 90, 40
"""With more classes than this, kinds are named in place of classes; and names are written small."""
APART = 9
"""Pixels between two names that can be read."""


def draw_matrices(matrices: Sequence["ConfusionMatrix"]) -> go.Figure:
    """Draw matrices in a row, the class of the image down, what was named across; shares of a row in %.

    What is named right is grey and what is confused coloured, so that few confusions stand out beside much that is
    right. Frames are the coarse classes.
    """
    first = matrices[0]
    size = len(first.classes)
    inner = int(np.clip(11 * size, 260, HEIGHT))
    figure = make_subplots(
        cols=len(matrices),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[_title(matrix) for matrix in matrices] if len(matrices) > 1 else None,
    )
    for column, matrix in enumerate(matrices, 1):
        _draw(figure, matrix, column, legend=column == len(matrices))
    figure.update_layout(
        template=TEMPLATE,
        title_text=f"What is named for what: {_title(first)}"
        if len(matrices) == 1
        else "What is named for what",
        height=inner + (190 if len(matrices) == 1 else 110),
        hovermode="closest",
        margin={"t": 70},
    )
    ticks = _ticks(first, inner)
    alone = len(matrices) == 1
    figure.update_xaxes(
        **(ticks if alone else {"showticklabels": False, "ticks": ""}),
        range=[-0.5, size - 0.5],
        showgrid=False,
        zeroline=False,
        tickangle=-90,
        title_text="named" if alone else "named (in the same order)",
        constrain="domain",
    )
    figure.update_yaxes(**ticks, range=[size - 0.5, -0.5], showgrid=False, zeroline=False)
    figure.update_yaxes(title_text="class of the image", col=1)
    return figure.update_annotations(font_size=13)


def _title(matrix: "ConfusionMatrix") -> str:
    where = "the model's answer" if matrix.site == "answer" else f"probe at {matrix.site} ({matrix.readout})"
    return where + (", among look-alikes" if matrix.level == "fine|coarse" else "")


def _draw(figure: go.Figure, matrix: "ConfusionMatrix", column: int, *, legend: bool) -> None:
    cell: dict[str, Any] = {"row": 1, "col": column}
    shares, right = 100 * matrix.shares, np.eye(len(matrix.classes), dtype=bool)
    words = _words(matrix)
    for at, (name, mask, colour) in enumerate((("right", right, GREY), ("confused", ~right, VERMILION))):
        shown = mask & (shares > 0)
        figure.add_heatmap(
            z=_only(shares.round(1), shown),
            hovertext=_only(words, shown),
            hoverinfo="text",
            colorscale=[[0, faded(colour, 0.12)], [1, colour]],
            zmin=0,
            zmax=100,
            showscale=legend,
            colorbar={
                "title": {"text": f"{name} (%)", "side": "right", "font": {"size": 11}},
                "thickness": 9,
                "len": 0.32,
                "x": 1.01,
                "y": 0.98 - 0.36 * at,
                "yanchor": "top",
                "outlinewidth": 0,
                "tickvals": [0, 50, 100],
            },
            **cell,
        )
    _frame(figure, matrix, cell)


def _only(values: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Values, nothing where nothing is to be drawn. An array: of lists, plotly looks at every cell by itself."""
    nothing: Any = None if values.dtype == object else np.nan
    return np.where(shown, values, nothing)


def _words(matrix: "ConfusionMatrix") -> np.ndarray:
    """(classes, classes) object: what a cell says when it is pointed at; None where nothing is."""
    names, images = [spoken(name) for name in matrix.classes], matrix.counts.sum(1)
    words = np.full(matrix.counts.shape, None, object)
    for truth, said in np.argwhere(matrix.counts):
        count = matrix.counts[truth, said]
        words[truth, said] = f"{names[truth]} named {names[said]}: {count} of {images[truth]}"
    return words


def _frame(figure: go.Figure, matrix: "ConfusionMatrix", cell: dict[str, Any]) -> None:
    x: list[float | None] = []
    y: list[float | None] = []
    for name, start, end in matrix.blocks:
        if name and end - start > 1:
            low, high = start - 0.5, end - 0.5
            x += [low, high, high, low, low, None]
            y += [low, low, high, high, low, None]
    line = {"color": GREY, "width": 0.8}
    figure.add_scatter(x=x, y=y, mode="lines", line=line, hoverinfo="skip", showlegend=False, **cell)


def _ticks(matrix: "ConfusionMatrix", pixels: int) -> dict[str, Any]:
    """Name every class; or every kind where they are too many, and of those what there is room for."""
    size = len(matrix.classes)
    kinds = any(name for name, _, _ in matrix.blocks)
    if size <= ALL_NAMED or not kinds:
        marks = [(spoken(name), at) for at, name in enumerate(matrix.classes)]
    else:
        marks = [(spoken(name), (start + end - 1) / 2) for name, start, end in matrix.blocks]
    apart = APART * size / pixels
    kept: list[tuple[str, float]] = []
    for name, at in marks:
        if not kept or at - kept[-1][1] >= apart - 1e-9:
            kept.append((name, at))
    font = {"size": 9 if size > MANY else 11}
    return {"tickvals": [at for _, at in kept], "ticktext": [name for name, _ in kept], "tickfont": font}
