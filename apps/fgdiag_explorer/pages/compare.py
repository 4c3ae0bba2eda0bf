"""Compare: runs side by side, what is left at each depth and what the verdicts say."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.budget_figure import TICKS
from fgdiag_probes.cards import facts_line
from fgdiag_probes.closer_look import DEPTH_WORDS
from fgdiag_probes.labels import Level
from fgdiag_probes.style import (
    BLUE,
    GREEN,
    LEVEL_NAMES,
    LEVEL_WORDS,
    ORANGE,
    PURPLE,
    READOUT_WORDS,
    SKY,
    TEMPLATE,
    VERMILION,
)

from fgdiag.errors import FgdiagError
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, link, remembered
from fgdiag_explorer.library import Library
from fgdiag_explorer.pages.overview import sentences
from fgdiag_explorer.results import Results

COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, READOUT_WORDS, SKY)
SYMBOLS = ("circle", "diamond", "square", "triangle-up", "cross", "star")
LEVELS: tuple[Level, ...] = ("fine|coarse", "fine", "coarse")


def controls(_results: Results, choices: Choices, library: Library) -> list[Component]:
    """Return what can be chosen: the runs and the level."""
    names, level = _chosen(choices, library)
    return [
        html.H1("Compare"),
        parts.controls(
            parts.several("runs", "Runs", list(library), names),
            parts.switch(
                "level", "Classes", [(name, LEVEL_NAMES[name].capitalize()) for name in LEVELS], level
            ),
        ),
        remembered({"runs": list(library), "level": LEVELS[0]}),
    ]


def body(_results: Results, choices: Choices, library: Library) -> list[Component]:
    """Return the verdicts, a figure, and the numbers."""
    names, level = _chosen(choices, library)
    if not names:
        return [parts.message("No run is chosen", "Choose two runs or more.", "choose")]
    cards = [_card(name, library) for name in names]
    shown: list[Component] = [html.Div(cards, className="verdicts")]
    if len(library) == 1:
        shown.append(
            parts.message(
                "One run alone",
                html.Span(["Open more than one to compare them: ", html.Code("fgdiag app RUN ANOTHER_RUN")]),
            )
        )
    table = budgets(_results, choices, library)
    rows = table.loc[table["level"] == level] if len(table) else table
    if not len(rows):
        return [
            *shown,
            parts.message("Nothing to draw", f"None of these runs was asked for the {LEVEL_WORDS[level]}."),
        ]
    figure = parts.figure_card(
        _figure(rows),
        f"What is left at each depth: {LEVEL_WORDS[level]}",
        name=f"compare-{level.replace('|', '-')}",
    )
    return [
        *shown,
        html.Div(figure, className="below"),
        html.Div(_table(rows, link("tables/compare.csv", run=_results.name, runs=names)), className="below"),
    ]


def budgets(_results: Results, choices: Choices, library: Library) -> pd.DataFrame:
    """Return what is left at each depth of the chosen runs."""
    found = []
    for name in _chosen(choices, library)[0]:
        try:
            found.append(
                library[name].budget.depths.assign(run=name, model=library[name].run.manifest["model"])
            )
        except FgdiagError:
            continue
    if not found:
        return pd.DataFrame()
    table = pd.concat(found, ignore_index=True)
    return table.loc[:, ["run", "model", *(name for name in table if name not in ("run", "model"))]]


TABLES = {"compare": budgets}


def _chosen(choices: Choices, library: Library) -> tuple[list[str], Level]:
    return choices.some("runs", list(library), list(library)), choices.one("level", LEVELS)


def _card(name: str, library: Library) -> Component:
    try:
        results = library[name]
        budget = results.budget
    except FgdiagError as error:
        return html.Div([html.H2(name), html.P(str(error))], className="card padded")
    return html.A(
        [
            html.Span(name, className="name"),
            html.Span(budget.heading, className="kicker"),
            html.Span(sentences(budget.verdict.sentence)[0], className="sentence"),
            html.Span(facts_line(results.run, results.labels), className="facts"),
        ],
        href=link("overview", run=name),
        className="card padded verdict-card",
    )


def _figure(rows: pd.DataFrame) -> go.Figure:
    order = [depth for depth in TICKS if depth in set(rows["depth"])]
    names = list(dict.fromkeys(rows["run"]))
    figure = go.Figure(layout={"template": TEMPLATE})
    for at, name in enumerate(names):
        some = rows.loc[(rows["run"] == name) & (rows["depth"] != "pixels")]
        score, colour = 100 * some["accuracy"], COLOURS[at % len(COLOURS)]
        apart = (at - (len(names) - 1) / 2) * 0.05
        figure.add_scatter(
            x=[order.index(depth) + apart for depth in some["depth"]],
            y=score,
            error_y={
                "array": 100 * some["high"] - score,
                "arrayminus": score - 100 * some["low"],
                "thickness": 1.2,
                "width": 4,
            },
            mode="lines+markers",
            name=name,
            line={"color": colour, "width": 2.5},
            marker={"size": 9, "symbol": SYMBOLS[at % len(SYMBOLS)]},
            customdata=_hover(some),
            hovertemplate="%{y:.1f} % (%{customdata})",
        )
    return figure.update_layout(
        hovermode="closest",
        xaxis={
            "tickvals": list(range(len(order))),
            "ticktext": [TICKS[depth] for depth in order],
            "range": [-0.4, len(order) - 0.6],
        },
        yaxis={"title_text": "accuracy (% of test images)", "range": [0, 103]},
    )


def _hover(rows: pd.DataFrame) -> list[str]:
    return [
        f"{site}, {readout}; chance {100 * chance:.0f} %"
        for site, readout, chance in rows[["site", "readout", "chance"]].itertuples(index=False)
    ]


def _table(rows: pd.DataFrame, csv: str) -> Component:
    percents: dict[str, Any] = {name: 100 * rows[name] for name in ("accuracy", "low", "high", "chance")}
    columns = [
        parts.words("run", "run"),
        parts.words("depth", "depth", minWidth=150),
        parts.words("site", "site"),
        parts.words("readout", "read from", minWidth=220),
        parts.number("accuracy", "accuracy %"),
        parts.number("low", "from %"),
        parts.number("high", "to %"),
        parts.number("chance", "chance %"),
        parts.number("bits", "bits", 2),
        parts.number("images", "images", 0),
    ]
    spoken_of = {
        "depth": rows["depth"].replace(DEPTH_WORDS),
        "readout": rows["readout"].replace(READOUT_WORDS),
    }
    shown = rows.assign(**percents, **spoken_of).loc[:, [column["field"] for column in columns]]
    return parts.table_card(shown, columns, "In numbers", csv=csv)
