"""The panel beside something that a model has to make: a button that asks for it or stops it, and how far it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dash import MATCH, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component

from fgdiag.errors import FgdiagError
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import Results
from fgdiag_explorer.worker import Progress, Task

EVERY = 800
"""Milliseconds between two looks at the work, while there is some."""
NOBODY = ""


@dataclass(frozen=True)
class Made:
    """Something that a page can have made.

    Attributes
    ----------
    words
        What the button says: `Make this map`.
    task
        From a run and what the address says to what shall be made; None where there is nothing to be made.
    show
        What has been made so far.
    there
        Whether just that has been made already.
    """

    words: str
    task: Callable[[Results, Choices], Task | None]
    show: Callable[[Results, Choices], list[Component]]
    there: Callable[[Results, Choices], bool]


def panel(kind: str, made: Made, results: Results, choices: Choices, library: Library) -> Component:
    """The button, how far the work is, and what has been made; the browser then asks for it by itself."""
    task = made.task(results, choices)
    label, told, idle = _state(made, task, None, library)
    gone = task is None or made.there(results, choices)
    button = html.Button(label, id=_id("ask", kind), className="act", n_clicks=0, hidden=gone)
    told_at = html.Div(told, id=_id("told", kind), className="told-work", role="status")
    return html.Div(
        [
            html.Div([button, told_at], className="work"),
            dcc.Interval(id=_id("tick", kind), interval=EVERY, disabled=idle),
            html.Div(made.show(results, choices), id=_id("made", kind)),
        ]
    )


def register(app: Dash, library: Library, made: Mapping[str, Made]) -> None:
    """Let the buttons of all panels work; who asks is told by a number that each browser window has drawn."""

    @app.callback(
        Output(_id("ask", MATCH), "children"),
        Output(_id("ask", MATCH), "hidden"),
        Output(_id("told", MATCH), "children"),
        Output(_id("tick", MATCH), "disabled"),
        Output(_id("made", MATCH), "children"),
        Input(_id("ask", MATCH), "n_clicks"),
        Input(_id("tick", MATCH), "n_intervals"),
        State(_id("tick", MATCH), "disabled"),
        State("me", "data"),
        State("place", "data"),
        State("url", "search"),
    )
    def _work(clicks: int, _ticks: int, idle: bool, me: Any, place: dict[str, Any], search: str) -> Any:
        kind = ctx.outputs_list[0]["id"]["key"]
        one, results, choices = made[kind], library.chosen(place.get("run")), Choices(search)
        task = one.task(results, choices)
        if task is None:
            return no_update, True, no_update, True, no_update
        who = str(me)[:64] if me else NOBODY
        clicked = bool(clicks) and (ctx.triggered_id or {}).get("type") == "ask"
        error = _ask_or_stop(library, who, task) if clicked and who else ""
        there = one.there(results, choices)
        progress = library.worker.progress(who, task)
        label, told, now_idle = _state(one, task, progress, library, error)
        just_made = there and not idle and now_idle
        gone = there and now_idle
        return (
            label,
            gone,
            told if not gone else "",
            now_idle,
            one.show(results, choices) if just_made else no_update,
        )


def _id(kind: str, key: Any) -> dict[str, Any]:
    return {"type": kind, "key": key}


def _ask_or_stop(library: Library, who: str, task: Task) -> str:
    """The button stops what it has begun."""
    progress = library.worker.progress(who, task)
    if progress and progress.active:
        library.worker.cancel(who, task)
        return ""
    try:
        library.worker.ask(who, task)
    except FgdiagError as error:
        return str(error)
    return ""


def _state(
    made: Made, task: Task | None, progress: Progress | None, library: Library, error: str = ""
) -> tuple[str, list[Any], bool]:
    """What the button says, what stands beside it, and whether there is nothing to wait for."""
    if task is None:
        return made.words, [], True
    if progress and progress.active:
        return "Stop", _told(progress), False
    if progress and progress.state == "failed":
        error = progress.error
    if library.worker.has_open(task.run):
        label = made.words
    else:
        label = f"Open the model and {made.words[:1].lower()}{made.words[1:]}"
    if error:
        return (
            label,
            [html.Strong(error, className="failed"), " Without the explorer: ", html.Code(task.command)],
            True,
        )
    return label, [], True


def _told(progress: Progress) -> list[Any]:
    if progress.state == "waiting":
        others = f"{progress.ahead} other{'s' * (progress.ahead != 1)} first" if progress.ahead else "next"
        return [html.Span(f"Waiting: {others}.")]
    if progress.state == "opening":
        return [parts.bar(None), html.Span(f"Opening the model, {progress.seconds:.0f} s …")]
    share = progress.done / progress.total if progress.total else None
    done = (
        f"{progress.done} of about {progress.total} versions of the picture scored, "
        if progress.total > 1
        else ""
    )
    return [parts.bar(share), html.Span(f"{done}{progress.seconds:.0f} s")]
