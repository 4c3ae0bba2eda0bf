"""How results are printed: a table to read, or one JSON object."""

import json
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

UNCUT = 100_000
"""Columns; wider than any table."""


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on stdout: numbers to the right, nothing cut off where stdout is no terminal."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        numeric = all(_is_number(row[i]) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = UNCUT
    print(title)
    console.print(table, markup=False)


def _is_number(value: Any) -> bool:
    return str(value)[:1].isdigit() or value == "" or str(value).startswith("-")
