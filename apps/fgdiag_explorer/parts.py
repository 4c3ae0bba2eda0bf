"""What pages are put together from: cards, figures, tables, pictures, and the words where there is nothing to show."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import dash_ag_grid as dag
import dash_mantine_components as dmc
import pandas as pd
import plotly.graph_objects as go
from dash import dcc, html
from dash.development.base_component import Component

from fgdiag.errors import FgdiagError
from fgdiag.prompts import spoken
from fgdiag_explorer.choices import choice, link
from fgdiag_explorer.results import NotMade, Results

Part = TypeVar("Part", bound=Component)

Shown = Any
"""What Dash takes as children: components, text, or a list of them."""

HEIGHT, ROW_HEIGHT, HEAD_HEIGHT = 400, 38, 44
"""Pixels, of a figure and of a table."""
APART = {-45: 17, -90: 11}
"""Pixels between slanted names on an axis, by their angle."""


def section(title: str, *content: Shown, lead: Shown = None, aside: Shown = None) -> Component:
    """A heading with what it heads; `aside` stands at the right of it."""
    head = html.Div([html.H2(title), *([aside] if aside is not None else [])], className="head")
    below = [html.P(lead, className="lead")] if lead is not None else []
    return html.Section([head, *below, *content])


def figure_card(
    figure: go.Figure,
    title: str,
    *,
    name: str,
    graph: str | None = None,
    height: int | None = None,
    **config: Any,
) -> Component:
    """A figure below its title, with buttons to download it.

    Parameters
    ----------
    name
        Of the file that is downloaded, without suffix.
    graph
        Id of the graph, where a callback listens to it.
    height
        Pixels; default: as the figure says.
    config
        Of plotly.
    """
    drawn: dict[str, Any] = figure.to_dict()
    layout = drawn["layout"]
    layout["margin"] = {**layout.get("margin", {}), "t": 12}
    layout["height"] = height or layout.get("height", HEIGHT)
    layout["meta"] = {**layout.get("meta", {}), **_ticks(layout.get("xaxis", {}))}
    layout.pop("title", None)
    buttons = [_download(kind, title, name) for kind in ("png", "svg")]
    graph_of = dcc.Graph(
        figure=drawn,
        config=cast(Any, {"displayModeBar": False, "responsive": True, **config}),
        style={"height": f"{layout['height']}px"},
        id=graph or {"type": "figure", "name": name},
    )
    head = html.Figcaption([html.Span(title), html.Span(buttons, className="buttons")])
    return html.Figure([head, marked(html.Div(graph_of, role="img"), aria_label=title)], className="card")


def table_card(
    rows: pd.DataFrame,
    columns: Sequence[Mapping[str, Any]],
    title: str,
    *,
    csv: str,
    most: int = 12,
    **options: Any,
) -> Component:
    """A table that sorts and filters, below its title, with a link to it as CSV.

    Parameters
    ----------
    columns
        As AG Grid takes them.
    csv
        Address of the table as CSV.
    most
        Rows in sight; more are scrolled to.
    """
    shown = min(most, max(1, len(rows)))
    grid = dag.AgGrid(
        rowData=rows.to_dict("records"),
        columnDefs=[dict(column) for column in columns],
        defaultColDef={
            "sortable": True,
            "minWidth": 92,
            "resizable": True,
            "filter": True,
            "wrapHeaderText": True,
            "autoHeaderHeight": True,
        },
        columnSize="responsiveSizeToFit",
        dashGridOptions={
            "rowHeight": ROW_HEIGHT,
            "animateRows": False,
            "suppressColumnVirtualisation": True,
            "enableCellTextSelection": True,
            **options,
        },
        style={"height": f"{HEAD_HEIGHT + 26 + shown * ROW_HEIGHT}px"},
        className="grid",
    )
    head = html.Div([html.Span(title), csv_link(csv, title)], className="caption")
    return html.Div([head, grid], className="card")


def csv_link(address: str, title: str) -> Component:
    """A link that downloads a table."""
    link_to = html.A("CSV", href=address, download="", className="quiet")
    return marked(link_to, aria_label=f"Download “{title}” as CSV")


def quiet_link(text: str, address: str, key: str = "") -> Component:
    """A link in the shape of a small button; `key` names the key that follows it, see `assets/explorer.js`."""
    link_to = html.A(text, href=address, className="quiet")
    return marked(link_to, data_key=key) if key else link_to


def _ticks(axis: Mapping[str, Any]) -> dict[str, Any]:
    """All names on a slanted axis, of which the browser shows those that there is room for."""
    if axis.get("tickangle") not in APART or "tickvals" not in axis:
        return {}
    names = {name: list(axis[name]) for name in ("tickvals", "ticktext")}
    return {**names, "apart": APART[axis["tickangle"]]}


def marked(component: Part, **attributes: str) -> Part:
    """Give a component attributes such as `aria-label`, written `aria_label`."""
    for name, value in attributes.items():
        setattr(component, name.replace("_", "-"), value)
    return component


def _download(kind: str, title: str, name: str) -> Component:
    button = html.Button(kind.upper(), className="quiet")
    words = f"Download “{title}” as {kind.upper()}"
    return marked(button, data_download=kind, data_name=name, aria_label=words)


def number(field: str, head: str, digits: int = 1, **options: Any) -> dict[str, Any]:
    """A column of numbers."""
    return {
        "field": field,
        "headerName": head,
        "type": "rightAligned",
        "filter": False,
        "valueFormatter": {"function": f"params.value == null ? '' : d3.format(',.{digits}f')(params.value)"},
        **options,
    }


def words(field: str, head: str, **options: Any) -> dict[str, Any]:
    """A column of words."""
    return {"field": field, "headerName": head, **{"minWidth": 130, **options}}


def with_code(text: str) -> list[Shown]:
    """Words in which commands stand between backticks, these set as code."""
    return [html.Code(piece) if at % 2 else piece for at, piece in enumerate(text.split("`"))]


def facts(lines: Iterable[tuple[str, str]]) -> Component:
    """Names and what they are, a line each."""
    return html.Dl([part for name, text in lines for part in (html.Dt(name), html.Dd(text))])


def plain_table(
    heads: Sequence[str], rows: Mapping[str, Sequence[Sequence[str]]], first_numbers: int, title: str
) -> Component:
    """A small table of words and, from column `first_numbers` on, numbers; rows stand below their heading."""
    kinds = ["words" if at < first_numbers else "number" for at in range(len(heads))]
    lines = [
        html.Tr([html.Th(head, className=kind, scope="col") for head, kind in zip(heads, kinds, strict=True)])
    ]
    body: list[Component] = []
    for heading, cells in rows.items():
        if heading:
            body.append(html.Tr(html.Th(heading, colSpan=len(heads), scope="rowgroup"), className="level"))
        body += [
            html.Tr([html.Td(cell, className=kind) for cell, kind in zip(row, kinds, strict=True)])
            for row in cells
        ]
    table = html.Table([html.Thead(lines), html.Tbody(body)])
    return marked(html.Div(table, className="scroll", tabIndex=0, role="group"), aria_label=title)


def picture(results: Results, row: int, *, href: str | None = None, note: str = "") -> Component:
    """The thumbnail of an image with its class; a link where `href` is given."""
    fine = spoken(str(results.column("fine")[row]))
    words = f"{fine}, image {row}" + (f": {note}" if note else "")
    seen = html.Img(src=link(f"thumbnails/{row}.jpg", run=results.name), alt=words, width=160, height=160)
    return html.A(seen, href=href, className="picture") if href else html.Span(seen, className="picture")


def wall(pictures: Sequence[Component], *, small: bool = False) -> Component:
    """Pictures side by side."""
    return html.Div(list(pictures), className="wall small" if small else "wall")


def message(title: str, text: Shown, kind: str = "empty") -> Component:
    """What stands where there is nothing to show (`empty`), nothing is chosen (`choose`), or something failed."""
    return html.Div(
        [html.H2(title), html.P(text)],
        className=f"message {kind}",
        role="alert" if kind == "failed" else "status",
    )


def bar(share: float | None) -> Component:
    """How far something is; None where nobody knows."""
    shown = html.Progress() if share is None else html.Progress(value=f"{share:.3f}", max="1")
    return marked(shown, aria_label="Progress")


def excuse(error: Exception) -> Component:
    """Say why a page cannot be shown, and what to do."""
    if isinstance(error, NotMade):
        made = [str(error).partition(" yet.")[0], " yet. This makes it:", html.Code(error.command)]
        return message("Nothing here yet", made)
    if isinstance(error, FgdiagError):
        return message("This cannot be shown", str(error), "failed")
    return message(
        "This page failed",
        f"{type(error).__name__}: the window in which `fgdiag app` runs says more. The other pages are not affected.",
        "failed",
    )


def select(key: str, label: str, options: Sequence[Any], value: str | None, **more: Any) -> Component:
    """Choose one of many."""
    return dmc.Select(
        id=choice(key),
        label=label,
        data=list(options),
        value=value,
        searchable=len(options) > 8,
        checkIconPosition="right",
        comboboxProps={"shadow": "md"},
        maxDropdownHeight=320,
        **more,
    )


def several(key: str, label: str, options: Sequence[Any], value: Sequence[str], **more: Any) -> Component:
    """Choose some of many."""
    return dmc.MultiSelect(
        id=choice(key),
        label=label,
        data=list(options),
        value=list(value),
        clearable=True,
        searchable=len(options) > 8,
        comboboxProps={"shadow": "md"},
        **more,
    )


def switch(key: str, label: str, options: Sequence[tuple[str, str]], value: str) -> Component:
    """Choose one of few, all in sight."""
    data = [{"value": name, "label": text} for name, text in options]
    control = dmc.SegmentedControl(id=choice(key), data=data, value=value, size="sm")
    return labelled(label, control)


def chips(key: str, label: str, options: Sequence[tuple[str, str]], value: Sequence[str]) -> Component:
    """Choose some of few, all in sight."""
    kids = [dmc.Chip(text, value=name, size="sm", variant="outline") for name, text in options]
    return labelled(
        label,
        html.Div(dmc.ChipGroup(kids, id=choice(key), multiple=True, value=list(value)), className="chips"),
    )


def labelled(label: str, control: Component) -> Component:
    """A group of controls below their common name."""
    group = html.Div([html.Span(label, className="label"), control], className="field", role="group")
    return marked(group, aria_label=label)


def controls(*parts: Component) -> Component:
    """The row of controls above a page."""
    return html.Div(list(parts), className="controls card", role="search")
