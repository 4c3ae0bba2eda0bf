"""The loss budget drawn as a waterfall: what is left at each depth, and what was lost on the way there."""

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.depths import REFERENCE
from fgdiag_probes.style import BLUE, GREEN, GREY, LEVEL_WORDS, SKY, TEMPLATE, VERMILION, faded

TICKS = {
    REFERENCE: "image-only<br>reference",
    "vision": "vision<br>encoder",
    "projector": "projector",
    "best llm layer": "best LLM<br>layer",
    "last llm layer": "last LLM<br>layer",
    "answer": "answer:<br>likelihood",
    "multiple choice": "answer:<br>choice",
    "free text": "answer:<br>free text",
}
CHANGES_AT, TOP = 106, 112
INK = "#14171B"
"""Of numbers on a light column, whatever the page."""
_LINKED = "<br>drawn: what it keeps of the likelihood's accuracy beyond chance"
MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class _Column:
    """One column: `left` is there, `lost` is gone since the depth before; all in %."""

    tick: str
    left: float
    below: float | None
    above: float | None
    lost: float
    significant: bool
    hover: str


def draw_budget(depths: pd.DataFrame, drops: pd.DataFrame, words: pd.DataFrame, level: str) -> go.Figure:
    """Draw the accuracy left at each depth with its 95 % interval, and on top of it what was lost on the way.

    Parameters
    ----------
    depths, drops, words
        As in `LossBudget`.
    level
        Whose waterfall it is; the coarse level is drawn as a line beside it.
    """
    columns = [*_depth_columns(depths, drops, level), *_word_columns(depths, words, level)]
    ticks = [column.tick for column in columns]
    figure = go.Figure(layout={"template": TEMPLATE})
    _add_bars(figure, columns)
    if level != "coarse" and "coarse" in set(depths["level"]):
        _add_kind(figure, depths, ticks)
    chance = 100 * float(depths.query("level == @level")["chance"].iloc[0])
    figure.add_hline(y=chance, line={"color": GREY, "width": 1.2, "dash": "dot"})
    figure.add_annotation(
        x=1, xref="paper", xanchor="left", y=chance, yanchor="middle", text=" chance", showarrow=False
    )
    return figure.update_layout(
        title_text=f"What is left: {LEVEL_WORDS[level]}",
        barmode="stack",
        bargap=0.28,
        hovermode="closest",
        margin={"r": 56},
        xaxis={"categoryorder": "array", "categoryarray": ticks},
        yaxis={
            "title_text": "accuracy (% of test images)",
            "range": [0, TOP],
            "tickvals": [0, 25, 50, 75, 100],
        },
    )


def _depth_columns(depths: pd.DataFrame, drops: pd.DataFrame, level: str) -> list[_Column]:
    fallen = {row["to"]: row for row in drops.to_dict("records") if row["level"] == level}
    columns = []
    for row in depths.to_dict("records"):
        if row["level"] != level or row["depth"] not in TICKS:
            continue
        fall = fallen.get(row["depth"])
        accuracy, low, high = (100 * row[name] for name in ("accuracy", "low", "high"))
        columns.append(
            _Column(
                TICKS[row["depth"]],
                accuracy,
                accuracy - low,
                high - accuracy,
                fall["drop"] if fall else 0.0,
                bool(fall and fall["significant"]),
                f"{accuracy:.1f} % ({low:.1f} to {high:.1f}), {row['site']}, {row['readout']}"
                + (_fall_in_words(fall) if fall else ""),
            )
        )
    return columns


def _word_columns(depths: pd.DataFrame, words: pd.DataFrame, level: str) -> list[_Column]:
    """Words begin where the likelihood ends; each is laid on the scale of the level."""
    said = depths.query("level == @level and depth == 'answer'")["accuracy"].to_numpy(float)
    columns = []
    for row in words.to_dict("records"):
        if row["level"] != level or len(said) == 0 or pd.isna(row["linked"]):
            continue
        left = 100 * row["linked"]
        columns.append(
            _Column(
                TICKS[row["way"]],
                left,
                None,
                None,
                100 * float(said[0]) - left,
                bool(row["significant"]),
                f"right for {100 * row['accuracy']:.1f} %, where the likelihood is right for "
                f"{100 * row['by_likelihood']:.1f} % of {row['images']} images{_fall_in_words(row)}{_LINKED}",
            )
        )
    return columns


def _fall_in_words(row: dict) -> str:
    return f"<br>a drop of {row['drop']:.1f} points, 95 % interval {row['low']:.1f} to {row['high']:.1f}"


def _add_bars(figure: go.Figure, columns: list[_Column]) -> None:
    figure.add_bar(
        x=[column.tick for column in columns],
        y=[column.left for column in columns],
        error_y={
            "type": "data",
            "array": [column.above for column in columns],
            "arrayminus": [column.below for column in columns],
            "thickness": 1.2,
            "width": 4,
            "color": GREY,
        },
        name="left",
        marker={"color": [faded(BLUE, 0.75) if "answer" not in column.tick else SKY for column in columns]},
        hovertext=[column.hover for column in columns],
        hoverinfo="text",
        text=[f"<b>{column.left:.0f}</b>" for column in columns],
        textposition="inside",
        insidetextanchor="start",
        textangle=0,
        insidetextfont={"color": ["white" if "answer" not in column.tick else INK for column in columns]},
        showlegend=False,
    )
    for name, significant, colour in (("lost", True, VERMILION), ("fallen, within luck", False, GREY)):
        fallen = [column for column in columns if column.lost > 0 and column.significant == significant]
        if fallen:
            figure.add_bar(
                x=[column.tick for column in fallen],
                y=[column.lost for column in fallen],
                name=name,
                marker={"color": faded(colour, 0.85 if significant else 0.3)},
                hovertext=[column.hover for column in fallen],
                hoverinfo="text",
            )
    for column in columns:
        _write_change(figure, column)


def _write_change(figure: go.Figure, column: _Column) -> None:
    """The change since the depth before, above the columns; in bold colour where it is a loss beyond luck."""
    if abs(column.lost) < 0.5:
        return
    text = f"{'+' if column.lost < 0 else MINUS}{abs(column.lost):.0f}"
    figure.add_annotation(
        x=column.tick,
        y=CHANGES_AT,
        text=f"<b>{text}</b>" if column.significant else text,
        font={"color": VERMILION if column.significant else GREY, "size": 14},
        showarrow=False,
    )


def _add_kind(figure: go.Figure, depths: pd.DataFrame, ticks: list[str]) -> None:
    rows = [row for row in depths.to_dict("records") if row["level"] == "coarse"]
    rows = [row for row in rows if TICKS.get(row["depth"]) in ticks]
    figure.add_scatter(
        x=[TICKS[row["depth"]] for row in rows],
        y=[100 * row["accuracy"] for row in rows],
        mode="lines+markers",
        name="the kind (coarse class)",
        line={"color": GREEN, "width": 1.5},
        marker={"size": 7, "symbol": "diamond"},
        hovertemplate="kind: %{y:.1f} %<extra></extra>",
    )
