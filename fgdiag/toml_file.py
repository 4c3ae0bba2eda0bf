"""Read a description that a user has written in TOML, and name what in it cannot be meant."""

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_toml(path: str | Path, what: str, refusal: type[Exception]) -> dict[str, Any]:
    """Read a TOML file; `refusal`, in one line, where it cannot be read as `what` it should be."""
    try:
        with Path(path).open("rb") as file:
            return tomllib.load(file)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise refusal(f"{path} cannot be read as a {what}: {error}") from None


def check_table(what: str, table: Any, known: Iterable[str], refusal: type[Exception]) -> None:
    """Raise `refusal` where something is no table, or has a key that is not among the known ones."""
    if not isinstance(table, Mapping):
        raise refusal(f"{what} is {table!r}; expected a table with some of {', '.join(known)}.")
    if unknown := [name for name in table if name not in known]:
        raise refusal(f"{what} has no {unknown[0]!r}; expected some of {', '.join(known)}.")
