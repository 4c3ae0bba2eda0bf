"""Images: the ones that were named right here and wrong there; of one image, what everyone says of it."""

from typing import Any

import numpy as np
import pandas as pd
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.closer_look import DEPTH_WORDS
from fgdiag_probes.labels import Level
from fgdiag_probes.style import LEVEL_NAMES, LEVEL_WORDS

from fgdiag.prompts import spoken
from fgdiag_explorer import image_lens, image_maps, parts
from fgdiag_explorer.asked import A_PAGE, OF_ONE, Asked
from fgdiag_explorer.choices import Choices, link, remembered
from fgdiag_explorer.library import Library
from fgdiag_explorer.one_image import one_image, readings
from fgdiag_explorer.results import Results

A_TABLE = 1000
"""Rows of a table; CSV has them all."""


def controls(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return what can be chosen: the images, and how they are shown."""
    asked = Asked(results, choices)
    classes = [{"value": name, "label": spoken(name)} for name in results.known("fine")]
    sites = [{"value": site, "label": site} for site in results.sites]
    choosing = [
        parts.several(
            "right", "Named right at", sites, asked.right, placeholder="" if asked.right else "anywhere"
        ),
        parts.several(
            "wrong", "and wrong at", sites, asked.wrong, placeholder="" if asked.wrong else "anywhere"
        ),
    ]
    if len(results.labels.levels) > 1:
        choosing.append(
            parts.switch(
                "level",
                "Which classes must be right",
                [(level, LEVEL_NAMES[level].capitalize()) for level in results.labels.levels],
                asked.level,
            )
        )
    choosing.append(parts.select("fine", "Class", classes, asked.fine, clearable=True, placeholder="All"))
    defaults: dict[str, Any] = {
        "right": [],
        "wrong": [],
        "level": results.finest,
        "fine": None,
        "split": "test",
        "view": "wall",
        **dict.fromkeys(OF_ONE),
        "method": image_maps.METHOD,
        "target": "name",
        "read": "logits",
        "name": "fine",
        "grid": "1",
    }
    if "coarse" in results.labels.levels:
        kinds = [{"value": name, "label": spoken(name)} for name in results.known("coarse")]
        choosing.append(parts.select("kind", "Kind", kinds, asked.kind, clearable=True, placeholder="All"))
        defaults["kind"] = None
    choosing += [
        parts.select("split", "Split", [*asked.splits, "all"], asked.split, allowDeselect=False),
        parts.switch("view", "Show as", [("wall", "Pictures"), ("table", "Table")], asked.view),
    ]
    return [html.H1("Images"), parts.controls(*choosing), remembered(defaults, of_one=OF_ONE)]


def body(results: Results, choices: Choices, library: Library) -> list[Component]:
    """Return one image with all that is said of it, or all that were chosen."""
    row = choices.number("image", 0, len(results.images) - 1)
    if row is not None:
        return one_image(results, choices, library, row)
    asked = Asked(results, choices)
    rows = asked.rows()
    if not len(rows):
        return [
            parts.message(
                "No image is like that", "No image meets every choice above. Take one of them back."
            )
        ]
    return _wall(results, asked, choices, rows) if asked.view == "wall" else [_table(results, asked, rows)]


def table(results: Results, choices: Choices, _library: Library | None = None) -> pd.DataFrame:
    """Return the chosen images, and what is said of them at each depth."""
    asked = Asked(results, choices)
    return _listed(results, asked, asked.rows())


def said_of(results: Results, choices: Choices, _library: Library | None = None) -> pd.DataFrame:
    """Return what every site and readout says of one image."""
    row = choices.number("image", 0, len(results.images) - 1, 0)
    found = results.position(row or 0)
    return readings(results, found, Asked(results, choices).level) if found is not None else pd.DataFrame()


TABLES = {"images": table, "image": said_of, "lens": image_lens.table}
PARTS = {
    image_maps.KIND: (image_maps.KEYS, image_maps.part),
    image_lens.VIEW: (image_lens.KEYS, image_lens.view),
}
MADE = {image_maps.KIND: image_maps.MADE, image_lens.KIND: image_lens.MADE}


def _wall(results: Results, asked: Asked, choices: Choices, rows: np.ndarray) -> list[Component]:
    pages = -(-len(rows) // A_PAGE)
    page = choices.number("page", 1, pages, 1) or 1
    shown = rows[(page - 1) * A_PAGE : page * A_PAGE]
    speaks = asked.wrong[-1] if asked.wrong else None
    pictures = [
        html.Figure(
            [
                parts.picture(results, int(row), href=asked.link(image=int(row))),
                html.Figcaption(_caption(results, asked, int(row), speaks)),
            ]
        )
        for row in shown
    ]
    return [
        html.Div(
            [
                html.P(_count(asked, len(rows)), className="lead"),
                _turn(asked, page, pages),
                parts.csv_link(_csv(asked), "Images"),
            ],
            className="head",
        ),
        parts.wall(pictures),
        html.Div(_turn(asked, page, pages), className="foot"),
    ]


def _caption(results: Results, asked: Asked, row: int, speaks: str | None) -> list[Any]:
    name = html.Span(spoken(str(results.column("fine")[row])))
    at = results.position(row)
    if speaks is None or at is None:
        return [name]
    said = results.reading(results.best(asked.level, speaks), asked.level).said[at]
    return [name, html.Span(["→ ", _name(results, asked.level, said)], className="said")]


def _name(results: Results, level: Level, code: int) -> str:
    return spoken(str(results.labels.names(level)[code])) if code >= 0 else "not asked"


def _count(asked: Asked, count: int) -> str:
    where = [f"right at {site}" for site in asked.right] + [f"wrong at {site}" for site in asked.wrong]
    what = f", named {', '.join(where)} ({LEVEL_WORDS[asked.level]})" if where else ""
    split = "" if asked.split == "all" else f"{asked.split} "
    return f"{count:,} {split}image{'s' * (count != 1)}{what}"


def _turn(asked: Asked, page: int, pages: int) -> Component:
    if pages == 1:
        return html.Span()
    before = parts.quiet_link("Previous", asked.link(page=page - 1), "previous") if page > 1 else None
    after = parts.quiet_link("Next", asked.link(page=page + 1), "next") if page < pages else None
    return html.Span([before, html.Span(f"Page {page} of {pages}"), after], className="turn")


def _csv(asked: Asked) -> str:
    return link("tables/images.csv", **asked.given)


def _listed(results: Results, asked: Asked, rows: np.ndarray) -> pd.DataFrame:
    images = results.images.iloc[rows]
    listed = pd.DataFrame({"image": rows, "class": images["fine"].to_numpy()})
    if "coarse" in results.labels.levels:
        listed["kind"] = images["coarse"].to_numpy()
    listed["split"] = images["split"].to_numpy()
    positions = results.positions[rows]
    for depth, place in _depths(results, asked.level).items():
        said = results.reading(place, asked.level).said[np.maximum(positions, 0)]
        names = np.append(results.labels.names(asked.level).astype(object), "")
        listed[depth] = names[np.where(positions >= 0, said, -1)]
    return listed.assign(source=images["source"].to_numpy(), status=images["status"].to_numpy())


def _depths(results: Results, level: Level) -> dict[str, Any]:
    return {
        depth: place
        for (asked, depth), place in results.depths.items()
        if asked == level and depth != "pixels"
    }


def _table(results: Results, asked: Asked, rows: np.ndarray) -> Component:
    listed = _listed(results, asked, rows[:A_TABLE])
    listed["image"] = [f"[{row}]({asked.link(image=row)})" for row in listed["image"]]
    classes = [str(name) for name in listed if name in ("class", "kind", *DEPTH_WORDS)]
    for name in classes:
        listed[name] = [spoken(str(one)) for one in listed[name]]
    of_image = {"cellRenderer": "markdown", "filter": False, "sortable": False}
    columns = [parts.words("image", "image", **{**of_image, "minWidth": 80})]
    columns += [parts.words(name, DEPTH_WORDS.get(name, name), minWidth=168) for name in classes]
    columns += [parts.words("split", "split", minWidth=92), parts.words("source", "file", minWidth=300)]
    columns.append(parts.words("status", "status", minWidth=100))
    first = f"; the first {A_TABLE:,} are listed here, CSV has all" if len(rows) > A_TABLE else ""
    return parts.table_card(listed, columns, _count(asked, len(rows)) + first, csv=_csv(asked), most=16)
