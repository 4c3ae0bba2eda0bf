"""Figures of what the model says: how often it is right, which places sway it, and how exact its words are."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.style import BLUE, GREEN, GREY, LEVEL_NAMES, ORANGE, PURPLE, SKY, TEMPLATE, VERMILION

GRAIN_COLOURS = {
    "fine": BLUE,
    "coarse": SKY,
    "wrong fine": ORANGE,
    "wrong kind": VERMILION,
    "refusal": PURPLE,
    "none": GREY,
}


def draw_accuracy(table: pd.DataFrame, ways: Mapping[Any, str], title: str) -> go.Figure:
    """Draw accuracy with its interval by level, a colour a way of scoring, and chance as a grey bar.

    Parameters
    ----------
    table
        `level`, `by`, `accuracy`, `low`, `high` in [0, 1], and perhaps `chance`.
    ways
        Words for each value of `by`.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    levels = list(dict.fromkeys(table["level"]))
    for i, ((by, words), colour) in enumerate(zip(ways.items(), (BLUE, GREEN, ORANGE, PURPLE), strict=False)):
        rows = table[table["by"] == by]
        at = [levels.index(level) + 0.16 * (i - (len(ways) - 1) / 2) for level in rows["level"]]
        mean = 100 * rows["accuracy"]
        figure.add_scatter(
            x=at,
            y=mean,
            error_y={
                "type": "data",
                "array": 100 * rows["high"] - mean,
                "arrayminus": mean - 100 * rows["low"],
                "thickness": 1.4,
                "width": 4,
            },
            mode="markers",
            name=words,
            marker={"size": 10, "color": colour},
            hovertemplate="%{y:.1f} %",
        )
    if "chance" in table:
        chance = table.drop_duplicates("level")
        figure.add_bar(
            x=list(range(len(levels))),
            y=100 * chance["chance"],
            width=0.6,
            name="chance",
            marker={"color": GREY, "opacity": 0.25},
            hovertemplate="%{y:.1f} %",
        )
    return figure.update_layout(
        title_text=title,
        xaxis={
            "tickvals": list(range(len(levels))),
            "ticktext": [LEVEL_NAMES[level] for level in levels],
            "range": [-0.5, len(levels) - 0.5],
        },
        yaxis={"title_text": "right (% of test images)", "range": [0, 104]},
        hovermode="closest",
    )


def draw_positions(table: pd.DataFrame) -> go.Figure:
    """Draw how often each place is chosen at the first level, by letters and by text, against an even share.

    Parameters
    ----------
    table
        As `MultipleChoice.positions` gives it.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    rows = table[table["level"] == table["level"].iloc[0]]
    for by, words, colour in (("letters", "likeliest letter", BLUE), ("text", "generated text", ORANGE)):
        some = rows[rows["by"] == by]
        if len(some):
            figure.add_bar(
                x=some["position"],
                y=100 * some["chosen"],
                name=words,
                marker={"color": colour},
                hovertemplate="%{y:.1f} %",
            )
    places = list(dict.fromkeys(rows["position"]))
    figure.add_scatter(
        x=places,
        y=[100 / len(places)] * len(places),
        mode="lines",
        name="even share",
        line={"color": GREY, "dash": "dot"},
        hoverinfo="skip",
    )
    return figure.update_layout(
        title_text="Which place is chosen, the right one standing at each equally often",
        xaxis={"title_text": "place of the option", "type": "category"},
        yaxis={"title_text": "chosen (% of questions)", "rangemode": "tozero"},
        barmode="group",
    )


def draw_grain(table: pd.DataFrame, words: Mapping[Any, str]) -> go.Figure:
    """Draw how exact answers are, a bar a question, its parts adding up to all images.

    Parameters
    ----------
    table
        `level` and a column of shares in [0, 1] for each kind of answer.
    words
        What each kind is, in words.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    asked = [LEVEL_NAMES[level] for level in table["level"]][::-1]
    for kind, text in words.items():
        share = 100 * table[kind].to_numpy()[::-1]
        figure.add_bar(
            y=asked,
            x=share,
            orientation="h",
            name=text,
            marker={"color": GRAIN_COLOURS[kind]},
            text=[f"{value:.0f}" if value >= 4 else "" for value in share],
            textposition="inside",
            insidetextanchor="middle",
            hovertemplate="%{x:.1f} %",
        )
    return figure.update_layout(
        title_text="How exact the answers in free text are",
        barmode="stack",
        xaxis={"title_text": "answers (% of test images)", "range": [0, 102]},
        yaxis={"title_text": "asked for"},
        legend={"traceorder": "normal"},
        hovermode="closest",
        height=190 + 60 * len(asked),
    )
