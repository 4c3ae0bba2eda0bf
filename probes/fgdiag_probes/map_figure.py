"""How maps are drawn: over the picture, and as a table of checks."""

import base64
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image
from plotly.subplots import make_subplots

from fgdiag_probes.style import BLUE, GREY, ORANGE, TEMPLATE, VERMILION, faded

if TYPE_CHECKING:
    from fgdiag_probes.maps import Map

STRONGEST = 99.5
"""Percentile of the size of the values that is drawn in full colour."""


def draw_map(one: "Map", *, beside: bool = True) -> go.Figure:
    """Draw the picture, and beside it the map over the picture in grey; or the map alone, without its colour bar.

    What speaks for the class is vermilion, what speaks against it (or for the other class) blue, told apart by
    colour-blind readers; hatched grey is what the model does not get to see.
    """
    height, width = one.picture.shape[:2]
    last = 2 if beside else 1
    figure = make_subplots(cols=last, rows=1, horizontal_spacing=0.03)
    grey = np.asarray(Image.fromarray(one.picture).convert("L").convert("RGB"), np.float32)
    for column, pixels in ((1, one.picture), (last, 255 - 0.55 * (255 - grey)))[-last:]:
        figure.add_layout_image(
            source=as_link(pixels.astype(np.uint8)),
            xref=f"x{column}",
            yref=f"y{column}",
            x=0,
            y=0,
            sizex=width,
            sizey=height,
            sizing="stretch",
            layer="below",
        )
    rows, columns = one.values.shape
    x, y = (np.arange(columns) + 0.5) * width / columns, (np.arange(rows) + 0.5) * height / rows
    if beside:
        figure.add_heatmap(
            x=x, y=y, z=np.zeros((rows, columns)), opacity=0, showscale=False, hoverinfo="skip"
        )
    figure.add_heatmap(
        x=x,
        y=y,
        z=one.values,
        zmid=0,
        zmin=-one.strongest,
        zmax=one.strongest,
        zsmooth="best" if one.entry == "pixels" and np.isfinite(one.values).all() else False,
        colorscale=[
            [0, faded(BLUE, 0.95)],
            [0.25, faded(BLUE, 0.55)],
            [0.5, "rgba(255, 255, 255, 0)"],
            [0.75, faded(VERMILION, 0.55)],
            [1, faded(VERMILION, 0.95)],
        ],
        colorbar=_colour_bar(one),
        showscale=beside,
        hovertemplate="%{z:.3g} at column %{x:.0f}, row %{y:.0f}<extra></extra>",
        row=1,
        col=last,
    )
    figure.update_xaxes(visible=False, range=[0, width], constrain="domain")
    figure.update_yaxes(visible=False, range=[height, 0], constrain="domain", constraintoward="top")
    for column, anchor in ((1, "x"), (2, "x2"))[:last]:
        figure.update_yaxes(scaleanchor=anchor, row=1, col=column)
    top = 24 + 22 * len(_title(one))
    return figure.update_layout(
        template=TEMPLATE,
        title={"text": "<br>".join(_title(one)), "pad": {"t": 14}},
        height=top + 16 + round(360 * height / width),
        margin={"t": top, "b": 16},
        hovermode="closest",
    )


def _title(one: "Map") -> list[str]:
    lines = [one.method_words, f"<span style='font-size:12px'>{one.target}: {one.score:.2f}</span>"]
    if one.remark:
        lines.append(f"<span style='font-size:12px;color:{VERMILION}'>{one.remark}</span>")
    return lines


def _colour_bar(one: "Map") -> dict:
    first, *others = one.classes
    against = f"for {others[0]}" if others else "against it"
    return {
        "tickvals": [-one.strongest, 0, one.strongest],
        "ticktext": [f"speaks {against}", "nothing", f"speaks for {first}"],
        "thickness": 12,
        "len": 0.9,
        "outlinewidth": 0,
    }


def draw_checks(table: pd.DataFrame) -> go.Figure:
    """Draw by how much the maps of each method beat moved maps and the centre, with intervals."""
    figure = go.Figure(layout={"template": TEMPLATE})
    for name, words, colour in (
        ("moved", "random maps", ORANGE),
        ("centre", "the centre of the picture", BLUE),
    ):
        figure.add_scatter(
            x=table[f"over_{name}"],
            y=table["method"],
            error_x={
                "array": table[f"over_{name}_high"] - table[f"over_{name}"],
                "arrayminus": table[f"over_{name}"] - table[f"over_{name}_low"],
                "color": colour,
            },
            mode="markers",
            marker={"color": colour, "size": 9},
            name=f"more than {words}",
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot"})
    return figure.update_layout(
        title_text="Do the maps find what counts?",
        xaxis_title_text="insertion minus deletion, against the other map (unit of the target)",
        yaxis={"autorange": "reversed", "title_text": ""},
        height=140 + 44 * len(table),
        hovermode="closest",
    )


def as_link(pixels: np.ndarray) -> str:
    """Return a picture (height, width, 3) uint8 as a link that holds it."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
