"""How every figure looks: one plotly template and the colours of sites, readouts and stages.

Colours are those of Okabe & Ito (2008), told apart by colour-blind readers. Backgrounds are transparent,
lines and text of a middle grey, so a figure sits on a light page as on a dark one.
"""

import plotly.graph_objects as go

from fgdiag.sites import ATTENTION

BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#56B4E9",
    "#8A8F98",
)

READOUT_COLOURS = {"image": BLUE, "last": ORANGE, "cls": GREEN, "pre": PURPLE, ATTENTION: VERMILION}
READOUT_WORDS = {
    "image": "mean over image tokens",
    "last": "last prompt token",
    "cls": "class token",
    "cls+image": "class token + mean over image tokens",
    "pre": "tokens before the image",
    ATTENTION: "attention over image tokens",
}
LEVEL_WORDS = {
    "fine|coarse": "fine class among look-alikes",
    "fine": "fine class among all",
    "coarse": "coarse class",
}
LEVEL_NAMES = {"fine|coarse": "fine, look-alikes", "fine": "fine, all", "coarse": "coarse"}
"""The same, short enough for a legend on a phone."""
LEVEL_COLOURS = {"fine|coarse": VERMILION, "fine": BLUE, "coarse": GREEN}

_GRID = "rgba(138, 143, 152, 0.25)"
_AXIS = {
    "gridcolor": _GRID,
    "zerolinecolor": _GRID,
    "linecolor": GREY,
    "ticks": "outside",
    "tickcolor": GREY,
    "automargin": True,
    "title": {"standoff": 8, "font": {"size": 12}},
}

TEMPLATE = go.layout.Template(
    layout={
        "font": {
            "family": "system-ui, 'Segoe UI', sans-serif",
            "size": 13,
            "color": "#7A818B",
        },
        "title": {
            "font": {"size": 15},
            "x": 0,
            "xanchor": "left",
            "xref": "paper",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 10},
        },
        "colorway": [BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY],
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "margin": {"l": 8, "r": 8, "t": 92, "b": 8},
        "legend": {"orientation": "h", "y": 1.01, "yanchor": "bottom", "x": 0, "xanchor": "left"},
        "hovermode": "x unified",
        "hoverlabel": {"font": {"size": 12}},
        "height": 400,
    }
)


def read_from(site: str, readout: str) -> str:
    """Say what is read at a site.

    Examples
    --------
    >>> read_from("llm.3", "last"), read_from("pixels", "image")
    ('last prompt token', 'the image, shrunk')
    """
    return "the image, shrunk" if site == "pixels" else READOUT_WORDS.get(readout, readout)


def faded(colour: str, opacity: float) -> str:
    """Turn `#rrggbb` into the same colour, see-through."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def percent(share: float) -> str:
    """`71 %`; one decimal where rounding would hide the difference to none or all.

    Examples
    --------
    >>> percent(0.714), percent(0.998), percent(1.0)
    ('71 %', '99.8 %', '100 %')
    """
    whole = round(100 * share)
    hides = (whole in (0, 100)) and abs(100 * share - whole) >= 0.05
    return f"{100 * share:.1f} %" if hides else f"{whole} %"


def quantity(count: float, unit: str) -> str:
    """`135 M`, `1.2 GB`: a count in thousands steps with its unit.

    Examples
    --------
    >>> quantity(134_515_008, ""), quantity(4_200_000, "B")
    ('135 M', '4.2 MB')
    """
    for prefix in ("", "k", "M", "G"):
        if count < 999.5 or prefix == "G":
            break
        count /= 1000
    digits = f"{count:.1f}" if prefix and count < 10 else f"{count:.0f}"
    return f"{digits} {prefix}{unit}".rstrip()


def minus(number: str) -> str:
    """Write a number with a minus instead of a hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")
