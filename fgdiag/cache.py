"""Where fgdiag keeps what it has fetched or built once, such as the backbones of the demo VLM."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from fgdiag.errors import NoSpace

_UNWRITABLE = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
}


def cache_folder() -> Path:
    """`$FGDIAG_CACHE`, else `fgdiag` in the user's cache folder."""
    chosen = os.environ.get("FGDIAG_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fgdiag"


@contextmanager
def built_once(folder: Path) -> Iterator[Path | None]:
    """Build `folder` so that it is whole or absent, by one process at a time.

    Yields
    ------
    Path or None
        An empty folder to build in, renamed to `folder` when the block ends well;
        None when `folder` is there already and nothing is to be done.

    Raises
    ------
    NoSpace
        When the disk fills up or the place cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            if folder.exists():
                yield None
                return
            with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
                building = Path(scratch) / folder.name
                building.mkdir()
                yield building
                building.rename(folder)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        free = shutil.disk_usage(_existing(folder)).free / 2**30
        raise NoSpace(
            f"Cannot write {folder}: {error.strerror} ({free:.1f} GiB free). "
            "Free some space, or point FGDIAG_CACHE at another folder."
        ) from error


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
