"""Overview: the verdict and what it rests on, in ten seconds."""

from typing import Any

from dash import html
from dash.development.base_component import Component
from fgdiag_probes.cards import data_card, facts_line, model_card, typed_command
from fgdiag_probes.closer_look import DEPTH_WORDS, folds
from fgdiag_probes.style import LEVEL_WORDS, READOUT_WORDS, percent

from fgdiag.prompts import spoken
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, link
from fgdiag_explorer.confused import most_confused
from fgdiag_explorer.library import Library
from fgdiag_explorer.results import NotMade, Results

PAIRS = 4


def controls(_results: Results, _choices: Choices, _library: Library) -> list[Component]:
    """Nothing is to be chosen here."""
    return []


def body(results: Results, _choices: Choices, _library: Library) -> list[Component]:
    """Return the verdict, the budget, the curve, the pairs most confused, and the cards."""
    return [
        _verdict(results),
        _chain(results),
        _figures(results),
        _pairs(results),
        html.Div([_not_tested(results), _controls(results)], className="two"),
        html.Div([_model(results), _data(results)], className="two"),
        _closer_look(results),
        _again(results),
    ]


def _verdict(results: Results) -> Component:
    budget = results.budget
    what, *then = sentences(budget.verdict.sentence)
    return html.Section(
        [
            html.P(facts_line(results.run, results.labels), className="facts"),
            html.P(budget.heading, className="kicker"),
            html.H1(what, className="verdict"),
            *([html.P(" ".join(then), className="then")] if then else []),
        ],
        className="top",
    )


def sentences(text: str) -> list[str]:
    """Part the verdict: what is lost where, and what speaks against it."""
    text = text.replace(" %", "\N{NO-BREAK SPACE}%")
    what, _, then = text.partition(". Other deals")
    if not then:
        what, _, then = text.partition(". This verdict")
        return [f"{what}.", f"This verdict{then}"] if then else [text]
    return [f"{what}.", f"Other deals{then}"]


def _chain(results: Results) -> Component:
    """The depths side by side, the losing step marked."""
    level, budget = results.finest, results.budget
    rows = budget.depths.loc[(budget.depths["level"] == level) & (budget.depths["depth"] != "pixels")]
    drops = {row["to"]: row for row in budget.drops.to_dict("records") if row["level"] == level}
    steps = [_step(results, row, drops.get(row["depth"])) for row in rows.to_dict("records")]
    return parts.marked(
        html.Ol(steps, className="chain"), aria_label=f"Named right at each depth, {LEVEL_WORDS[level]}"
    )


def _step(results: Results, row: dict[Any, Any], drop: dict[Any, Any] | None) -> Component:
    lost = bool(drop and drop["significant"] and not drop["made_good"])
    change = ""
    if drop:
        points = -round(drop["drop"])
        change = f"{'+' if points > 0 else '−' if points < 0 else '±'}{abs(points)} points"
    readout, comma, method = str(row["readout"]).partition(", ")
    read = READOUT_WORDS.get(readout, readout) + comma + method
    spoken_at = "likeliest name" if row["site"] == "answer" else f"{row['site']}: {read}"
    return html.Li(
        [
            html.Span(DEPTH_WORDS.get(row["depth"], row["depth"]), className="name"),
            html.Strong(percent(row["accuracy"])),
            html.Span(f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %", className="span"),
            html.Span(change or "\N{NO-BREAK SPACE}", className="change"),
            html.Span(spoken_at, className="place"),
        ],
        className="lost" if lost else "",
    )


def _figures(results: Results) -> Component:
    level = results.finest
    return html.Div(
        [
            parts.figure_card(
                results.budget.figure(),
                "What is left at each depth; above, the change in points",
                name=f"{results.name}-budget",
                height=440,
            ),
            parts.figure_card(
                results.curves.figure(level),
                f"Read by a linear probe: {LEVEL_WORDS[level]}",
                name=f"{results.name}-curve",
                height=440,
            ),
        ],
        className="two",
    )


def _pairs(results: Results) -> Component:
    pairs, where = most_confused(results)
    cards = [_pair(results, pair) for pair in pairs.head(PAIRS).to_dict("records")]
    every = parts.quiet_link("All pairs", link("confusion", run=results.name))
    said = "in the model's answers" if where == "answer" else f"at the {DEPTH_WORDS[where]}"
    lead = f"Test images most often taken for another class, {said}."
    return parts.section("Most confused", html.Div(cards, className="pairs"), lead=lead, aside=every)


def _pair(results: Results, pair: dict[Any, Any]) -> Component:
    href = link("confusion", run=results.name, truth=pair["truth"], said=pair["said"])
    seen = [parts.picture(results, row) for row in pair["rows"][:3]]
    return html.A(
        [
            html.Span([spoken(pair["truth"]), " → ", html.B(spoken(pair["said"]))], className="names"),
            html.Span(f"{pair['taken']} of {pair['images']} test images", className="count"),
            parts.wall(seen, small=True),
        ],
        href=href,
        className="pair card",
    )


def _not_tested(results: Results) -> Component:
    lines = [html.Li(parts.with_code(line)) for line in results.budget.verdict.not_tested]
    return parts.section("Not tested", html.Ul(lines))


def _controls(results: Results) -> Component:
    lines = [("Tokens before the image", results.curves.control.sentence)]
    if results.has("evidence"):
        lines.append(("Shuffled labels", results.evidence.shuffled.sentence))
    return parts.section("Controls", html.Div(parts.facts(lines), className="told"))


def _model(results: Results) -> Component:
    return parts.section("Model", parts.facts(model_card(results.run)))


def _data(results: Results) -> Component:
    more = parts.quiet_link("Images by class", link("data", run=results.name))
    return parts.section("Data", parts.facts(data_card(results.run, results.labels)), aside=more)


def _closer_look(results: Results) -> Component:
    try:
        answers = results.answered
        found = [*folds(results.curves, results.evidence, results.stability, answers), *results.said_folds]
    except NotMade as error:
        return parts.section("A closer look", html.P([str(error)], className="lead"))
    shown = [
        html.Details(
            [
                html.Summary(fold.title),
                html.P(fold.sentence, className="lead"),
                parts.plain_table(fold.heads, fold.rows, fold.words, fold.title),
            ]
        )
        for fold in found
    ]
    numbers = html.Details(
        [
            html.Summary("The numbers behind the verdict"),
            html.Ul([html.Li(line) for line in results.budget.verdict.numbers]),
        ]
    )
    return parts.section("A closer look", html.Div([*shown, numbers], className="folds"))


def _again(results: Results) -> Component:
    return parts.section("How to get this again", html.Pre(typed_command(results.run), tabIndex=0))
