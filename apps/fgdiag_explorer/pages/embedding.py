"""Embedding: the images of a site as points, near where the site takes them to be alike."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, html
from dash.development.base_component import Component
from fgdiag_probes.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, TEMPLATE, VERMILION

from fgdiag.prompts import spoken
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, link, remembered
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import Results

GRAPH = "map"
DRAWN = 20_000
"""Points; of more images a sample is drawn, and said."""
SHARP = 3_000
"""Points up to which they are drawn as SVG; more need WebGL, which not every browser has."""
PICTURES = 48
COLOURS = (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY)
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up", "star")
NAMED = len(COLOURS)
"""Classes with a colour of their own: those with most images. More could not be told apart."""


def register(_app: Dash, browser: Callable[..., None]) -> None:
    """Let points be chosen with the pointer."""
    browser("lasso", Input(GRAPH, "selectedData"), prevent_initial_call=True)
    browser("point", Input(GRAPH, "clickData"), prevent_initial_call=True)


def controls(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return what can be chosen: the site, and what the colours tell."""
    if not results.has("embedding"):
        return [html.H1("Embedding")]
    sites, site, colour, names = _chosen(results, choices)
    offered = [("correct", "Right or wrong"), ("fine", "Class")]
    if "coarse" in results.labels.levels:
        offered.append(("coarse", "Kind"))
    classes = [{"value": name, "label": spoken(name)} for name in results.known("fine")]
    return [
        html.H1("Embedding"),
        parts.controls(
            parts.select("at", "Site", sites, site, allowDeselect=False),
            parts.switch("colour", "Colours tell", offered, colour),
            parts.several("only", "Only these classes", classes, names, placeholder="" if names else "All"),
        ),
        remembered({"at": sites[0], "colour": "correct", "only": []}),
    ]


