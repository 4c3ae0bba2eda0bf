"""A folder of drawn pictures that is complete or absent, and that knows the settings it was drawn with."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fgdiag.errors import ImagesNotUsable, NoSpace

Settings = Mapping[str, int]


@dataclass(frozen=True)
class DrawnFolder:
    """A kind of such folder: what it is called, and the file in it that holds its settings."""

    what: str
    settings_file: str


def check_settings(settings: Settings, least: Settings) -> None:
    """Raise `ImagesNotUsable` for the first setting that is too small."""
    for name, lowest in least.items():
        if settings[name] < lowest:
            raise ImagesNotUsable(f"{name} is {settings[name]}; it must be at least {lowest}.")


def whole_folder(out: Path, kind: DrawnFolder, settings: Settings, draw: Callable[[Path], None]) -> Path:
    """Let `draw` fill a draft folder and move it to `out`; nothing is drawn where it is there with these settings.

    Raises
    ------
    ImagesNotUsable
        `out` exists and is something else, or was drawn with other settings.
    NoSpace
        The disk is full, or the folder cannot be written.
    """
    if out.exists():
        return _same(out, kind, settings)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
            draft = Path(scratch) / "draft"
            draw(draft)
            (draft / kind.settings_file).write_text(json.dumps(settings, indent=2) + "\n")
            _publish(draft, out, kind, settings)
    except OSError as error:
        raise NoSpace(
            f"Cannot write the {kind.what} to {out}: {error.strerror or error}. Choose another folder."
        ) from error
    return out


def _same(out: Path, kind: DrawnFolder, settings: Settings) -> Path:
    try:
        found = json.loads((out / kind.settings_file).read_text())
    except (OSError, ValueError):
        raise ImagesNotUsable(
            f"{out} exists and is no {kind.what}. Choose another folder, or remove it."
        ) from None
    differ = [name for name in settings if found.get(name) != settings[name]]
    if differ:
        had = ", ".join(f"{name} {found.get(name)} (asked: {settings[name]})" for name in differ)
        raise ImagesNotUsable(f"{out} holds a {kind.what} with {had}. Choose another folder, or remove it.")
    return out


def _publish(draft: Path, out: Path, kind: DrawnFolder, settings: Settings) -> None:
    """Move the finished draft into place; another process may have been quicker."""
    try:
        draft.rename(out)
    except OSError:
        if not out.exists():
            raise
        _same(out, kind, settings)
        shutil.rmtree(draft)
