"""The command `fgdiag sets`: the published image sets that can be opened by name."""

from typing import TYPE_CHECKING, Annotated

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    from fgdiag.known_sets import KnownSet

Name = Annotated[str | None, typer.Argument(metavar="NAME", help="Tell all that is known of this one.")]


def sets(name: Name = None, as_json: options.Json = False) -> None:
    """List the published image sets that IMAGES can name.

    The name alone takes the copy on the hub; behind a colon goes the folder
    of a copy of your own, as its authors publish it.

    For example:
      fgdiag sets flowers-102
      fgdiag diagnose llava-hf/llava-1.5-7b-hf flowers-102 -o runs/flowers
      fgdiag diagnose ./my-vlm flowers-102:/data/flowers -o runs/flowers
    """
    from fgdiag.known_sets import KNOWN_SETS, facts
    from fgdiag_cli.screen import print_json

    if name is not None:
        known = facts(name)
        return print_json(known.json()) if as_json else _print_facts(known)
    if as_json:
        return print_json([known.json() for known in KNOWN_SETS.values()])
    _print_all(list(KNOWN_SETS.values()))


def _print_all(known: list["KnownSet"]) -> None:
    from fgdiag_cli.screen import print_table

    print_table(
        "Image sets",
        ["name", "classes", "images", "splits", "kinds", "by name"],
        [
            [
                one.name,
                f"{one.classes:,}",
                f"{one.images:,}",
                " ".join(one.splits) or "made",
                one.coarse.partition(":")[0].partition(",")[0] or "none",
                "hub" if one.hub else "package" if one.package else "folder only",
            ]
            for one in known
        ],
    )
    print(
        "`fgdiag sets NAME` tells more of one: source, licence, folder, what to know before a number is believed."
    )


def _print_facts(known: "KnownSet") -> None:
    for what, text in known.lines():
        print(f"{what}: {text}")