def body(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return the map of a site, and the images that were drawn around."""
    _, site, colour, names = _chosen(results, choices)
    shown = results.embedding[site]
    if names:
        fine = results.column("fine")[shown["row"]]
        shown = shown.loc[np.isin(fine, names)]
    if shown.empty:
        return [parts.message("No image is like that", "None of these classes is on the map. Choose others.")]
    drawn = shown if len(shown) <= DRAWN else shown.sample(DRAWN, random_state=0)
    around = corners(choices.text("around"))
    figure = draw(results, drawn, site, colour, around)
    card = parts.figure_card(
        figure,
        f"{len(drawn):,} images at {site}",
        name=f"{results.name}-map-{site}",
        graph=GRAPH,
        displayModeBar=True,
        displaylogo=False,
        modeBarButtons=[["lasso2d", "select2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
    )
    return [
        html.P(_told(results, site, len(shown), len(drawn)), className="lead"),
        html.Div([card, _inside(results, shown, around)], className="wide-left"),
    ]


def table(results: Results, choices: Choices, _library: Library | None = None) -> pd.DataFrame:
    """Return the map of the chosen site."""
    _, site, *_ = _chosen(results, choices)
    found = results.embedding[site]
    return found.assign(**{"class": results.column("fine")[found["row"]]})


TABLES = {"embedding": table}


def corners(text: str | None) -> np.ndarray | None:
    """(corners, 2) of what was drawn around points, from `x_y~x_y~x_y`; None where it is no polygon."""
    pairs = [pair.split("_") for pair in (text or "").split("~")][:200]
    try:
        found = np.array([[float(x), float(y)] for x, y in pairs])
    except ValueError:
        return None
    return found if len(found) > 2 and np.isfinite(found).all() else None


def within(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """(points,) bool, which points lie inside a polygon: a ray from it crosses the border an odd number of times."""
    x, y = points[:, 0], points[:, 1]
    inside = np.zeros(len(points), bool)
    for (ax, ay), (bx, by) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if ay != by:
            inside ^= ((ay > y) != (by > y)) & (x < (bx - ax) * (y - ay) / (by - ay) + ax)
    return inside


def draw(
    results: Results, points: pd.DataFrame, site: str, colour: str, around: np.ndarray | None
) -> go.Figure:
    """Draw images as points; what cannot have a colour of its own is grey."""
    groups = _groups(results, points, site, colour)
    words = {name: spoken(name) for name in results.known("fine")}
    fine = results.column("fine")
    figure = go.Figure(layout={"template": TEMPLATE})
    size = 8 if len(points) < 1500 else 5 if len(points) < 8000 else 3
    add = figure.add_scattergl if len(points) > SHARP else figure.add_scatter
    for name, shade, symbol, rows in groups:
        some = points.loc[rows]
        add(
            x=some["x"].to_numpy(np.float32),
            y=some["y"].to_numpy(np.float32),
            mode="markers",
            name=name,
            marker={"color": shade, "symbol": symbol, "size": size, "opacity": 0.4 if shade == GREY else 0.8},
            customdata=some["row"].to_numpy(np.int32),
            text=np.array([words[name] for name in fine[some["row"]]], object),
            hovertemplate="%{text}<extra></extra>",
            unselected={"marker": {"opacity": 0.12}},
        )
    if around is not None:
        closed = np.vstack([around, around[:1]])
        figure.add_scatter(
            x=closed[:, 0],
            y=closed[:, 1],
            mode="lines",
            line={"color": GREY, "dash": "dot", "width": 1.5},
            hoverinfo="skip",
            showlegend=False,
        )
    blank = {"showticklabels": False, "ticks": "", "showgrid": False, "zeroline": False, "title_text": ""}
    return figure.update_layout(
        height=620,
        hovermode="closest",
        dragmode="lasso",
        uirevision=site,
        legend={"y": -0.02, "yanchor": "top"},
        xaxis=blank,
        yaxis={**blank, "scaleanchor": "x"},
    )


def _chosen(results: Results, choices: Choices) -> tuple[list[str], str, str, list[str]]:
    sites = list(results.embedding)
    names = results.known("fine")
    return (
        sites,
        choices.one("at", sites),
        choices.one("colour", ["correct", "fine", "coarse"]),
        choices.some("only", names),
    )


def _groups(
    results: Results, points: pd.DataFrame, site: str, colour: str
) -> list[tuple[str, str, str, np.ndarray]]:
    rows = points["row"].to_numpy()
    if colour == "correct":
        level, at = results.finest, results.positions[rows]
        asked = (at >= 0) & results.labels.asked(level, results.labels.test)[at]
        right = results.right(results.best(level, site), level)[at]
        groups = [
            ("training images, or without look-alikes", GREY, "circle", ~asked),
            (f"named right at {site}", BLUE, "circle", asked & right),
            (f"named wrong at {site}", ORANGE, "diamond", asked & ~right),
        ]
        return [group for group in groups if group[3].any()]
    names = results.column(colour)[rows]
    found, sizes = np.unique(names, return_counts=True)
    most = found[np.argsort(-sizes, kind="stable")][:NAMED]
    others = [("others", GREY, "circle", ~np.isin(names, most))]
    own = [
        (spoken(str(name)), shade, symbol, names == name)
        for name, shade, symbol in zip(most, COLOURS, SYMBOLS, strict=False)
    ]
    return [group for group in [*others, *own] if group[3].any()]


def _told(results: Results, site: str, images: int, drawn: int) -> str:
    told = results.embedding_facts
    sentence = (
        f"{told.get('method', 'A projection')}: images that the site takes to be alike lie near one another; distances "
        "between far groups mean little."
    )
    trust = told.get("trustworthiness", {}).get(site)
    if trust is not None:
        sentence += f" Trustworthiness {trust:.2f} of 1: how far the neighbours on the map are neighbours at the site."
    if drawn < images:
        sentence += f" {drawn:,} of {images:,} images are drawn, by lot."
    return sentence


def _inside(results: Results, points: pd.DataFrame, around: np.ndarray | None) -> Component:
    if around is None:
        return parts.message(
            "No images are chosen",
            "Draw around some points with the lasso to see their images. Click a point for its image alone.",
            "choose",
        )
    rows = points["row"].to_numpy()[within(points[["x", "y"]].to_numpy(float), around)]
    if not len(rows):
        return parts.message("No images there", "There is no point inside what was drawn.")
    names, sizes = np.unique(results.column("fine")[rows], return_counts=True)
    top = ", ".join(f"{spoken(str(names[at]))} {sizes[at]}" for at in np.argsort(-sizes, kind="stable")[:6])
    seen = [
        parts.picture(results, int(row), href=link("images", run=results.name, image=int(row)))
        for row in rows[:PICTURES]
    ]
    title = f"{len(rows):,} images chosen" + (f", {PICTURES} shown" if len(rows) > PICTURES else "")
    return parts.section(title, parts.wall(seen, small=True), lead=top)
