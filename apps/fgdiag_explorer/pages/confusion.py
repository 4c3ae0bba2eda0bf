"""Confusion: which classes are taken for which, at any site and in the answers, and where a pair merges."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, html
from dash.development.base_component import Component
from fgdiag_probes.curve_figure import site_ticks
from fgdiag_probes.labels import Level
from fgdiag_probes.style import BLUE, LEVEL_NAMES, READOUT_WORDS, TEMPLATE, VERMILION

from fgdiag.prompts import spoken
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, choice, link, remembered
from fgdiag_explorer.confused import along_sites, counts, pairs
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import Results

GRAPH = "matrix"
NAMED, NUMBERED = 44, 16
"""Classes up to which their names, and the numbers, are written."""
LISTED, PICTURES = 14, 12
RIGHT = [[0, "rgba(138, 143, 152, 0)"], [1, "rgba(138, 143, 152, 0.62)"]]
WRONG = [
    [0, "rgba(213, 94, 0, 0)"],
    [0.02, "rgba(213, 94, 0, 0.10)"],
    [0.25, "rgba(213, 94, 0, 0.55)"],
    [1, "rgba(213, 94, 0, 1)"],
]


def register(_app: Dash, browser: Callable[..., None]) -> None:
    """Let a click on a cell choose its pair."""
    browser("cell", Input(GRAPH, "clickData"), prevent_initial_call=True)


def controls(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return what can be chosen: where, which classes, and a pair of them."""
    level, site, kinds, truth, said = _chosen(results, choices)
    sites = results.sites
    slider = dmc.Slider(
        id=choice("at"),
        value=sites.index(site),
        min=0,
        max=len(sites) - 1,
        step=1,
        marks=_marks(sites),
        label=None,
        updatemode="drag",
        thumbLabel="Site, in the order of the forward pass",
        className="sites",
    )
    names = [
        {"value": str(name), "label": spoken(str(name))} for name in results.labels.names(_of_pair(level))
    ]
    choosing = [
        parts.switch(
            "level",
            "Classes",
            [(name, LEVEL_NAMES[name].capitalize()) for name in results.labels.levels],
            level,
        ),
        parts.labelled("Where along the model", slider),
    ]
    defaults: dict[str, Any] = {"level": results.finest, "at": sites[-1], "truth": None, "said": None}
    if "coarse" in results.labels.levels:
        offered = [{"value": str(name), "label": spoken(str(name))} for name in results.labels.coarse_names]
        choosing.append(
            parts.several("kind", "Only these kinds", offered, kinds, placeholder="" if kinds else "All")
        )
        defaults["kind"] = []
    choosing += [
        parts.select("truth", "Images of", names, truth, clearable=True, placeholder="a class"),
        parts.select("said", "taken for", names, said, clearable=True, placeholder="another"),
    ]
    return [html.H1("Confusion"), parts.controls(*choosing), remembered(defaults, {"at": sites})]


