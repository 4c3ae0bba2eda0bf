"""Notebooks as pages: their cells, and a link to the file, when the site is built."""

import re
from pathlib import Path
from typing import Any

import nbformat

MARK = re.compile(r"<!-- notebook (\S+) -->")
FOLDER = Path(__file__).parents[1] / "notebooks"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the cells of a notebook where the mark `<!-- notebook NAME.ipynb -->` stands."""
    return MARK.sub(lambda found: _cells(FOLDER / found[1]), markdown)


def _cells(path: Path) -> str:
    first, *others = nbformat.read(path, as_version=4).cells
    shown = [
        cell.source if cell.cell_type == "markdown" else f"```python\n{cell.source}\n```" for cell in others
    ]
    return "\n\n".join([first.source, f"As a file: [{path.name}]({path.name}).", *shown])
