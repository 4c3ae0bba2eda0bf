"""Pairs of classes drawn: a small plot each, how well every site tells the two apart, and where that is lost."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from fgdiag.prompts import spoken
from fgdiag_probes.style import BLUE, GREY, TEMPLATE, VERMILION, faded

COLUMNS = 2
ROW_HEIGHT = 190
TICKS = 5


def draw_pairs(curves: pd.DataFrame, places: pd.DataFrame) -> go.Figure:
    """Draw a plot a pair; the stretch in which it is lost is shaded.

    Parameters
    ----------
    curves, places
        As in `fgdiag_probes.separability.PairCurves`.
    """
    pairs = places.to_dict("records")
    if not pairs:
        return go.Figure(layout={"template": TEMPLATE, "title_text": "No two classes are confused"})
    columns = min(COLUMNS, len(pairs))
    rows = -(-len(pairs) // columns)
    height = 130 + ROW_HEIGHT * rows
    figure = make_subplots(
        rows=rows,
        cols=columns,
        subplot_titles=[_title(pair) for pair in pairs],
        shared_yaxes=True,
        horizontal_spacing=0.04,
        vertical_spacing=0.42 / rows,
    )
    for at, pair in enumerate(pairs):
        cell: dict[str, Any] = {"row": at // columns + 1, "col": at % columns + 1}
        of_pair = curves.query("first == @pair['first'] and second == @pair['second']")
        _draw(figure, of_pair, pair, cell, legend=at == 0)
    figure.update_layout(
        template=TEMPLATE,
        title_text="How well each site tells two classes apart",
        height=height,
        hovermode="closest",
        margin={"t": 76, "r": 28},
        legend={"y": -60 / (ROW_HEIGHT * rows), "yanchor": "top"},
    )
    figure.update_yaxes(range=[0, 106], tickvals=[0, 50, 100])
    figure.update_yaxes(title_text="told apart (%)", col=1)
    return figure.update_annotations(font_size=12)


def _title(pair: dict[str, Any]) -> str:
    names = f"{spoken(pair['first'])} / {spoken(pair['second'])}"
    return f"<b>{names}</b><br>{where_lost(pair)}"


def where_lost(pair: dict[str, Any]) -> str:
    """Say in some words where a pair of `PairCurves.places` is lost.

    Examples
    --------
    >>> where_lost({"outcome": "lost", "stage": "answer", "after": "llm.norm", "by": "answer"})
    'lost in the answer'
    """
    if pair["outcome"] != "lost":
        return {"nowhere": "not seen to be lost"}.get(pair["outcome"], "not seen to be told apart")
    if pair["stage"] == "answer":
        return "lost in the answer"
    return f"lost in the {pair['stage']}: {pair['after']} → {pair['by']}"


def _draw(
    figure: go.Figure, points: pd.DataFrame, pair: dict[str, Any], cell: dict[str, Any], *, legend: bool
) -> None:
    pixels, answer = points.query("site == 'pixels'"), points.query("site == 'answer'")
    probed = points.query("site != 'pixels' and site != 'answer'")
    sites = [*probed["site"], *answer["site"]]
    x = list(range(len(probed)))
    high, low = 100 * probed["high"], 100 * probed["low"]
    figure.add_scatter(
        x=[*x, *x[::-1]],
        y=[*high, *low[::-1]],
        fill="toself",
        fillcolor=faded(BLUE, 0.18),
        line={"width": 0},
        mode="lines",
        hoverinfo="skip",
        showlegend=False,
        **cell,
    )
    figure.add_scatter(
        x=x,
        y=100 * probed["accuracy"],
        mode="lines+markers",
        name="linear discriminant at the site",
        line={"color": BLUE, "width": 2},
        marker={"size": 4},
        customdata=probed[["site", "readout"]],
        hovertemplate="%{customdata[0]}, %{customdata[1]}: %{y:.0f} %<extra></extra>",
        legendgroup="site",
        showlegend=legend,
        **cell,
    )
    _draw_answer(figure, answer, len(x), cell, legend=legend)
    figure.add_hline(y=50, line={"color": GREY, "width": 1.2, "dash": "dot"}, **cell)
    for accuracy in pixels["accuracy"]:
        figure.add_hline(y=100 * accuracy, line={"color": GREY, "width": 1, "dash": "dash"}, **cell)
    if legend:
        for name, dash in (("chance", "dot"), *([("raw pixels", "dash")] if len(pixels) else [])):
            line = {"color": GREY, "width": 1.2, "dash": dash}
            figure.add_scatter(x=[None], y=[None], mode="lines", name=name, line=line)
    if pair["outcome"] == "lost":
        figure.add_vrect(
            x0=sites.index(pair["after"]),
            x1=sites.index(pair["by"]),
            fillcolor=faded(VERMILION, 0.22),
            line_width=0,
            layer="below",
            **cell,
        )
    shown = _ticks(sites)
    figure.update_xaxes(
        tickvals=shown, ticktext=[sites[at] for at in shown], range=[-0.6, len(sites) - 0.4], **cell
    )


def _draw_answer(
    figure: go.Figure, answer: pd.DataFrame, x: int, cell: dict[str, Any], *, legend: bool
) -> None:
    if not len(answer):
        return
    share = 100 * answer["accuracy"]
    figure.add_scatter(
        x=[x],
        y=share,
        mode="markers",
        name="answer",
        marker={"size": 9, "color": VERMILION, "symbol": "diamond"},
        error_y={
            "array": 100 * answer["high"] - share,
            "arrayminus": share - 100 * answer["low"],
            "width": 3,
        },
        hovertemplate="answer: %{y:.0f} %<extra></extra>",
        legendgroup="answer",
        showlegend=legend,
        **cell,
    )


def _ticks(sites: list[str]) -> list[int]:
    """Positions of the first site, the last, and some in between that do not crowd them."""
    last = len(sites) - 1
    if last < TICKS:
        return list(range(len(sites)))
    step = last / (TICKS - 1)
    return [round(at * step) for at in range(TICKS)]
