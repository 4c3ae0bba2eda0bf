"""The shell of the explorer: header, pages, and what is asked of the server when the address changes."""

import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update
from dash.development.base_component import Component

import fgdiag
from fgdiag.errors import FgdiagError
from fgdiag.progress import say
from fgdiag_explorer import parts
from fgdiag_explorer.choices import RUN, Choices, choice, link
from fgdiag_explorer.files import Table, serve_files
from fgdiag_explorer.library import Library
from fgdiag_explorer.pages import compare, confusion, curves, data, embedding, images, overview
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
"""By name in the address. A page has `controls(results, choices, library)` and `body(results, choices, library)`."""

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


def create_app(runs: Iterable[str | Path], *, prefix: str = "/", token: str | None = None) -> Dash:
    """Build the explorer of some runs; `app.server` is a WSGI application.

    Parameters
    ----------
    runs
        Folders of runs.
    prefix
        Path below which a proxy shows the explorer, such as `/fgdiag/`.
    token
        What a browser must show to be let in; None where only this machine can reach the server.

    Raises
    ------
    RunIncomplete, RunMismatch
        There is no run in one of the folders.

    Examples
    --------
    >>> app = create_app(["runs/demo"])
    >>> app.run()
    """
    library, prefix = Library(runs), f"/{prefix.strip('/')}/" if prefix.strip("/") else "/"
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


def navigation(page: str, run: str) -> list[Component]:
    """Return links to all pages, the present one marked."""
    links = {name: html.A(name.capitalize(), href=link(name, run=run)) for name in PAGES}
    parts.marked(links[page], aria_current="page")
    return list(links.values())


def _tables() -> dict[str, Table]:
    return {name: table for page in PAGES.values() for name, table in getattr(page, "TABLES", {}).items()}


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
        return render_body(library, place, choices["search"])

    for page in PAGES.values():
        if hasattr(page, "register"):
            page.register(app, browser)
