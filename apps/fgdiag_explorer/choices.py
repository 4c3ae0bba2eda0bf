"""What a link says: every choice a reader made stands in the query of the address, and nowhere else."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlencode

from dash import dcc

RUN = "run"

Name = TypeVar("Name", bound=str)


class Choices:
    """The query of an address, where anything may stand: what is not on offer is passed over.

    Parameters
    ----------
    search
        `?run=grocery&level=fine`, as the browser has it.
    """

    def __init__(self, search: str | None) -> None:
        self._given = parse_qs((search or "").lstrip("?"), keep_blank_values=True, max_num_fields=200)

    def text(self, key: str) -> str | None:
        """Return the value as it was given."""
        return self._given.get(key, [None])[0]

    def one(self, key: str, among: Sequence[Name], default: Name | None = None) -> Name:
        """Return a value that is on offer; else the default, which is the first one if none is given."""
        given = self.text(key)
        return next((name for name in among if name == given), default if default is not None else among[0])

    def some(self, key: str, among: Sequence[Name], default: Sequence[Name] = ()) -> list[Name]:
        """Return those values that are on offer, in the order of `among`; the default where the key is missing."""
        if key not in self._given:
            return list(default)
        return [value for value in among if value in self._given[key]]

    def number(self, key: str, least: int, most: int, default: int | None = None) -> int | None:
        """Return a whole number within bounds; else the default."""
        given = self.text(key) or ""
        if not given.isdecimal() or len(given) > 12 or not least <= int(given) <= most:
            return default
        return int(given)


def link(page: str, /, **choices: Any) -> str:
    """Return the address of a page, relative to where the explorer stands; None and empty choices are left out.

    Examples
    --------
    >>> link("images", run="demo", wrong=["answer", "projector"])
    'images?run=demo&wrong=answer&wrong=projector'
    """
    given = {key: value for key, value in choices.items() if value not in (None, "", [])}
    return f"{page}?{urlencode(given, doseq=True)}" if given else page


def choice(key: str) -> dict[str, str]:
    """Return the id of a control whose value stands in the address under `key`."""
    return {"type": "choice", "key": key}


def remembered(
    defaults: Mapping[str, Any],
    steps: Mapping[str, Sequence[str]] | None = None,
    *,
    of_one: Sequence[str] = (),
) -> dcc.Store:
    """What the browser needs to turn controls into an address and back.

    Parameters
    ----------
    defaults
        Value of each control of the page where the address does not say it.
    steps
        Names of the steps of a slider, which itself only knows their numbers.
    of_one
        Controls that are about the one image that is shown: it stays when they change.
    """
    kept = {"defaults": dict(defaults), "steps": dict(steps or {}), "ofOne": ["level", *of_one]}
    return dcc.Store(id="controls", data=kept)