def body(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return the matrix, and of the chosen pair the sites where it merges and its images."""
    level, site, kinds, truth, said = _chosen(results, choices)
    place = results.best(level, site)
    where = (
        "in the model's answers"
        if site == "answer"
        else f"at {site} ({READOUT_WORDS.get(place[1], place[1])})"
    )
    figure = _matrix(results, level, site, kinds)
    if figure is None:
        shown = parts.message(
            "Nothing to confuse",
            "These kinds have one class each: look-alikes need a sibling. Choose other kinds, or among all.",
        )
    else:
        shown = parts.figure_card(
            figure,
            f"Taken for, in % of the test images of a class, {where}",
            name=f"{results.name}-confusion-{site}",
            graph=GRAPH,
        )
    return [html.Div([shown, _beside(results, choices, level, site, truth, said)], className="wide-left")]


def pair_table(results: Results, choices: Choices, _library: Library | None = None) -> pd.DataFrame:
    """Return how often each pair of classes is confused at the chosen site."""
    level, site, *_ = _chosen(results, choices)
    return pairs(results, results.best(level, site), level).drop(columns="rows")


TABLES = {"confusion": pair_table}


def _of_pair(level: Level) -> Level:
    return "coarse" if level == "coarse" else "fine"


def _chosen(results: Results, choices: Choices) -> tuple[Level, str, list[str], str | None, str | None]:
    level: Level = choices.one("level", results.labels.levels, results.finest)
    site = choices.one("at", results.sites, results.sites[-1])
    kinds = choices.some("kind", [str(name) for name in results.labels.coarse_names])
    known = {str(name) for name in results.labels.names(level)}
    truth, said = choices.text("truth"), choices.text("said")
    return level, site, kinds, truth if truth in known else None, said if said in known else None


def _marks(sites: list[str]) -> Any:
    """Name the first and the last site, and some in between that are far enough apart."""
    last, apart = len(sites) - 1, max(1, round(0.2 * len(sites)))
    named = [0]
    for at in range(1, last):
        if at - named[-1] >= apart and last - at >= apart:
            named.append(at)
    return [{"value": at, "label": sites[at]} for at in dict.fromkeys([*named, last])]


def _matrix(results: Results, level: Level, site: str, kinds: list[str]) -> go.Figure | None:
    labels, order = results.labels, results.order(level)
    found = counts(results, results.best(level, site), level)
    if level == "coarse":
        keep = order
    else:
        of_kind = labels.coarse_names[labels.siblings.argmax(0)]
        asked = (
            labels.siblings.sum(1)[labels.siblings.argmax(0)] > 1
            if level == "fine|coarse"
            else np.ones(len(order), bool)
        )
        keep = np.array(
            [code for code in order if asked[code] and (not kinds or of_kind[code] in kinds)], int
        )
    if len(keep) < 2:
        return None
    images = found.sum(1)[keep]
    matrix = found[np.ix_(keep, keep)]
    shares = 100 * matrix / np.maximum(images, 1)[:, None]
    names = [spoken(str(labels.names(level)[code])) for code in keep]
    raw = [str(labels.names(level)[code]) for code in keep]
    kind_of = None if level == "coarse" else labels.siblings.argmax(0)[keep]
    return _drawn(shares, matrix, images, names, raw, kind_of, results)


def _drawn(
    shares: np.ndarray,
    matrix: np.ndarray,
    images: np.ndarray,
    names: list[str],
    raw: list[str],
    kind_of: np.ndarray | None,
    results: Results,
) -> go.Figure:
    size = len(names)
    own = np.eye(size, dtype=bool)
    data = np.empty((size, size, 3), object)
    data[..., 0], data[..., 1] = np.array(raw)[:, None], np.array(raw)[None]
    data[..., 2] = kind_of is None
    words = [
        [
            f"{names[a]} → {names[b]}<br>{matrix[a, b]} of {images[a]} images, {shares[a, b]:.0f} %"
            for b in range(size)
        ]
        for a in range(size)
    ]
    figure = go.Figure(layout={"template": TEMPLATE})
    for here, scale in ((~own, WRONG), (own, RIGHT)):
        values = np.where(here & (matrix > 0), shares, np.nan)
        figure.add_heatmap(
            z=values.round(1),
            colorscale=scale,
            zmin=0,
            zmax=100 if here is own else 60,
            showscale=False,
            customdata=data,
            text=words,
            hovertemplate="%{text}<extra></extra>",
            hoverongaps=False,
            xgap=1 if size <= 60 else 0,
            ygap=1 if size <= 60 else 0,
            texttemplate="%{z:.0f}" if size <= NUMBERED else None,
        )
    ticks = _ticks(names, kind_of, results)
    height = 150 + max(300, min(900, 24 * size)) if size <= NAMED else 860
    figure.update_layout(
        height=height,
        hovermode="closest",
        xaxis={
            **ticks,
            "title_text": "taken for",
            "tickangle": -45,
            "showgrid": False,
            "zeroline": False,
            "constrain": "domain",
        },
        yaxis={
            **ticks,
            "title_text": "true class",
            "autorange": "reversed",
            "showgrid": False,
            "zeroline": False,
        },
    )
    if kind_of is not None:
        for at in np.flatnonzero(np.diff(kind_of)) + 0.5:
            figure.add_hline(y=at, line={"color": "#8A8F98", "width": 0.6}, opacity=0.45)
            figure.add_vline(x=at, line={"color": "#8A8F98", "width": 0.6}, opacity=0.45)
    return figure


def _ticks(names: list[str], kind_of: np.ndarray | None, results: Results) -> dict[str, Any]:
    """Names of classes, or where they are too many those of the kinds, or of some."""
    size = len(names)
    font = {"size": 11}
    if size <= NAMED:
        return {"tickvals": list(range(size)), "ticktext": names, "tickfont": font}
    if kind_of is not None and len(np.unique(kind_of)) > 1:
        starts = [0, *(np.flatnonzero(np.diff(kind_of)) + 1).tolist(), size]
        blocks = list(pairwise(starts))
        room, last, shown = max(1.0, size / 40), -9.0, []
        for start, end in blocks:
            middle = (start + end - 1) / 2
            if middle - last >= room:
                shown.append((middle, spoken(str(results.labels.coarse_names[kind_of[start]]))))
                last = middle
        return {
            "tickvals": [at for at, _ in shown],
            "ticktext": [name for _, name in shown],
            "tickfont": font,
        }
    step = -(-size // 40)
    return {"tickvals": list(range(0, size, step)), "ticktext": names[::step], "tickfont": font}


def _beside(
    results: Results, choices: Choices, level: Level, site: str, truth: str | None, said: str | None
) -> Component:
    if truth is None or said is None or truth == said:
        return html.Div(
            [
                _most(results, choices, level, site),
                parts.message(
                    "No pair is chosen",
                    "Click a cell of the matrix, or a pair above, to see its images and where it is confused.",
                    "choose",
                ),
            ]
        )
    return html.Div([_pair(results, level, site, truth, said), _most(results, choices, level, site)])


def _most(results: Results, choices: Choices, level: Level, site: str) -> Component:
    found = pairs(results, results.best(level, site), level)
    csv = parts.csv_link(
        link("tables/confusion.csv", run=results.name, level=level, at=site), "Confused pairs"
    )
    if found.empty:
        return parts.section(
            "Most confused here", html.P("No test image is taken for another class.", className="lead")
        )
    kept = {"run": results.name, "level": choices.text("level"), "at": choices.text("at")}
    lines = [
        html.Li(
            html.A(
                [
                    html.Span([spoken(row["truth"]), " → ", html.B(spoken(row["said"]))]),
                    html.Span(f"{row['taken']} of {row['images']}", className="count"),
                ],
                href=link("confusion", **kept, truth=row["truth"], said=row["said"]),
            )
        )
        for row in found.head(LISTED).to_dict("records")
    ]
    return parts.section("Most confused here", html.Ol(lines, className="ranking card"), aside=csv)


def _pair(results: Results, level: Level, site: str, truth: str, said: str) -> Component:
    labels = results.labels
    names = labels.names(level)
    a, b = (int(np.flatnonzero(names == name)[0]) for name in (truth, said))
    curve = along_sites(results, level, a, b)
    codes, named = labels.codes(level)[labels.test], results.reading(results.best(level, site), level).said
    groups = [
        (f"{spoken(truth)}, taken for {spoken(said)}", (codes == a) & (named == b)),
        (f"{spoken(said)}, taken for {spoken(truth)}", (codes == b) & (named == a)),
        (f"{spoken(truth)}, named right", (codes == a) & (named == a)),
        (f"{spoken(said)}, named right", (codes == b) & (named == b)),
    ]
    walls = [_group(results, title, labels.test[found]) for title, found in groups]
    return html.Section(
        [
            html.H2([spoken(truth), " and ", spoken(said)]),
            parts.figure_card(
                _along(curve, spoken(truth), spoken(said)),
                "Where along the model they are confused",
                name=f"{results.name}-{truth}-{said}",
            ),
            *walls,
        ]
    )


def _group(results: Results, title: str, rows: np.ndarray) -> Component:
    seen = [
        parts.picture(results, int(row), href=link("images", run=results.name, image=int(row)))
        for row in rows[:PICTURES]
    ]
    more = f", {PICTURES} of them shown" if len(rows) > PICTURES else ""
    return html.Div(
        [html.H3([title, html.Span(f" {len(rows)}{more}", className="count")]), parts.wall(seen, small=True)],
        className="group",
    )


def _along(curve: pd.DataFrame, truth: str, said: str) -> go.Figure:
    sites = [site for site in curve["site"] if site not in ("answer", "pixels")]
    figure = go.Figure(layout={"template": TEMPLATE})
    at = {site: x for x, site in enumerate(sites)} | {"answer": len(sites)}
    shown = curve[curve["site"] != "pixels"]
    ends = [
        ("there", f"{truth} → {said}", VERMILION, "circle"),
        ("back", f"{said} → {truth}", BLUE, "diamond"),
    ]
    for column, name, colour, symbol in ends:
        figure.add_scatter(
            x=[at[site] for site in shown["site"]],
            y=shown[column],
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": 2},
            marker={"size": 6, "symbol": symbol},
            customdata=shown["site"],
            hovertemplate="%{y:.0f} % at %{customdata}",
        )
    ticks = site_ticks(sites)
    if "answer" in set(shown["site"]):
        ticks["tickvals"], ticks["ticktext"] = (
            [*ticks["tickvals"], len(sites)],
            [*ticks["ticktext"], "answer"],
        )
        ticks["range"] = [-0.5, len(sites) + 0.5]
    return figure.update_layout(
        height=300,
        xaxis={"title_text": "site, in the order of the forward pass", **ticks},
        yaxis={
            "title_text": "taken for the other (%)",
            "rangemode": "tozero",
            "range": [-3, max(20.0, 8 + float(np.nanmax(shown[["there", "back"]])))],
        },
    )
