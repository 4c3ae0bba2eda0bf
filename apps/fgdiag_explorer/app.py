"""The shell of the explorer: header, pages, and what is asked of the server when the address changes."""

import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

import fgdiag
from fgdiag.errors import FgdiagError
from fgdiag.progress import say
from fgdiag_explorer import parts
from fgdiag_explorer.choices import RUN, Choices, choice, link
from fgdiag_explorer.files import Table, serve_files
from fgdiag_explorer.library import Library
from fgdiag_explorer.pages import compare, confusion, curves, data, embedding, images, overview
from fgdiag_explorer.panel import register as register_panels
from fgdiag_explorer.results import Results
from fgdiag_explorer.safety import secure

PAGES: dict[str, ModuleType] = {
    "overview": overview,
    "curves": curves,
    "confusion": confusion,
    "images": images,
    "embedding": embedding,
    "compare": compare,
    "data": data,
}
"""By name in the address. A page has `controls(results, choices, library)` and `body(results, choices, library)`.

It may have `TABLES` that can be downloaded; `PARTS` of the body that have choices of their own (their keys in the
address, and what stands in them); and what can be `MADE` on it, see `fgdiag_explorer.panel`.
"""

ACCENT = [
    "#fff4ec",
    "#ffe5d3",
    "#fdc9a4",
    "#fcab71",
    "#ff9248",
    "#f27b26",
    "#d2600f",
    "#b04a00",
    "#8f3c00",
    "#6e2e00",
]
THEME: Any = {
    "primaryColor": "accent",
    "primaryShade": {"light": 7, "dark": 4},
    "colors": {"accent": ACCENT},
    "autoContrast": True,
    "defaultRadius": "md",
    "fontFamily": "system-ui, 'Segoe UI', sans-serif",
    "respectReducedMotion": True,
}

INDEX = """<!doctype html>
<html lang="en">
<head>
{%metas%}
<title>{%title%}</title>
<script src="PREFIXassets/scheme.js"></script>
{%favicon%}
{%css%}
</head>
<body>
{%app_entry%}
<noscript>The explorer needs JavaScript. `report.html` in the folder of a run does not need the explorer.</noscript>
{%config%}
{%scripts%}
{%renderer%}
</body>
</html>
"""


def create_app(
    runs: Iterable[str | Path], *, prefix: str = "/", token: str | None = None, device: str = "auto"
) -> Dash:
    """Build the explorer of some runs; `app.server` is a WSGI application.

    Parameters
    ----------
    runs
        Folders of runs.
    prefix
        Path below which a proxy shows the explorer, such as `/fgdiag/`.
    token
        What a browser must show to be let in; None where only this machine can reach the server.
    device
        Where the models of the runs are opened, once somebody asks for that.

    Raises
    ------
    RunIncomplete, RunMismatch
        There is no run in one of the folders.

    Examples
    --------
    >>> app = create_app(["runs/demo"])
    >>> app.run()
    """
    library, prefix = Library(runs, device=device), f"/{prefix.strip('/')}/" if prefix.strip("/") else "/"
    app = Dash(
        "fgdiag_explorer",
        title="fgdiag",
        update_title="",
        assets_folder=str(Path(__file__).parent / "assets"),
        assets_ignore="scheme.js",
        use_pages=False,
        requests_pathname_prefix=prefix,
        routes_pathname_prefix="/",
        index_string=INDEX.replace("PREFIX", prefix),
        meta_tags=[{"name": "color-scheme", "content": "light dark"}],
        suppress_callback_exceptions=True,
        enable_mcp=False,
    )
    app.layout = _shell(library)
    _register(app, library)
    serve_files(app.server, library, _tables())
    secure(app, prefix, token)
    return app


def render_page(library: Library, place: dict[str, Any], search: str) -> list[Component]:
    """Return the controls of a page and its body, both as the address says."""
    page, choices = PAGES[place["page"]], Choices(search)
    results = _results(library, place)
    if isinstance(results, Component):
        return [results]
    try:
        above = page.controls(results, choices, library)
    except Exception as error:
        return [_excuse(error)]
    below = html.Div(render_body(library, place, search), id="body")
    return [*above, below, dcc.Store(id="shown", data=place)]


def render_body(library: Library, place: dict[str, Any], search: str) -> Any:
    """Return what stands below the controls."""
    results = _results(library, place)
    if isinstance(results, Component):
        return results
    try:
        return PAGES[place["page"]].body(results, Choices(search), library)
    except Exception as error:
        return _excuse(error)


def render_part(library: Library, place: dict[str, Any], search: str, key: str) -> Any:
    """Return what stands in one part of the body, which has choices of its own."""
    try:
        _, part = _of(PAGES[place["page"]], "PARTS")[key]
        return part(library.chosen(place.get("run")), Choices(search), library)
    except Exception as error:
        return _excuse(error)


def _parts_changed(place: dict[str, Any], choices: dict[str, Any]) -> set[str]:
    """Parts of the page that change alone; none where more than these does."""
    owner = {key: part for part, (keys, _) in _of(PAGES[place["page"]], "PARTS").items() for key in keys}
    changed = choices.get("changed") or ["?"]
    return {owner[key] for key in changed} if all(key in owner for key in changed) else set()


