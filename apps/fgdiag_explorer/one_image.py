"""One image, and what every site and the answers say of it."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.curve_figure import site_ticks
from fgdiag_probes.labels import Level
from fgdiag_probes.style import (
    GREY,
    LEVEL_NAMES,
    LEVEL_WORDS,
    READOUT_COLOURS,
    READOUT_WORDS,
    TEMPLATE,
    VERMILION,
    percent,
    read_from,
)

from fgdiag.prompts import spoken
from fgdiag.sites import ATTENTION
from fgdiag_explorer import image_lens, image_maps, parts
from fgdiag_explorer.asked import A_PAGE, Asked
from fgdiag_explorer.choices import Choices, link
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import ANSWER, Results


def one_image(results: Results, choices: Choices, library: Library, row: int) -> list[Component]:
    """Return an image with all that is said of it, its maps, and its token lens."""
    asked = Asked(results, choices)
    image = results.images.iloc[row]
    portrait = [
        html.Div(parts.picture(results, row), className="large"),
        parts.facts(_facts(results, image, row)),
    ]
    return [
        _steps(asked, row),
        html.Div(
            [
                html.Div(portrait, className="card padded portrait"),
                html.Div(_says(results, asked, results.position(row), row)),
            ],
            className="portrait-and-said",
        ),
        *(_looked_into(results, choices, library) if str(image["status"]) == "ok" else []),
    ]


def _looked_into(results: Results, choices: Choices, library: Library) -> list[Component]:
    maps = html.Div(image_maps.part(results, choices, library), id={"type": "part", "key": image_maps.KIND})
    return [
        parts.section(
            "What in it speaks for its class",
            image_maps.chooser(results, choices),
            maps,
            lead="Attribution maps: orange speaks for the first class, blue for the other. The check sharpens and "
            "blurs the picture in the order of the map: what that gains, in the unit of what is explained, must beat "
            "the same map moved elsewhere and the order from the centre outwards.",
        ),
        parts.section(
            "What its tokens say in words",
            *image_lens.part(results, choices, library),
            lead=image_lens.EXPLAINED,
        ),
    ]


def _steps(asked: Asked, row: int) -> Component:
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


def _says(results: Results, asked: Asked, at: int | None, row: int) -> list[Component]:
    if at is None:
        return [
            parts.message(
                "Nobody speaks of this image",
                "Probes and the model are asked about readable test images only; probes learn from the others.",
            )
        ]
    told = readings(results, at, asked.level)
    if not len(told):
        return [
            parts.message(
                "Nothing was asked",
                "This image's class has no look-alike of its kind. Choose “fine, all” above.",
            )
        ]
    title = f"Probability of the right class, {LEVEL_WORDS[asked.level]}; hollow where another is named"
    found = [parts.figure_card(_trajectory(told), title, name=f"{results.name}-image-{row}")]
    if results.answers is not None:
        found.append(_answers(results, row))
    columns = [
        parts.words("site", "site"),
        parts.words("read from", "read from", minWidth=234),
        parts.words("says", "says", minWidth=170),
        parts.words("right", "right", maxWidth=110),
        parts.number("probability", "right class, %", 1),
    ]
    shown = told.assign(
        right=np.where(told["right"], "right", "wrong"),
        says=told["says"].map(spoken),
        probability=100 * told["probability"],
    )
    csv = link("tables/image.csv", run=results.name, image=row, level=asked.level)
    return [
        *found,
        html.Div(
            parts.table_card(shown, columns, "What each place says", csv=csv, most=8), className="below"
        ),
    ]


def readings(results: Results, at: int, level: Level) -> pd.DataFrame:
    """One row a place: what it says of the test image at position `at`, and how probable the right class is to it."""
    labels = results.labels
    truth = labels.codes(level)[labels.test[at]]
    rows = []
    for place in results.places:
        found = results.reading(place, level)
        if found.said[at] < 0:
            continue
        says = str(labels.names(level)[found.said[at]])
        readout = "likelihood of names" if place == ANSWER else read_from(*place)
        rows.append(
            [place[0], place[1], readout, says, bool(found.said[at] == truth), float(2.0 ** -found.bits[at])]
        )
    return pd.DataFrame(rows, columns=["site", "readout", "read from", "says", "right", "probability"])


def _trajectory(readings: pd.DataFrame) -> go.Figure:
    sites = [site for site in dict.fromkeys(readings["site"]) if site not in ("pixels", "answer")]
    at = {site: x for x, site in enumerate(sites)} | {"answer": len(sites)}
    figure = go.Figure(layout={"template": TEMPLATE})
    for readout, rows in readings[readings["site"] != "pixels"].groupby("readout", sort=False):
        colour = READOUT_COLOURS.get(str(readout), VERMILION if readout == "likelihood" else GREY)
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
    texts = _texts(results, row)
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
                *([texts.get(level, "")] if texts else []),
            ]
        )
    heads = ["asked for", "likeliest name", "right name's share", "corrected for habit", "without the image"]
    heads += ["in its own words"] if texts else []
    return html.Div(
        [
            html.Div("What the model answers", className="caption"),
            parts.plain_table(heads, {"": rows}, len(heads), "What the model answers"),
        ],
        className="card below",
    )


def _texts(results: Results, row: int) -> dict[str, str]:
    """What the model wrote of an image when it was asked for each level, in the first wording."""
    if results.texts is None:
        return {}
    asked = results.texts.loc[results.texts["row"] == row].sort_values("wording", kind="stable")
    return {
        level: f"“{text}”"
        for level, text in asked.drop_duplicates("level")[["level", "text"]].itertuples(index=False)
    }
