"""The loss budget drawn: what is left at each depth, and how much went in between."""

import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.style import GREY, LEVEL_COLOURS, LEVEL_NAMES, TEMPLATE

TICKS = {
    "vision": "vision<br>encoder",
    "projector": "projector",
    "best llm layer": "best LLM<br>layer",
    "last llm layer": "last LLM<br>layer",
    "answer": "answer",
}


def draw_budget(depths: pd.DataFrame, drops: pd.DataFrame) -> go.Figure:
    """Draw accuracy by depth with 95 % intervals, a line a level, and the drops of the finest level.

    Parameters
    ----------
    depths, drops
        As in `LossBudget`.
    """
    figure = go.Figure(layout={"template": TEMPLATE})
    by_level = {str(level): rows for level, rows in depths.groupby("level", sort=False)}
    order = [depth for depth in TICKS if depth in set(depths["depth"])]
    for level, rows in reversed(by_level.items()):  # the finest on top
        _add_level(figure, level, rows.query("depth != 'pixels'"), order)
    figure.add_scatter(
        x=[None],
        y=[None],
        mode="lines",
        name="chance",
        line={"color": GREY, "width": 1.2, "dash": "dot"},
    )
    finest = next(iter(by_level))
    for drop in drops.to_dict("records"):
        if drop["level"] == finest:
            _write_drop(figure, drop, order)
    return figure.update_layout(
        legend={"traceorder": "reversed"},
        title_text="What is left of the labels at each depth",
        xaxis={
            "tickvals": list(range(len(order))),
            "ticktext": [TICKS[depth] for depth in order],
            "range": [-0.3, len(order) - 0.7],
        },
        yaxis={
            "title_text": "accuracy (% of test images)",
            "range": [0, 112],
            "tickvals": [0, 25, 50, 75, 100],
        },
    )


def _add_level(figure: go.Figure, level: str, rows: pd.DataFrame, order: list[str]) -> None:
    colour = LEVEL_COLOURS[level]
    x = [order.index(depth) for depth in rows["depth"]]
    accuracy = 100 * rows["accuracy"]
    places = [f"{site}, {readout}" for site, readout in zip(rows["site"], rows["readout"], strict=True)]
    figure.add_scatter(
        x=x,
        y=accuracy,
        error_y={
            "type": "data",
            "array": 100 * rows["high"] - accuracy,
            "arrayminus": accuracy - 100 * rows["low"],
            "thickness": 1.2,
            "width": 4,
        },
        mode="lines+markers",
        name=LEVEL_NAMES[level],
        legendgroup=level,
        line={"color": colour, "width": 2.5},
        marker={"size": 8},
        customdata=places,
        hovertemplate="%{y:.1f} % (%{customdata})",
    )
    figure.add_scatter(
        x=[x[0], x[-1]],
        y=[100 * rows["chance"].iloc[0]] * 2,
        mode="lines",
        line={"color": colour, "width": 1.2, "dash": "dot"},
        opacity=0.7,
        legendgroup=level,
        showlegend=False,
        hoverinfo="skip",
    )


def _write_drop(figure: go.Figure, drop: dict, order: list[str]) -> None:
    """The change between two depths, above the lines; in bold colour where it is significant."""
    change = -drop["drop"]
    text = f"{'+' if change >= 0.5 else '−' if change <= -0.5 else '±'}{abs(change):.0f}"
    figure.add_annotation(
        x=(order.index(drop["from"]) + order.index(drop["to"])) / 2,
        y=107,
        text=f"<b>{text}</b>" if drop["significant"] else text,
        font={"color": LEVEL_COLOURS[drop["level"]] if drop["significant"] else GREY, "size": 14},
        hovertext=f"drop {drop['drop']:.1f} points, 95 % interval {drop['low']:.1f} to {drop['high']:.1f}",
        showarrow=False,
    )
