"""Confusion: which classes are taken for which, at any site and in the answers, and where a pair merges."""

import shlex
from collections.abc import Callable
from typing import Any

import dash_mantine_components as dmc
import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import Dash, Input, State, html
from dash.development.base_component import Component
from fgdiag_probes.confusion_matrix import ConfusionMatrix
from fgdiag_probes.curve_figure import site_ticks
from fgdiag_probes.labels import Level
from fgdiag_probes.separability import PairCurves
from fgdiag_probes.style import BLUE, LEVEL_NAMES, TEMPLATE, VERMILION, read_from

from fgdiag.prompts import spoken
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, choice, link, remembered
from fgdiag_explorer.confused import along_sites, matrix_at, pairs
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import Results

GRAPH = "matrix"
LISTED, PICTURES = 14, 12
NAMED, LONGEST = 24, 20
"""Classes up to which their names stand below the matrix, too; letters of a name where there are more."""


def register(_app: Dash, browser: Callable[..., None]) -> None:
    """Let a click on a cell choose its pair."""
    browser("cell", Input(GRAPH, "clickData"), State(GRAPH, "figure"), prevent_initial_call=True)


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
        updatemode="mouseup",
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
    pair = [
        parts.select("truth", "Images of", names, truth, clearable=True, placeholder="a class"),
        parts.select("said", "taken for", names, said, clearable=True, placeholder="another"),
    ]
    if "coarse" in results.labels.levels:
        offered = [{"value": str(name), "label": spoken(str(name))} for name in results.labels.coarse_names]
        pair.append(
            parts.several("kind", "Only these kinds", offered, kinds, placeholder="" if kinds else "All")
        )
        defaults["kind"] = []
    choosing.append(html.Div(pair, className="row"))
    return [html.H1("Confusion"), parts.controls(*choosing), remembered(defaults, {"at": sites})]


def body(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return the matrix, and of the chosen pair the sites where it merges and its images."""
    level, site, kinds, truth, said = _chosen(results, choices)
    place = results.best(level, site)
    where = "in the model's answers" if site == "answer" else f"at {site} ({read_from(*place)})"
    matrix = matrix_at(results, site, level, kinds)
    if matrix is None:
        shown = parts.message(
            "Nothing to confuse",
            "These kinds have one class each: look-alikes need a sibling. Choose other kinds, or among all.",
        )
    else:
        figure = _readable(matrix).update_layout(meta={"classes": matrix.classes.tolist(), "level": level})
        shown = parts.figure_card(
            figure,
            f"What is named for what, {where}",
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


def _readable(matrix: ConfusionMatrix) -> go.Figure:
    """The matrix, below it the names of kinds where those of the classes would take most of the room."""
    figure, kinds = matrix.figure(), [block for block in matrix.blocks if block[0]]
    if len(matrix.classes) <= NAMED or not kinds:
        return figure
    middles = [(start + end - 1) / 2 for _, start, end in kinds]
    names = [spoken(name) for name, *_ in kinds]
    figure.update_xaxes(tickvals=middles, ticktext=names, tickangle=-45, tickfont={"size": 11})
    return figure.update_yaxes(ticktext=[shorten(name, LONGEST) for name in figure.layout.yaxis.ticktext])


def shorten(name: str, most: int) -> str:
    """Cut a name that is longer than `most` letters.

    Examples
    --------
    >>> shorten("Tropicana Golden Grapefruit", 18)
    'Tropicana Golden…'
    """
    return name if len(name) <= most else f"{name[: most - 1].rstrip()}…"


def _marks(sites: list[str]) -> Any:
    """Name the first and the last site, and some in between that are far enough apart."""
    last, apart = len(sites) - 1, max(1, round(0.2 * len(sites)))
    named = [0]
    for at in range(1, last):
        if at - named[-1] >= apart and last - at >= apart:
            named.append(at)
    return [{"value": at, "label": sites[at]} for at in dict.fromkeys([*named, last])]


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
    kinds = choices.some("kind", [str(name) for name in results.labels.coarse_names])
    found = pairs(results, results.best(level, site), level)
    csv = parts.csv_link(
        link("tables/confusion.csv", run=results.name, level=level, at=site), "Confused pairs"
    )
    if found.empty:
        return parts.section(
            "Most confused here", html.P("No test image is taken for another class.", className="lead")
        )
    kept = {"run": results.name, "level": choices.text("level"), "at": choices.text("at"), "kind": kinds}
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
            *([_told_apart(results, truth, said)] if level != "coarse" else []),
            *walls,
        ]
    )


def _told_apart(results: Results, truth: str, said: str) -> Component:
    """How well each site tells the pair apart, where somebody has followed it through the model."""
    command = html.Code(
        f"fgdiag pairs {shlex.quote(str(results.run.path))} --pair {shlex.quote(truth)} {shlex.quote(said)}"
    )
    missing = html.P(
        ["How well each site tells the two apart has not been asked yet: ", command], className="lead aside"
    )
    if not results.has("pairs"):
        return missing
    wanted, found = {truth, said}, results.pairs
    here = [
        {first, second} == wanted
        for first, second in found.places[["first", "second"]].itertuples(index=False)
    ]
    if not any(here):
        return missing
    place = found.places.loc[here]
    along = [{a, b} == wanted for a, b in found.curves[["first", "second"]].itertuples(index=False)]
    figure = PairCurves(found.curves.loc[along], place, found.picked).figure()
    figure.update_layout(annotations=[], overwrite=True)  # the pair stands above, and where it is lost below
    sentence = html.P(str(place["sentence"].iloc[0]), className="lead aside")
    title = "How well each site tells them apart"
    return html.Div(
        [parts.figure_card(figure, title, name=f"{results.name}-apart"), sentence], className="below"
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
    ticks = site_ticks(sites, answer="answer" in set(shown["site"]))
    return figure.update_layout(
        height=300,
        xaxis={"title_text": "site, in the order of the forward pass", **ticks},
        yaxis={
            "title_text": "taken for the other (%)",
            "rangemode": "tozero",
            "range": [-3, max(20.0, 8 + float(np.nanmax(shown[["there", "back"]])))],
        },
    )
