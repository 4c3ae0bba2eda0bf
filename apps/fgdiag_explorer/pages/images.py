"""Images: the ones that were named right here and wrong there; of one image, what everyone says of it."""

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.closer_look import DEPTH_WORDS
from fgdiag_probes.curve_figure import site_ticks
from fgdiag_probes.labels import Level
from fgdiag_probes.style import (
    GREY,
    LEVEL_NAMES,
    LEVEL_WORDS,
    READOUT_COLOURS,
    READOUT_WORDS,
    TEMPLATE,
    percent,
)

from fgdiag.prompts import spoken
from fgdiag.sites import ATTENTION
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, link, remembered
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import ANSWER, Results

A_PAGE, A_TABLE = 60, 1000
"""Pictures on a wall, and rows of a table; CSV has them all."""
KEPT = ("split", "fine", "kind", "right", "wrong", "level", "view")


def controls(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return what can be chosen: the images, and how they are shown."""
    asked = _Asked(results, choices)
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
    }
    if "coarse" in results.labels.levels:
        kinds = [{"value": name, "label": spoken(name)} for name in results.known("coarse")]
        choosing.append(parts.select("kind", "Kind", kinds, asked.kind, clearable=True, placeholder="All"))
        defaults["kind"] = None
    choosing += [
        parts.select("split", "Split", [*asked.splits, "all"], asked.split, allowDeselect=False),
        parts.switch("view", "Show as", [("wall", "Pictures"), ("table", "Table")], asked.view),
    ]
    return [html.H1("Images"), parts.controls(*choosing), remembered(defaults)]


def body(results: Results, choices: Choices, _library: Library) -> list[Component]:
    """Return one image with all that is said of it, or all that were chosen."""
    row = choices.number("image", 0, len(results.images) - 1)
    if row is not None:
        return _one(results, choices, row)
    asked = _Asked(results, choices)
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
    asked = _Asked(results, choices)
    return _listed(results, asked, asked.rows())


def said_of(results: Results, choices: Choices, _library: Library | None = None) -> pd.DataFrame:
    """Return what every site and readout says of one image."""
    row = choices.number("image", 0, len(results.images) - 1, 0)
    found = results.position(row or 0)
    return _readings(results, found, _Asked(results, choices).level) if found is not None else pd.DataFrame()


TABLES = {"images": table, "image": said_of}


class _Asked:
    """Which images are asked for."""

    def __init__(self, results: Results, choices: Choices) -> None:
        self.results = results
        sites, present = results.sites, results.known("split")
        self.splits = [name for name in ("test", "train", "val", "excluded") if name in present]
        self.right, self.wrong = choices.some("right", sites), choices.some("wrong", sites)
        self.level: Level = choices.one("level", results.labels.levels, results.finest)
        self.split = choices.one("split", [*self.splits, "all"], self.splits[0])
        self.view = choices.one("view", ["wall", "table"])
        self.fine, self.kind = choices.text("fine"), choices.text("kind")
        self.given = {
            "run": results.name,
            **{key: choices.text(key) for key in KEPT},
            "right": self.right,
            "wrong": self.wrong,
        }

    def rows(self) -> np.ndarray:
        """Return the rows of the images that meet every choice, in order."""
        results = self.results
        keep = np.ones(len(results.images), bool)
        if self.split != "all":
            keep &= results.column("split") == self.split
        for column, name in (("fine", self.fine), ("coarse", self.kind)):
            if name:
                keep &= results.column(column) == name
        if self.right or self.wrong:
            test = results.labels.test
            said = results.labels.asked(self.level, test)
            for site in self.right:
                said &= results.right(results.best(self.level, site), self.level)
            for site in self.wrong:
                said &= ~results.right(results.best(self.level, site), self.level)
            met = np.zeros(len(keep), bool)
            met[test[said]] = True
            keep &= met
        return np.flatnonzero(keep)

    def link(self, **more: Any) -> str:
        """Return the address of these images."""
        return link("images", **{**self.given, **more})


def _wall(results: Results, asked: _Asked, choices: Choices, rows: np.ndarray) -> list[Component]:
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


def _caption(results: Results, asked: _Asked, row: int, speaks: str | None) -> list[Any]:
    name = html.Span(spoken(str(results.column("fine")[row])))
    at = results.position(row)
    if speaks is None or at is None:
        return [name]
    said = results.reading(results.best(asked.level, speaks), asked.level).said[at]
    return [name, html.Span(["→ ", _name(results, asked.level, said)], className="said")]


def _name(results: Results, level: Level, code: int) -> str:
    return spoken(str(results.labels.names(level)[code])) if code >= 0 else "not asked"


def _count(asked: _Asked, count: int) -> str:
    where = [f"right at {site}" for site in asked.right] + [f"wrong at {site}" for site in asked.wrong]
    what = f", named {', '.join(where)} ({LEVEL_WORDS[asked.level]})" if where else ""
    split = "" if asked.split == "all" else f"{asked.split} "
    return f"{count:,} {split}image{'s' * (count != 1)}{what}"


def _turn(asked: _Asked, page: int, pages: int) -> Component:
    if pages == 1:
        return html.Span()
    before = parts.quiet_link("Previous", asked.link(page=page - 1), "previous") if page > 1 else None
    after = parts.quiet_link("Next", asked.link(page=page + 1), "next") if page < pages else None
    return html.Span([before, html.Span(f"Page {page} of {pages}"), after], className="turn")


def _csv(asked: _Asked) -> str:
    return link("tables/images.csv", **asked.given)


def _listed(results: Results, asked: _Asked, rows: np.ndarray) -> pd.DataFrame:
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


def _table(results: Results, asked: _Asked, rows: np.ndarray) -> Component:
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


def _one(results: Results, choices: Choices, row: int) -> list[Component]:
    asked = _Asked(results, choices)
    image = results.images.iloc[row]
    at = results.position(row)
    return [
        _steps(asked, row),
        html.Div(
            [
                html.Div(
                    [
                        html.Div(parts.picture(results, row), className="large"),
                        parts.facts(_facts(results, image, row)),
                    ],
                    className="card padded portrait",
                ),
                html.Div(_says(results, asked, at, row)),
            ],
            className="portrait-and-said",
        ),
    ]


def _steps(asked: _Asked, row: int) -> Component:
    """Links to the images before and after, among those that are chosen, and back to all of them."""
    rows = asked.rows()
    at = int(np.searchsorted(rows, row))
    inside = at < len(rows) and rows[at] == row
    before = int(rows[at - 1]) if at > 0 else None
    after = int(rows[at + inside]) if at + inside < len(rows) else None
    page = at // A_PAGE + 1
    links: list[Component] = [
        parts.quiet_link("← All images", asked.link(page=page if page > 1 else None), "back")
    ]
    if before is not None:
        links.append(parts.quiet_link("Previous", asked.link(image=before), "previous"))
    links.append(html.Span(f"{at + 1:,} of {len(rows):,}" if inside else "not among the chosen images"))
    if after is not None:
        links.append(parts.quiet_link("Next", asked.link(image=after), "next"))
    levels = asked.results.labels.levels
    ways = {
        level: parts.quiet_link(LEVEL_NAMES[level].capitalize(), asked.link(image=row, level=level))
        for level in levels
    }
    parts.marked(ways[asked.level], aria_current="true")
    links.append(html.Span(list(ways.values()) if len(ways) > 1 else [], className="levels"))
    return html.Div(links, className="turn start")


def _facts(results: Results, image: pd.Series, row: int) -> list[tuple[str, str]]:
    lines = [("Class", spoken(str(image["fine"])))]
    if "coarse" in results.labels.levels:
        lines.append(("Kind", spoken(str(image["coarse"]))))
    lines += [
        ("Split", str(image["split"])),
        ("Image", f"{row}, {image['width']} × {image['height']} pixels"),
        ("File", str(image["source"])),
    ]
    status = str(image["status"])
    return lines if status == "ok" else [*lines, ("Unreadable", status)]


def _says(results: Results, asked: _Asked, at: int | None, row: int) -> list[Component]:
    if at is None:
        return [
            parts.message(
                "Nobody speaks of this image",
                "Probes and the model are asked about readable test images only; probes learn from the others.",
            )
        ]
    readings = _readings(results, at, asked.level)
    if not len(readings):
        return [
            parts.message(
                "Nothing was asked",
                "This image's class has no look-alike of its kind. Choose “fine, all” above.",
            )
        ]
    title = f"Probability of the right class, {LEVEL_WORDS[asked.level]}; hollow where another is named"
    found = [parts.figure_card(_trajectory(readings), title, name=f"{results.name}-image-{row}")]
    if results.answers is not None:
        found.append(_answers(results, row))
    columns = [
        parts.words("site", "site"),
        parts.words("read from", "read from", minWidth=190),
        parts.words("says", "says", minWidth=170),
        parts.words("right", "right", maxWidth=110),
        parts.number("probability", "right class, %", 1),
    ]
    shown = readings.assign(
        right=np.where(readings["right"], "right", "wrong"),
        says=readings["says"].map(spoken),
        probability=100 * readings["probability"],
    )
    csv = link("tables/image.csv", run=results.name, image=row, level=asked.level)
    return [
        *found,
        html.Div(
            parts.table_card(shown, columns, "What each place says", csv=csv, most=8), className="below"
        ),
    ]


def _readings(results: Results, at: int, level: Level) -> pd.DataFrame:
    """One row a place: what it says of the test image at position `at`, and how probable the right class is to it."""
    labels = results.labels
    truth = labels.codes(level)[labels.test[at]]
    rows = []
    for place in results.places:
        found = results.reading(place, level)
        if found.said[at] < 0:
            continue
        says = str(labels.names(level)[found.said[at]])
        readout = "likelihood of names" if place == ANSWER else READOUT_WORDS.get(place[1], place[1])
        rows.append(
            [place[0], place[1], readout, says, bool(found.said[at] == truth), float(2.0 ** -found.bits[at])]
        )
    return pd.DataFrame(rows, columns=["site", "readout", "read from", "says", "right", "probability"])


def _trajectory(readings: pd.DataFrame) -> go.Figure:
    sites = [site for site in dict.fromkeys(readings["site"]) if site not in ("pixels", "answer")]
    at = {site: x for x, site in enumerate(sites)} | {"answer": len(sites)}
    figure = go.Figure(layout={"template": TEMPLATE})
    for readout, rows in readings[readings["site"] != "pixels"].groupby("readout", sort=False):
        colour = READOUT_COLOURS.get(str(readout), "#D55E00" if readout == "likelihood" else GREY)
        figure.add_scatter(
            x=[at[site] for site in rows["site"]],
            y=100 * rows["probability"],
            mode="markers" if readout in (ATTENTION, "likelihood") else "lines+markers",
            name="answer" if readout == "likelihood" else READOUT_WORDS.get(str(readout), str(readout)),
            line={"color": colour, "width": 1.5},
            marker={
                "size": 9,
                "color": colour,
                "symbol": ["circle" if right else "circle-open" for right in rows["right"]]
                if readout != "likelihood"
                else ["star" if right else "star-open" for right in rows["right"]],
                "line": {"width": 1.8, "color": colour},
            },
            customdata=np.column_stack([rows["site"], [spoken(said) for said in rows["says"]]]),
            hovertemplate="%{y:.0f} %, says %{customdata[1]}",
        )
    ticks = site_ticks(sites, answer="answer" in set(readings["site"]))
    return figure.update_layout(
        height=360,
        xaxis={"title_text": "site, in the order of the forward pass", **ticks},
        yaxis={"title_text": "probability of the right class (%)", "range": [-4, 106]},
    )


def _answers(results: Results, row: int) -> Component:
    """What the model itself says, with and without the image."""
    told = results.answer_table[results.answer_table["row"] == row]
    if told.empty:
        return html.Div()
    said = told.iloc[0]
    columns = {"fine": "said_fine", "fine|coarse": "said_fine_within_coarse", "coarse": "said_coarse"}
    rows = []
    for level in results.labels.levels:
        column = columns[level]
        if column not in said:
            continue
        bits = said.get(column.replace("said", "bits"))
        rows.append(
            [
                LEVEL_WORDS[level],
                spoken(str(said[column])),
                percent(2.0**-bits) if bits is not None and bits == bits else "",
                spoken(str(said.get(f"{column}_corrected", "") or "")),
                spoken(str(said.get(f"{column}_blind", "") or "")),
            ]
        )
    heads = ["asked for", "answer", "right name's share", "corrected for habit", "without the image"]
    return html.Div(
        [
            html.Div("What the model answers", className="caption"),
            parts.plain_table(heads, {"": rows}, 5, "What the model answers"),
        ],
        className="card below",
    )
