"""The reference of a package: its public names, each with its docstring, when the site is built."""

import re
from collections.abc import Iterator
from importlib import import_module
from inspect import isclass
from typing import Any

MARK = re.compile(r"<!-- public names of (\w+) -->")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a package's functions and classes where the mark `<!-- public names of PACKAGE -->` stands."""
    return MARK.sub(lambda found: "\n".join(_names(found[1])), markdown)


def _names(package: str) -> Iterator[str]:
    room = import_module(package)
    public = [getattr(room, name) for name in sorted(room.__all__, key=str.lower)]
    yield from _section("Functions", [one for one in public if not isclass(one)])
    yield from _section("Classes", [one for one in public if isclass(one)])


def _section(title: str, public: list[Any]) -> Iterator[str]:
    yield f"\n## {title}\n"
    for one in public:
        yield f"::: {one.__module__}.{one.__qualname__}\n    options:\n      show_root_full_path: false\n"
