"""Maps of one image: what in it speaks for one class and against another, and whether that can be believed."""

from dataclasses import dataclass

import numpy as np
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.attribution import kept_maps, target_words
from fgdiag_probes.map_methods import ENTRY_WORDS, METHODS, method_named
from fgdiag_probes.maps import Map
from fgdiag_probes.style import minus

from fgdiag.prompts import spoken
from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices
from fgdiag_explorer.library import Library
from fgdiag_explorer.panel import Made, panel
from fgdiag_explorer.results import ANSWER, Results
from fgdiag_explorer.tasks import MapTask

KIND = "maps"
KEYS = ("for", "against", "method", "target")
"""What in the address says which map is meant."""
METHOD = "ig"
WIDTH = 240
"""Pixels of a map on the page, at least."""


@dataclass(frozen=True)
class Contrast:
    """The map that is meant: of which image, for and against which class (as on disk), by what, of what."""

    row: int
    own: str
    other: str
    method: str
    target: str

    @classmethod
    def of(cls, results: Results, choices: Choices) -> "Contrast | None":
        """Read it from an address; what is not on offer is passed over. None where no image or no pair is meant."""
        row = choices.number("image", 0, len(results.images) - 1)
        known = results.known("fine")
        if row is None or len(known) < 2 or results.column("status")[row] != "ok":
            return None
        own = choices.one("for", known, str(results.column("fine")[row]))
        others = [name for name in known if name != own]
        other = choices.one("against", others, likely_other(results, row, own))
        method = choices.one("method", list(METHODS), METHOD)
        return cls(row, own, other, method, choices.one("target", targets(results)))

    def is_of(self, results: Results, one: Map) -> bool:
        """Whether a map is the one that is meant."""
        _, entry = method_named(self.method)
        classes = (spoken(self.own), spoken(self.other))
        alike = (one.method, one.entry, one.classes) == (self.method, entry, classes)
        return alike and one.target == target_words(results.run, self.target, self.own, self.other)


def likely_other(results: Results, row: int, own: str) -> str:
    """Return the class that an image is taken for: by the answer, by the last site that is wrong; else a sibling."""
    at, names = results.position(row), results.labels.fine_names
    said = (
        []
        if at is None
        else [results.reading(_best(results, site), "fine").said[at] for site in results.sites]
    )
    wrong = [str(names[code]) for code in said if code >= 0 and str(names[code]) != own]
    if wrong:
        return wrong[-1]
    kind = dict(zip(results.column("fine"), results.column("coarse"), strict=True))
    others = [name for name in results.known("fine") if name != own]
    return next((name for name in others if kind[name] == kind.get(own)), others[0])


def targets(results: Results) -> list[str]:
    """What can be explained: class names, letters, and the linear probe at every site."""
    sites = [str(site) for site in results.run.sites if str(site) != "pixels"]
    return ["name", "letter", *(f"probe:{site}" for site in sites)]


def chooser(results: Results, choices: Choices) -> Component:
    """The controls that say which map is meant."""
    asked = Contrast.of(results, choices)
    classes = [{"value": name, "label": spoken(name)} for name in results.known("fine")]
    words = {"name": "Class names", "letter": "Letters of a choice"}
    offered = [
        {"value": name, "label": words.get(name, f"Linear {name.replace(':', ' at ')}")}
        for name in targets(results)
    ]
    methods = [
        {"value": name, "label": _first_up(one.words.partition(" (")[0])} for name, one in METHODS.items()
    ]
    given = {key: choices.text(key) for key in ("for", "against")}
    own, other = ("", "") if asked is None else (spoken(asked.own), spoken(asked.other))
    return parts.controls(
        parts.select("for", "What speaks for", classes, given["for"], clearable=True, placeholder=own),
        parts.select("against", "and not for", classes, given["against"], clearable=True, placeholder=other),
        parts.select("method", "Method", methods, asked.method if asked else METHOD, allowDeselect=False),
        parts.select("target", "as told by", offered, asked.target if asked else "name", allowDeselect=False),
    )


def part(results: Results, choices: Choices, library: Library) -> list[Component]:
    """The button, and all maps of this image, the one that is meant first."""
    return [panel(KIND, MADE, results, choices, library)]


def _task(results: Results, choices: Choices) -> MapTask | None:
    asked = Contrast.of(results, choices)
    if asked is None:
        return None
    path, run = str(results.run.path), results.run
    return MapTask(path, asked.row, asked.own, asked.other, asked.method, asked.target, run)


def _there(results: Results, choices: Choices) -> bool:
    asked = Contrast.of(results, choices)
    return asked is not None and any(asked.is_of(results, one) for one in kept_maps(results.run, asked.row))


def _show(results: Results, choices: Choices) -> list[Component]:
    asked = Contrast.of(results, choices)
    if asked is None:
        return []
    maps = kept_maps(results.run, asked.row)
    meant = {id(one): asked.is_of(results, one) for one in maps}
    maps.sort(key=lambda one: not meant[id(one)])
    first = [] if any(meant.values()) else [_not_there(asked)]
    return [*first, html.Div([_card(results, one, meant[id(one)]) for one in maps], className="maps")]


MADE = Made("Make this map", _task, _show, _there)


def _not_there(asked: Contrast) -> Component:
    _, entry = method_named(asked.method)
    how = f"{METHODS[asked.method].words.partition(' (')[0]} {ENTRY_WORDS[entry]}"
    return html.P(
        f"There is no map yet of what speaks for {spoken(asked.own)} and not for {spoken(asked.other)}, by {how}.",
        className="lead",
    )


def _card(results: Results, one: Map, meant: bool) -> Component:
    name = f"{results.name}-image-{one.row}-{one.name.replace('@', '-')}"
    tall, wide = one.picture.shape[:2]
    height = round(np.clip(WIDTH * tall / wide, 160, 460)) + 24
    figure = parts.figure_card(one.figure(beside=False), one.method_words, name=name, height=height)
    return html.Div([figure, _checks(one)], className="map card meant" if meant else "map card")


def _checks(one: Map) -> Component:
    lines = [
        (
            "Explained",
            f"{one.target}: {_number(one.score)}; of the blurred picture {_number(one.blurred_score)}",
        )
    ]
    seen = one.faithfulness
    if seen is None:
        lines.append(("Check", "not made"))
    else:
        moved = float(np.max(seen.moved_gains))
        lines.append(
            (
                "Check",
                f"{_number(seen.gain)} in the map's order; moved elsewhere at most {_number(moved)}, from the centre "
                f"outwards {_number(seen.centre_gain)}",
            )
        )
    if one.on_marks:
        on, area = round(100 * one.on_marks.on_marks), round(100 * one.on_marks.marks_of_bird)
        lines.append(("On the marks", f"{on} % of the map; they take up {area} % of the bird"))
    passed = seen is not None and seen.passed
    word = html.P(one.remark or ("Passes its check." if passed else ""), className="" if passed else "failed")
    return html.Div([word, parts.facts(lines)], className="checks")


def _number(value: float) -> str:
    return minus(f"{value:+.2f}")


def _best(results: Results, site: str) -> tuple[str, str]:
    return ANSWER if site == ANSWER[0] else results.best("fine", site)


def _first_up(text: str) -> str:
    return text[:1].upper() + text[1:]
