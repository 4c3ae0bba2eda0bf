"""Read the files that published sets come with; what is missing or broken is named in one line."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fgdiag.errors import ImagesNotUsable


def find_root(folder: Path, needed: Sequence[str], *, inside: Sequence[str] = ()) -> Path:
    """Return the folder, or one of those inside it, that holds all that is needed.

    An archive often unpacks to a folder of its own, so both it and the folder around it are taken.

    Raises
    ------
    ImagesNotUsable
        None of them does; the message names what the nearest one lacks.
    """
    roots = [folder, *(folder / name for name in inside)]
    lacking = {root: [name for name in needed if not (root / name).exists()] for root in roots}
    best = min(roots, key=lambda root: len(lacking[root]))
    if not lacking[best]:
        return best
    below = f" or in {' or '.join(f'{name}/' for name in inside)} below it" if inside else ""
    raise ImagesNotUsable(
        f"{best} has no {' and no '.join(lacking[best])}; expected {', '.join(needed)} in the folder given{below}."
    )


def read_lines(path: Path) -> list[str]:
    """Return the lines that hold something, without white space at either end."""
    return [stripped for line in path.read_text("utf-8-sig").splitlines() if (stripped := line.strip())]


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Split each line at its first blank: `12 001.Black_footed_Albatross`."""
    pairs = [line.partition(" ") for line in read_lines(path)]
    if broken := [first for first, _, rest in pairs if not rest]:
        raise ImagesNotUsable(
            f"{path} has the line {broken[0]!r}; expected two parts and a blank between them."
        )
    return [(first, rest.strip()) for first, _, rest in pairs]


def read_mat(path: Path, key: str) -> Any:
    """Return one variable of a MATLAB file, cells and structs as lists and dicts."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    try:
        variables = loadmat(path, simplify_cells=True)
    except (MatReadError, NotImplementedError, TypeError, ValueError) as error:
        raise ImagesNotUsable(f"{path} cannot be read as a MATLAB file: {error}") from error
    if key not in variables:
        held = [name for name in variables if not name.startswith("__")]
        raise ImagesNotUsable(f"{path} holds {', '.join(held) or 'nothing'}; expected the variable {key}.")
    return variables[key]


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return a CSV file as text, after a look whether it has these columns."""
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if missing := [column for column in columns if column not in frame.columns]:
        raise ImagesNotUsable(
            f"{path} has the columns {', '.join(map(str, frame.columns))}; expected {', '.join(missing)} too."
        )
    return frame


def folders(root: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name, hidden ones left out."""
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files of a folder that have one of these suffixes, sorted by name."""
    return sorted(
        entry
        for entry in folder.iterdir()
        if entry.name.lower().endswith(suffixes) and not entry.name.startswith(".")
    )
