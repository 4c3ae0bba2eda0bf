"""The reference of commands, written from the command line itself when the site is built."""

from collections.abc import Iterator
from typing import Any

import typer
from fgdiag_cli.main import app

MARK = "<!-- every command -->"
AUTO = ("help",)
NO_BRACES = str.maketrans("", "", "{}")
IN_A_CELL = str.maketrans({"|": r"\|", "<": "&lt;", "*": r"\*", "$": "&#36;", "{": "&#123;", "}": "&#125;"})


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put every command, as its `--help` tells it, where the mark stands."""
    return markdown.replace(MARK, "\n".join(_commands())) if MARK in markdown else markdown


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    context = group.make_context("fgdiag", [], resilient_parsing=True)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        inner = command.make_context(name, [], parent=context, resilient_parsing=True)
        usage = " ".join(command.collect_usage_pieces(inner)).translate(NO_BRACES)
        yield f"\n## {name}\n\n```\nfgdiag {name} {usage}\n```\n"
        yield from _told(command.help or "")
        yield from _parameters(command, inner)


def _told(text: str) -> Iterator[str]:
    """The help, with what follows `For example:` as commands."""
    words, _, examples = text.partition("For example:")
    yield words.strip().replace("$", "&#36;") + "\n"
    if examples:
        yield "```\n" + "\n".join(line.strip() for line in examples.strip().splitlines()) + "\n```\n"


def _parameters(command: Any, context: Any) -> Iterator[str]:
    """A table of arguments and options, without a head that says so."""
    rows = [
        row for parameter in command.params if parameter.name not in AUTO for row in _row(parameter, context)
    ]
    if rows:
        yield from ("| argument or option | what it is | default |", "|---|---|---|", *rows, "")


def _row(parameter: Any, context: Any) -> Iterator[str]:
    option = parameter.param_type_name == "option"
    named = ", ".join(f"`{name}`" for name in parameter.opts) if option else ""
    metavar = f"`{parameter.metavar}`".replace("|", r"\|") if parameter.metavar else ""
    default = parameter.get_default(context, call=False)
    told = "" if default in (None, False) or callable(default) or not option else f"`{default}`"
    words = " ".join((parameter.help or "").split()).translate(IN_A_CELL)
    yield f"| {named} {metavar} | {words} | {'required' if parameter.required else told} |"
