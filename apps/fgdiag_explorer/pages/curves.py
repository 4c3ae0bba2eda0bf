"""Curves: how well each site and readout names the classes, by the score and at the levels that are chosen."""

from dataclasses import replace

import pandas as pd
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.curve_figure import METRICS
from fgdiag_probes.labels import Level
from fgdiag_probes.style import LEVEL_NAMES, LEVEL_WORDS, READOUT_WORDS, read_from

from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, link, remembered
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import Results

METRIC_WORDS = {
    "accuracy": "Accuracy",
    "balanced": "Accuracy, mean of classes",
    "bits": "Log-loss",
    "selectivity": "Selectivity",
    "held out": "Held-out accuracy",
}
EXPLAINED = {
    "accuracy": "The share of test images whose class a linear probe names; the bands are 95 % intervals.",
    "balanced": "As accuracy, but every class counts the same, however many test images it has.",
    "bits": "How surprised the probe is by the right class: less is better. It also tells whether a probe is sure "
    "where it is right; the bands are 95 % intervals.",
    "selectivity": "By how many points real kinds are named better than random kinds, which could only be learnt by "
    "heart (Hewitt & Liang, 2019). Known for coarse classes only.",
    "held out": "On training images held out by cross-validation. Every choice of a layer or a readout is made "
    "by this score, never by test images.",
}


def controls(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return what can be chosen: the score, the levels, the readouts."""
    levels, readouts = list(results.labels.levels), _readouts(results)
    metric, shown, read = _chosen(results, choices)
    return [
        html.H1("Curves"),
        parts.controls(
            parts.select(
                "metric",
                "Score",
                [{"value": name, "label": METRIC_WORDS[name]} for name in METRICS],
                metric,
                allowDeselect=False,
            ),
            parts.chips(
                "level", "Classes", [(level, LEVEL_NAMES[level].capitalize()) for level in levels], shown
            ),
            parts.chips(
                "readout", "Read from", [(name, READOUT_WORDS.get(name, name)) for name in readouts], read
            ),
        ),
        remembered({"metric": "accuracy", "level": levels, "readout": readouts}),
    ]


def body(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return a figure a level, and the numbers."""
    metric, levels, readouts = _chosen(results, choices)
    if not levels or not readouts:
        return [
            parts.message(
                "Nothing is chosen", "Choose at least one kind of class and one place to read from.", "choose"
            )
        ]
    rows = table(results, choices)
    if metric == "selectivity":
        levels: list[Level] = ["coarse"] if "coarse" in levels else []
    if not levels:
        return [
            parts.message(
                "No selectivity here",
                "It is known for coarse classes only: choose them too, or another score.",
            )
        ]
    kept = results.curves.table
    curves = replace(results.curves, table=kept[kept["readout"].isin(readouts)])
    figures = [
        parts.figure_card(
            curves.figure(level, metric),
            LEVEL_WORDS[level].capitalize(),
            name=f"{results.name}-{metric}-{level.replace('|', '-')}",
        )
        for level in levels
    ]
    return [
        html.P(EXPLAINED[metric], className="lead"),
        html.Div(figures, className="two" if len(figures) > 1 else "one"),
        html.Div(
            _table(rows, link("tables/curves.csv", run=results.name, level=levels, readout=readouts)),
            className="below",
        ),
    ]


def table(results: Results, choices: Choices, _library: Library | None = None) -> pd.DataFrame:
    """Return the scores at the levels and readouts that are chosen."""
    _, levels, readouts = _chosen(results, choices)
    scores = results.curves.table
    return scores.loc[scores["level"].isin(levels) & scores["readout"].isin(readouts)]


TABLES = {"curves": table}


def _chosen(results: Results, choices: Choices) -> tuple[str, list[Level], list[str]]:
    levels, readouts = results.labels.levels, _readouts(results)
    return (
        choices.one("metric", list(METRICS)),
        choices.some("level", levels, levels),
        choices.some("readout", readouts, readouts),
    )


def _readouts(results: Results) -> list[str]:
    found = set(results.curves.table["readout"])
    return [*(name for name in READOUT_WORDS if name in found), *sorted(found - set(READOUT_WORDS))]


def _table(rows: pd.DataFrame, csv: str) -> Component:
    shown = rows.assign(
        level=rows["level"].replace(LEVEL_NAMES),
        readout=[read_from(site, out) for site, out in zip(rows["site"], rows["readout"], strict=True)],
        **{
            name: 100 * rows[name]
            for name in ("accuracy", "low", "high", "balanced", "selectivity", "cv_accuracy")
        },
    )
    columns = [
        parts.words("level", "classes", minWidth=146),
        parts.words("site", "site", minWidth=100),
        parts.words("readout", "read from", minWidth=234),
        parts.number("accuracy", "accuracy %", minWidth=104),
        parts.number("low", "95 % from", minWidth=84),
        parts.number("high", "95 % to", minWidth=84),
        parts.number("balanced", "mean of classes %"),
        parts.number("bits", "log-loss, bits", 2, minWidth=88),
        parts.number("selectivity", "selectivity, points", 1, minWidth=112),
        parts.number("cv_accuracy", "held out %"),
        parts.number("images", "images", 0),
    ]
    fields = [column["field"] for column in columns]
    return parts.table_card(shown.loc[:, fields], columns, f"All {len(rows)} scores", csv=csv)
