"""Data: which images the run saw, how they are dealt, what is nearly the same, and what could not be read."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.cards import data_card
from fgdiag_probes.style import BLUE, GREY, ORANGE, SKY, TEMPLATE

from fgdiag.duplicates import NearDuplicates
from fgdiag.prompts import spoken
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, link
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import Results

SPLITS = ("train", "val", "test", "excluded")
SPLIT_COLOURS = {"train": BLUE, "val": SKY, "test": ORANGE, "excluded": GREY}
PAIRS = 24
"""Near-duplicates shown as pictures."""


def controls(_results: Results, _choices: Choices, _library: Library) -> list[Component]:
    """Nothing is to be chosen here."""
    return [html.H1("Data")]


def body(results: Results, _choices: Choices, _library: Library) -> list[Component]:
    """Return the card of the data, images by class, near-duplicates, and unreadable files."""
    by_class = classes(results)
    return [
        html.Div(
            [
                html.Div(parts.facts(data_card(results.run, results.labels)), className="card padded"),
                parts.figure_card(
                    _figure(by_class), "Images a class, the largest first", name=f"{results.name}-classes"
                ),
            ],
            className="two",
        ),
        html.Div(_classes(results, by_class), className="below"),
        _near(results),
        _unreadable(results),
    ]


def classes(
    results: Results, _choices: Choices | None = None, _library: Library | None = None
) -> pd.DataFrame:
    """Return how many images each class has in each split, and how many could not be read."""
    images = results.images
    counts = pd.crosstab([images["coarse"], images["fine"]], images["split"]).reindex(
        columns=list(SPLITS), fill_value=0
    )
    unread = images["status"].ne("ok").groupby([images["coarse"], images["fine"]]).sum()
    table = counts.assign(images=counts.sum(axis=1), unreadable=unread).reset_index()
    if "coarse" not in results.labels.levels:
        table = table.drop(columns="coarse")
    kept = [name for name in table if name not in SPLITS or table[name].to_numpy().any()]
    return table.loc[:, kept]


def duplicates(
    results: Results, _choices: Choices | None = None, _library: Library | None = None
) -> pd.DataFrame:
    """Return the pairs of images that are nearly the same."""
    found = results.near_duplicates
    return found if found is not None else pd.DataFrame(columns=["source", "other_source"])


def unreadable(
    results: Results, _choices: Choices | None = None, _library: Library | None = None
) -> pd.DataFrame:
    """Return the images that could not be read, with the reason."""
    images = results.images
    return images.loc[images["status"] != "ok", ["source", "fine", "split", "status"]]


TABLES = {"classes": classes, "near-duplicates": duplicates, "unreadable": unreadable}


def _figure(by_class: pd.DataFrame) -> go.Figure:
    rows = by_class.sort_values("images", ascending=False)
    figure = go.Figure(layout={"template": TEMPLATE})
    names = rows["fine"].map(spoken)
    for split in SPLITS:
        if split in rows:
            figure.add_bar(
                x=list(range(len(rows))),
                y=rows[split],
                name=split,
                customdata=names,
                marker={"color": SPLIT_COLOURS[split], "line": {"width": 0}},
                hovertemplate=f"%{{customdata}}: %{{y}} {split}<extra></extra>",
            )
    return figure.update_layout(
        barmode="stack",
        bargap=0.12,
        hovermode="closest",
        height=330,
        xaxis={"title_text": f"{len(rows)} classes", "showticklabels": False, "ticks": ""},
        yaxis={"title_text": "images"},
    )


def _classes(results: Results, by_class: pd.DataFrame) -> Component:
    shown = by_class.assign(fine=by_class["fine"].map(spoken))
    columns = [parts.words("fine", "class", minWidth=180)]
    if "coarse" in by_class:
        shown["coarse"] = by_class["coarse"].map(spoken)
        columns.append(parts.words("coarse", "kind", minWidth=150))
    columns += [parts.number(name, name, 0) for name in (*SPLITS, "images", "unreadable") if name in by_class]
    return parts.table_card(
        shown, columns, "Images by class", csv=link("tables/classes.csv", run=results.name)
    )


def _near(results: Results) -> Component:
    found = results.near_duplicates
    title = "Near-duplicates"
    if found is None:
        text = "Nobody has looked for images that are nearly the same: `fgdiag diagnose` does when it records a run."
        return parts.section(title, parts.message("Not looked for", text))
    if found.empty:
        return parts.section(title, parts.message("None", "No two images are nearly the same."))
    pairs = NearDuplicates(found)
    across = len(pairs.across_split)
    warned = (
        f"{across} of them lie across training and test images: what was taught is tested there."
        if across
        else "None lies across training and test images."
    )
    lead = f"{len(found)} pairs of images show the same thing again. {warned}"
    first = pd.concat([pairs.across_split.table, found]).drop_duplicates().head(PAIRS)
    rows = {source: row for row, source in enumerate(results.column("source"))}
    shown = [_pair(results, pair, rows) for pair in first.to_dict("records")]
    return parts.section(
        title,
        html.Div([pair for pair in shown if pair is not None], className="twins"),
        lead=lead,
        aside=parts.csv_link(link("tables/near-duplicates.csv", run=results.name), title),
    )


def _pair(results: Results, pair: dict[Any, Any], rows: dict[str, int]) -> Component | None:
    one, other = rows.get(pair["source"]), rows.get(pair["other_source"])
    if one is None or other is None:
        return None
    seen = [
        parts.picture(results, row, href=link("images", run=results.name, image=row)) for row in (one, other)
    ]
    splits = " and ".join(dict.fromkeys([pair["split"], pair["other_split"]]))
    return html.Div(
        [parts.wall(seen, small=True), html.Span(f"{splits}, alike {pair['correlation']:.3f}")],
        className="twin card",
    )


def _unreadable(results: Results) -> Component:
    found = unreadable(results)
    title = "Unreadable files"
    if found.empty:
        return parts.section(title, html.P("Every image could be read.", className="lead"))
    columns = [
        parts.words("source", "image", minWidth=260),
        parts.words("fine", "class"),
        parts.words("split", "split"),
        parts.words("status", "reason", minWidth=280),
    ]
    csv = link("tables/unreadable.csv", run=results.name)
    return parts.section(title, parts.table_card(found, columns, f"{len(found)} images", csv=csv))