def _of(page: ModuleType, name: str) -> dict[str, Any]:
    return getattr(page, name, {})


def navigation(page: str, run: str) -> list[Component]:
    """Return links to all pages, the present one marked."""
    links = {name: html.A(name.capitalize(), href=link(name, run=run)) for name in PAGES}
    parts.marked(links[page], aria_current="page")
    return list(links.values())


def _tables() -> dict[str, Table]:
    return {name: table for page in PAGES.values() for name, table in _of(page, "TABLES").items()}


def _results(library: Library, place: dict[str, Any]) -> Results | Component:
    try:
        return library.chosen(place.get("run"))
    except Exception as error:
        return _excuse(error)


def _excuse(error: Exception) -> Component:
    if not isinstance(error, FgdiagError):
        say("".join(traceback.format_exception(error)))
    return parts.excuse(error)


def _shell(library: Library) -> Component:
    return dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Store(id="pages", data={"pages": list(PAGES), "runs": list(library)}),
            dcc.Store(id="place"),
            dcc.Store(id="choices"),
            dcc.Store(id="me", storage_type="session"),
            html.A("Skip to the page", href="#page", className="skip"),
            html.Header(
                html.Div(
                    [
                        html.Div(
                            [html.A("fgdiag", href="overview", className="brand"), _runs(library), _tools()],
                            className="bar",
                        ),
                        parts.marked(html.Nav(id="nav"), aria_label="Pages"),
                    ],
                    className="inner",
                )
            ),
            html.Main(
                parts.message("One moment", "The run is being read.", "working"), id="page", tabIndex=-1
            ),
            html.Footer(
                f"fgdiag {fgdiag.__version__}. Everything on these pages is read from the folders of the runs."
            ),
        ],
        theme=THEME,
        defaultColorScheme="auto",
    )


def _runs(library: Library) -> Component:
    names = list(library)
    chosen = dmc.Select(
        id=choice(RUN),
        data=names,
        value=names[0],
        allowDeselect=False,
        searchable=len(names) > 8,
        size="sm",
        className="runs",
        readOnly=len(names) == 1,
        comboboxProps={"shadow": "md"},
    )
    return parts.marked(chosen, aria_label="Run")


def _tools() -> Component:
    return html.Div(
        [
            html.Button(
                "Copy link", id="copy", className="quiet", title="Copy the address of this very view"
            ),
            parts.marked(
                html.Button(
                    html.Span(className="halves"), id="scheme", className="round", title="Light or dark"
                ),
                aria_label="Switch between light and dark",
            ),
        ],
        className="tools",
    )


def _register(app: Dash, library: Library) -> None:
    def browser(name: str, *wires: Any, **options: Any) -> None:
        app.clientside_callback(ClientsideFunction("fgdiag", name), *wires, **options)

    browser(
        "place",
        Output("place", "data"),
        Output("choices", "data"),
        Input("url", "pathname"),
        Input("url", "search"),
        State("place", "data"),
        State("pages", "data"),
    )
    browser(
        "toAddress",
        Output("url", "search"),
        Input({"type": "choice", "key": ALL}, "value"),
        State({"type": "choice", "key": ALL}, "id"),
        State("controls", "data", allow_optional=True),
        State("shown", "data", allow_optional=True),
        State("pages", "data"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    browser(
        "toControls",
        Input("choices", "data"),
        State("controls", "data", allow_optional=True),
        State("pages", "data"),
        prevent_initial_call=True,
    )

    browser("me", Output("me", "data"), Input("pages", "data"), State("me", "data"))

    @app.callback(
        Output("page", "children"), Output("nav", "children"), Input("place", "data"), State("url", "search")
    )
    def _page(place: dict[str, Any] | None, search: str) -> Any:
        if not place:
            return no_update, no_update
        return render_page(library, place, search), navigation(place["page"], place["run"])

    @app.callback(
        Output("body", "children"),
        Input("choices", "data"),
        State("place", "data"),
        prevent_initial_call=True,
    )
    def _body(choices: dict[str, Any], place: dict[str, Any]) -> Any:
        if _parts_changed(place, choices):
            return no_update
        return render_body(library, place, choices["search"])

    @app.callback(
        Output({"type": "part", "key": ALL}, "children"),
        Input("choices", "data"),
        State("place", "data"),
        prevent_initial_call=True,
    )
    def _parts(choices: dict[str, Any], place: dict[str, Any]) -> Any:
        keys = [one["id"]["key"] for one in ctx.outputs_list]
        changed = _parts_changed(place, choices)
        return [
            render_part(library, place, choices["search"], key) if key in changed else no_update
            for key in keys
        ]

    register_panels(
        app, library, {kind: one for page in PAGES.values() for kind, one in _of(page, "MADE").items()}
    )
    for page in PAGES.values():
        if hasattr(page, "register"):
            page.register(app, browser)
