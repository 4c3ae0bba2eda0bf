"""How results are given out: a table to read, one JSON object, or a page of figures."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from fgdiag_probes.fold import Fold

UNCUT = 100_000
"""Columns; wider than any table."""


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def write_figures(path: Path, *figures: "go.Figure") -> None:
    """Write figures, one below the other, into one page; `NoSpace` where it cannot be written."""
    from fgdiag.progress import say
    from fgdiag.store import write_bytes

    drawn = [
        figure.to_html(full_html=False, include_plotlyjs=first, config={"displayModeBar": False})
        for first, figure in zip([True, *[False] * len(figures)], figures, strict=False)
    ]
    write_bytes(path, "\n".join(["<!doctype html><meta charset='utf-8'>", *drawn]).encode())
    say(f"figures: {path}")


def write_folder(folder: Path, figures: Iterable[tuple[str, "go.Figure"]]) -> None:
    """Write named figures into a folder, each a page of its own; plotly's script lies beside them once."""
    from fgdiag.progress import say
    from fgdiag.store import writing_to

    written = 0
    with writing_to(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, figure in figures:
            figure.write_html(folder / f"{name}.html", include_plotlyjs="directory")
            written += 1
    say(f"{written} figures: {folder}")


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


def print_folds(folds: "Iterable[Fold]") -> None:
    """Print tables that the report folds out; what heads their rows there is a column here."""
    for fold in folds:
        levelled = any(fold.rows)
        rows = [[level, *row] if levelled else row for level, found in fold.rows.items() for row in found]
        print_table(
            f"{fold.title}\n{fold.sentence}", ["level", *fold.heads] if levelled else fold.heads, rows
        )


def _is_number(value: Any) -> bool:
    return str(value)[:1].isdigit() or value == "" or str(value).startswith(("-", "+", "\N{MINUS SIGN}"))
