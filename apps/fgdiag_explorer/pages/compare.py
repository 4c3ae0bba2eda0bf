"""Compare: runs side by side on the same images, where they differ, and whether they fail alike."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.cards import facts_line
from fgdiag_probes.closer_look import DEPTH_WORDS
from fgdiag_probes.comparable import Side
from fgdiag_probes.compare import Comparison, compare
from fgdiag_probes.labels import Level
from fgdiag_probes.paper_table import numbers
from fgdiag_probes.style import LEVEL_NAMES, LEVEL_WORDS, READOUT_WORDS, minus, percent

from fgdiag.errors import FgdiagError, NotComparable
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, link, remembered
from fgdiag_explorer.library import Library
from fgdiag_explorer.pages.overview import sentences
from fgdiag_explorer.results import NotMade, Results

LEVELS: tuple[Level, ...] = ("fine|coarse", "fine", "coarse")
FIGURES = (
    ("What is left at each depth", "depths"),
    ("Along the model: vision encoder, projector, and the share of LLM blocks run", "relative-depth"),
    ("Difference on the same images; filled where significant after Holm's correction", "differences"),
)
"""Titles and names of files of `Comparison.figures`."""


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


def body(results: Results, choices: Choices, library: Library) -> list[Component]:
    """Return the verdicts, the figures, the paired differences and the agreement, or why there are none."""
    names, level = _chosen(choices, library)
    if not names:
        return [parts.message("No run is chosen", "Choose two runs or more.", "choose")]
    cards = html.Div([_card(name, library) for name in names], className="verdicts")
    if len(names) == 1:
        return [cards, _alone(library)]
    try:
        found = _compared(choices, library)
    except NotComparable as error:
        return [cards, _refused(error)]
    except FgdiagError as error:
        return [cards, parts.excuse(error)]
    if level not in found.levels:
        return [
            cards,
            parts.message("Nothing to draw", f"None of these runs was asked for the {LEVEL_WORDS[level]}."),
        ]
    above, along, apart = (
        parts.figure_card(figure, title, name=f"compare-{name}-{level.replace('|', '-')}")
        for figure, (title, name) in zip(found.figures(level), FIGURES, strict=True)
    )
    return [
        cards,
        _notes(found.notes),
        html.Div([above, along], className="two"),
        html.Div(apart, className="below"),
        html.Div(_differences(found, level), className="below"),
        *_words(found, level),
        html.Div(_agreement(found, level, _address("agreement", results, names)), className="below"),
        html.Div(_scores(found, level, _address("compare", results, names)), className="below"),
    ]


def score_table(_results: Results, choices: Choices, library: Library) -> pd.DataFrame:
    """Return what is left at each depth of the chosen runs, and the differences from the first."""
    return numbers(_compared(choices, library))


def agreement_table(_results: Results, choices: Choices, library: Library) -> pd.DataFrame:
    """Return whether the chosen runs fail alike."""
    return _compared(choices, library).agreement


TABLES = {"compare": score_table, "agreement": agreement_table}


def _address(table: str, results: Results, names: Sequence[str]) -> str:
    return link(f"tables/{table}.csv", run=results.name, runs=list(names))


def _chosen(choices: Choices, library: Library) -> tuple[list[str], Level]:
    return choices.some("runs", list(library), list(library)), choices.one("level", LEVELS)


def _compared(choices: Choices, library: Library) -> Comparison:
    names, _ = _chosen(choices, library)
    if len(names) < 2:
        raise NotComparable(f"Got {len(names)} run, expected two or more; choose another.")
    chosen = [library[name] for name in names]
    return compare([Side(one.name, one.run, one.curves, one.answers) for one in chosen])


def _alone(library: Library) -> Component:
    if len(library) > 1:
        return parts.message("One run alone", "Choose another to compare it with.", "choose")
    return parts.message(
        "One run alone",
        html.Span(["Open more than one to compare them: ", html.Code("fgdiag app RUN ANOTHER_RUN")]),
    )


def _refused(error: NotComparable) -> Component:
    head, *_ = str(error).split(". ", 1)
    reasons = html.Ul([html.Li(reason) for reason in error.reasons])
    return html.Div([html.H2(f"{head}."), reasons], className="message empty", role="status")


def _card(name: str, library: Library) -> Component:
    try:
        results = library[name]
        budget = results.budget
    except NotMade as error:
        return html.Div(
            [html.H2(name), html.P(["Not judged yet: ", html.Code(error.command)])], className="card padded"
        )
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


def _notes(notes: Sequence[str]) -> Component:
    if not notes:
        return html.P("Nothing but the model differs.", className="aside")
    return html.Section(
        [html.H3("What differs beside the model"), html.Ul([html.Li(note) for note in notes])]
    )


def _differences(found: Comparison, level: Level) -> Component:
    """Every run against the first, a row a depth."""
    first = found.runs["run"].iloc[0]
    rows: dict[str, list[list[str]]] = {}
    for row in found.differences.loc[found.differences["level"] == level].to_dict("records"):
        cells = [
            DEPTH_WORDS[row["depth"]],
            row["outcome"],
            minus(f"{row['difference']:+.1f}") if row["differing"] else "0",
            minus(f"{row['low']:+.1f} to {row['high']:+.1f}"),
            f"{row['p_value']:.3f}" if row["p_value"] >= 0.001 else "< 0.001",
            f"{row['differing']} of {row['images']}",
        ]
        rows.setdefault(f"{row['run']} {minus('-')} {first}", []).append(cells)
    heads = ["depth", "outcome", "points", "95 % interval", "p (Holm)", "images on which one is right"]
    title = f"Paired differences: {LEVEL_WORDS[level]}"
    return _card_of(title, parts.plain_table(heads, rows, 2, title))


def _words(found: Comparison, level: Level) -> list[Component]:
    """What is chosen and said in words, where both runs were asked the same."""
    asked = found.words.loc[found.words["level"] == level].to_dict("records")
    if not asked:
        return []
    first, rows = found.runs["run"].iloc[0], {}
    for row in asked:
        cells = [
            row["way"],
            row["outcome"],
            *(percent(row[name]) for name in ("accuracy_first", "accuracy")),
            minus(f"{row['difference']:+.1f}"),
            minus(f"{row['low']:+.1f} to {row['high']:+.1f}"),
            f"{row['images']}",
        ]
        rows.setdefault(f"{row['run']} {minus('-')} {first}", []).append(cells)
    heads = ["asked by", "outcome", first, "the other", "points", "95 % interval", "images"]
    title = f"In words, where both were asked the same: {LEVEL_WORDS[level]}"
    return [html.Div(_card_of(title, parts.plain_table(heads, rows, 2, title)), className="below")]


def _agreement(found: Comparison, level: Level, csv: str) -> Component:
    rows: dict[str, list[list[str]]] = {}
    for row in found.agreement.loc[found.agreement["level"] == level].to_dict("records"):
        cells = [
            DEPTH_WORDS[row["depth"]],
            *(percent(row[name]) for name in ("both_right", "only_first", "only_second", "both_wrong")),
            _told(row["kappa"], lambda kappa: minus(f"{kappa:.2f}")),
            _told(row["same_wrong"], percent),
            _told(row["same_wrong_by_luck"], percent),
        ]
        rows.setdefault(f"{row['first']} (first) and {row['second']} (second)", []).append(cells)
    heads = [
        "read at",
        "both right",
        "only the first",
        "only the second",
        "both wrong",
        "kappa of being right",
        "of both wrong, same class",
        "the same by luck",
    ]
    title = f"Do they fail alike? {LEVEL_WORDS[level].capitalize()}"
    return _card_of(title, parts.plain_table(heads, rows, 1, title), parts.csv_link(csv, title))


def _told(value: Any, word: Any) -> str:
    return "" if pd.isna(value) else word(value)


def _card_of(title: str, table: Component, *links: Component) -> Component:
    return html.Div([html.Div([html.Span(title), *links], className="caption"), table], className="card")


def _scores(found: Comparison, level: Level, csv: str) -> Component:
    rows = found.depths.loc[found.depths["level"] == level]
    percents: dict[str, Any] = {name: 100 * rows[name] for name in ("accuracy", "low", "high", "chance")}
    columns = [
        parts.words("run", "run"),
        parts.words("depth", "depth", minWidth=150),
        parts.words("site", "site"),
        parts.words("readout", "read from", minWidth=234),
        parts.number("accuracy", "accuracy %"),
        parts.number("low", "95 % from", minWidth=84),
        parts.number("high", "95 % to", minWidth=84),
        parts.number("chance", "chance %"),
        parts.number("images", "images", 0),
    ]
    spoken_of = {
        "depth": rows["depth"].replace(DEPTH_WORDS),
        "readout": rows["readout"].replace(READOUT_WORDS),
    }
    shown = rows.assign(**percents, **spoken_of).loc[:, [column["field"] for column in columns]]
    return parts.table_card(shown, columns, "In numbers", csv=csv)
