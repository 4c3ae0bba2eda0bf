"""How a token lens is drawn: words on the picture, and ranks of the names along the layers."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.curve_figure import site_ticks
from fgdiag_probes.map_figure import as_link
from fgdiag_probes.style import BLUE, GREY, ORANGE, TEMPLATE, VERMILION, faded

if TYPE_CHECKING:
    from fgdiag_probes.token_lens import TokenLens, Way

WRITTEN = 64
"""Tokens up to which their words stand on the picture; of more they are shown on hovering."""
LETTERS = 11
"""Letters of a word that find room in a token."""
HEIGHT = 430


def draw_words(lens: "TokenLens", layer: int, way: "Way", name: int, grid: int) -> go.Figure:
    """Draw each token where it lies on the picture, with its word; the sooner a name comes, the redder.

    Parameters
    ----------
    layer
        Index of a site.
    name
        Index of the class name whose rank colours the tokens.
    grid
        Which of the grids of tokens.
    """
    from fgdiag_probes.token_lens import WAYS

    at = list(WAYS).index(way)
    height, width = lens.picture.shape[:2]
    tokens = np.flatnonzero(lens.grid == grid)
    boxes = lens.boxes[tokens] * [width, height, width, height]
    rank = lens.ranks[at, layer, name, tokens]
    strength = np.clip(1 - np.log(rank) / np.log(max(lens.by_chance(name), 2)), 0, 1)
    figure = go.Figure(layout={"template": TEMPLATE})
    grey = np.asarray(lens.picture, np.float32).mean(2, keepdims=True)
    pale = np.repeat(255 - 0.45 * (255 - grey), 3, 2).astype(np.uint8)
    figure.add_layout_image(
        source=as_link(pale),
        xref="x",
        yref="y",
        x=0,
        y=0,
        sizex=width,
        sizey=height,
        sizing="stretch",
        layer="below",
    )
    for box, much in zip(boxes, strength, strict=True):
        left, top, right, bottom = box.tolist()
        figure.add_shape(
            type="rect",
            x0=left,
            y0=top,
            x1=right,
            y1=bottom,
            line={"width": 1, "color": "rgba(255, 255, 255, 0.9)"},
            fillcolor=faded(VERMILION, round(0.75 * float(much), 3)),
            layer="between",
        )
    words, scores = lens.words[at, layer, tokens], lens.scores[at, layer, tokens]
    written, spoken = len(tokens) <= WRITTEN, f"“{html.escape(lens.names[name])}”"
    told = [_told(*pair, way) for pair in zip(words, scores, strict=True)]
    figure.add_scatter(
        x=boxes[:, [0, 2]].mean(1),
        y=boxes[:, [1, 3]].mean(1),
        mode="markers+text" if written else "markers",
        marker={"size": 14, "opacity": 0},
        text=[html.escape(_short(str(one))) for one in words[:, 0]] if written else None,
        textfont={"color": "#14171b", "size": 12, "weight": 600, "shadow": "0 0 3px #fff, 0 0 3px #fff"},
        customdata=[f"{lines}<br>{spoken}: rank {one:,.0f}" for lines, one in zip(told, rank, strict=True)],
        hovertemplate="%{customdata}<extra></extra>",
        showlegend=False,
    )
    figure.update_xaxes(visible=False, range=[0, width], constrain="domain")
    figure.update_yaxes(visible=False, range=[height, 0], scaleanchor="x", constrain="domain")
    return figure.update_layout(
        title_text=f"{WAYS[way].capitalize()} at {lens.sites[layer]}",
        height=HEIGHT,
        hovermode="closest",
        hoverdistance=-1,  # anywhere on a token, not only near its middle
        margin={"l": 4, "r": 4, "t": 40, "b": 4},
    )


def draw_ranks(table: pd.DataFrame, sites: Sequence[str]) -> go.Figure:
    """Draw rows of `TokenLens.frame` of one way: of each name the median rank of the tokens, and that of the best."""
    figure = go.Figure(layout={"template": TEMPLATE})
    at = {site: x for x, site in enumerate(sites)}
    for colour, (name, rows) in zip((BLUE, ORANGE), table.groupby("name", sort=False), strict=False):
        x = [at[str(site)] for site in rows["site"]]
        for column, words, dash in (("best", "best token", "solid"), ("rank", "middle token", "dot")):
            figure.add_scatter(
                x=x,
                y=rows[column],
                mode="lines+markers",
                name=f"{name}, {words}",
                line={"color": colour, "dash": dash, "width": 1.8},
                marker={"size": 5},
                hovertemplate="%{y:,.0f}",
            )
    chance = float(np.median(table["chance"]))
    figure.add_scatter(
        x=[0, len(sites) - 1],
        y=[chance, chance],
        mode="lines",
        name="a token that knows nothing",
        line={"color": GREY, "dash": "dash", "width": 1.2},
        hoverinfo="skip",
    )
    return figure.update_layout(
        title_text="Where the names stand in the vocabulary",
        xaxis={"title_text": "layer, in the order of the forward pass", **site_ticks(list(sites))},
        yaxis={
            "title_text": "rank of the name's first token (1 is first)",
            "type": "log",
            "autorange": "reversed",
            "dtick": 1,
        },
        height=HEIGHT,
    )


def _short(word: str) -> str:
    return word if len(word) <= LETTERS else f"{word[: LETTERS - 1]}…"


def _told(words: np.ndarray, scores: np.ndarray, way: "Way") -> str:
    """The likeliest words with their scores, a line each."""
    shown = [f"{100 * one:.1f} %" if way == "logits" else f"{one:.2f}" for one in scores]
    return "<br>".join(f"{html.escape(str(word))}  {one}" for word, one in zip(words, shown, strict=True))
