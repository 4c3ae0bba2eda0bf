"""A run on disk: one model, one image set, one prompt, and what flowed through the model.

    run.json            what was asked for, of which model and images; `finished` is set last
    images.parquet      one row an image, with the reason where it could not be read
    activations.zarr/   Zarr v3, array `<site>/<readout>` of shape (images, width), float32; where they are
                        kept, `<site>/tokens` of shape (images, tokens, width), float16, a chunk an image
    blocks/00003.json   the mark that block 3 of the image table is wholly written
    thumbnails/00003/   one JPEG an image of block 3
    results/            what was found in the run, one file a result

Every file appears whole or not at all: it is written beside its place and renamed.
"""

import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cached_property
from io import BytesIO
from pathlib import Path
from threading import get_ident
from typing import Any, Self, TypeVar

import numpy as np
import pandas as pd
import zarr
from filelock import FileLock, Timeout
from PIL import Image
from zarr.storage import LocalStore

from fgdiag.errors import NoSpace, RunBusy, RunIncomplete, RunMismatch, SiteNotFound
from fgdiag.sites import TOKENS, Site

FORMAT = 1
"""Raised when an older fgdiag could no longer read a run rightly."""

MANIFEST, IMAGES, ACTIVATIONS = "run.json", "images.parquet", "activations.zarr"
BLOCKS, THUMBNAILS, RESULTS, LOCK = "blocks", "thumbnails", "results", ".lock"
PARTIAL = ".partial"
Made = TypeVar("Made")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)


class Run:
    """What was recorded of one model on one image set, and what was found in it since.

    Examples
    --------
    >>> run = Run.open("runs/flowers")
    >>> print(run)
    >>> run.activations("llm.12", "image").shape
    """

    def __init__(self, path: str | Path, manifest: dict[str, Any]):
        self.path, self.manifest = Path(path), manifest

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a run, finished or not.

        Raises
        ------
        RunIncomplete
            There is nothing at `path`.
        RunMismatch
            What is there is no run, or a run of a newer fgdiag.
        """
        return cls(path, read_manifest(Path(path)))

    def __repr__(self) -> str:
        """Say what, how many, how big, and from which model."""
        made_of, images = self.manifest, self.manifest["images"]
        places = sum(len(site["readouts"]) for site in made_of["sites"])
        lines = [
            f"run {self.path}: {images['count']} images of {images['name']} through "
            f"{made_of['model']} ({made_of['dtype']})",
            f"  {len(made_of['sites'])} sites, {places} readouts, {_megabytes(self.path)}",
            f"  prompt {made_of['prompt']!r}",
        ]
        if whole := [site["site"] for site in made_of["sites"] if TOKENS in site]:
            lines.append(f"  image tokens kept one by one at {', '.join(whole)}")
        if not self.finished:
            lines.append("  not finished: the command that started it goes on where it stopped")
        elif made_of.get("unreadable"):
            lines.append(
                f"  could not be read: {made_of['unreadable']}; the reasons are in {IMAGES}, column `status`"
            )
        return "\n".join(lines)

    @property
    def finished(self) -> bool:
        """Whether every image has been through the model."""
        return self.manifest.get("finished") is not None

    @cached_property
    def images(self) -> pd.DataFrame:
        """One row an image: the columns of `ImageSet.table`, with what happened to it in `status`."""
        return pd.read_parquet(self.path / IMAGES)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Every recorded site, in the order of the forward pass."""
        return tuple(sorted(Site.parse(site["site"]) for site in self.manifest["sites"]))

    def readouts(self, site: Site | str) -> tuple[str, ...]:
        """Readouts recorded at a site; `SiteNotFound` where it was not recorded."""
        return tuple(self._recorded(str(site))["readouts"])

    def activations(self, site: Site | str, readout: str) -> np.ndarray:
        """Read one readout of one site.

        Returns
        -------
        (images, width) float32
            Rows of images that could not be read, or that are excluded, are NaN.

        Raises
        ------
        SiteNotFound
            The site or the readout was not recorded.
        RunIncomplete
            The run has not been finished.
        """
        recorded = self._recorded(str(site))
        if readout not in recorded["readouts"]:
            raise SiteNotFound(
                f"No readout {readout!r} at {site}; this run has {', '.join(recorded['readouts'])} there."
            )
        return np.asarray(self._array(f"{site}/{readout}")[:], dtype=np.float32)

    def has_tokens(self, site: Site | str) -> bool:
        """Whether the image tokens of a site are kept one by one; `SiteNotFound` where it was not recorded."""
        return TOKENS in self._recorded(str(site))

    def tokens(self, site: Site | str) -> zarr.Array:
        """Open the image tokens of a site; they are read when they are indexed.

        Returns
        -------
        (images, tokens, width) float16
            A chunk is an image. Rows of images that could not be read, or that are excluded, are NaN. Numbers
            beyond 65504 were set to it.

        Raises
        ------
        SiteNotFound
            The site was not recorded, or its tokens were not kept.
        RunIncomplete
            The run has not been finished.

        Examples
        --------
        >>> run.tokens("projector")[3]
        """
        if not self.has_tokens(site):
            kept = [recorded["site"] for recorded in self.manifest["sites"] if TOKENS in recorded]
            raise SiteNotFound(
                f"The tokens at {site} were not kept, only those at {', '.join(kept) or 'no site'}. "
                f"Record a new run with `--tokens {site}`."
            )
        return self._array(f"{site}/{TOKENS}")

    def thumbnail(self, row: int) -> Image.Image:
        """Open the small picture of an image, its longest side 160 pixels or less.

        Raises
        ------
        RunIncomplete
            There is none, because the image could not be read, is excluded, or has not been reached.
        """
        path = thumbnail_path(self.path, row, self.manifest["block"])
        if not path.exists():
            raise RunIncomplete(f"{self.path} has no thumbnail of image {row}.")
        with Image.open(path) as picture:
            return picture.convert("RGB")

    def result_path(self, name: str) -> Path:
        """Where the file `name` (with its suffix) of `results/` lies or shall lie; the folder exists."""
        path = self.path / RESULTS / name
        with writing_to(self.path):
            path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, value: object) -> None:
        """Keep a result as `results/<name>.json`; NaN is refused, for other readers do not know it."""
        write_json(self.result_path(f"{name}.json"), value)

    def read_json(self, name: str) -> Any:
        """Read back what `write_json` kept; `RunIncomplete` where it has not been written, `RunMismatch` of a ruin."""
        with _whole(self._existing(f"{name}.json")) as file:
            return json.loads(file.read_text(encoding="utf-8"))

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        """Keep a result as `results/<name>.parquet`."""
        write_table(self.result_path(f"{name}.parquet"), table)

    def read_table(self, name: str) -> pd.DataFrame:
        """Read back what `write_table` kept; `RunIncomplete` where it has not been written, `RunMismatch` of a ruin."""
        with _whole(self._existing(f"{name}.parquet")) as file:
            return pd.read_parquet(file)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who writes this run; `RunBusy` where another process is."""
        with locked(self.path):
            yield

    def _recorded(self, site: str) -> dict[str, Any]:
        known = {recorded["site"]: recorded for recorded in self.manifest["sites"]}
        if site not in known:
            raise SiteNotFound(f"{SiteNotFound.among(site, known)} This run recorded {', '.join(known)}.")
        return known[site]

    def _array(self, name: str) -> zarr.Array:
        if not self.finished:
            raise RunIncomplete(f"{self.path} is not finished; run the command that started it once more.")
        return zarr.open_array(LocalStore(self.path / ACTIVATIONS), path=name, mode="r")

    def _existing(self, name: str) -> Path:
        path = self.path / RESULTS / name
        if not path.exists():
            raise RunIncomplete(
                f"{self.path} has no {RESULTS}/{name} yet; run the step that writes it first."
            )
        return path


def read_manifest(path: Path) -> dict[str, Any]:
    """Read `run.json` of a run; errors as `Run.open`."""
    if not path.exists():
        runs = [found.parent.name for found in path.parent.glob(f"*/{MANIFEST}")]
        close = get_close_matches(path.name, runs, n=1)
        hint = (
            f"did you mean {path.with_name(close[0])}?"
            if close
            else f"`fgdiag extract MODEL IMAGES -o {path}` makes one."
        )
        raise RunIncomplete(f"There is no run {path}; {hint}")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        found = manifest["format"]
    except (OSError, ValueError, KeyError, TypeError):
        raise RunMismatch(f"{path} is no run of fgdiag; expected a folder with a {MANIFEST} in it.") from None
    if not isinstance(found, int) or found > FORMAT:
        writer = manifest.get("versions", {}).get("fgdiag", "another version")
        raise RunMismatch(
            f"{path} was written by fgdiag {writer} in format {found}; this fgdiag reads up to format "
            f"{FORMAT}. Update with `pip install -U fgdiag`."
        )
    return manifest


def thumbnail_path(run: Path, row: int, block: int) -> Path:
    """Where the thumbnail of an image lies; one folder a block, so that none gets too large to list."""
    return run / THUMBNAILS / f"{row // block:05d}" / f"{row:07d}.jpg"


@contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the lock of a run, which the system lets go when the process ends, however it ends."""
    with writing_to(run):
        run.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise RunBusy(
                f"{run} is being written by another process; wait until it ends, or choose another folder."
            ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def writing_to(run: Path) -> Iterator[None]:
    """Say it in one line where the disk is full or the folder cannot be written."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise NoSpace(f"{run} is a file, or lies below one; give a folder that can be written.") from None
    except OSError as error:
        if error.errno in _FULL:
            raise NoSpace(
                f"The disk is full, so {run} cannot grow ({error.strerror}). All that was written is kept: "
                "make room and start the same command again."
            ) from error
        if error.errno in _FORBIDDEN:
            raise NoSpace(f"{run} cannot be written ({error.strerror}); give another folder.") from error
        raise


@contextmanager
def _whole(file: Path) -> Iterator[Path]:
    """Tell of a file that something else than fgdiag has cut or changed."""
    try:
        yield file
    except ValueError:
        raise RunMismatch(
            f"{file} is damaged; delete it and run the command that makes it once more."
        ) from None


def if_made(read: Callable[[], Made]) -> Made | None:
    """What `read` gives of a run; None where the step that makes it has not been taken."""
    try:
        return read()
    except RunIncomplete:
        return None


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    # A name of this writer's own, or another one's part would be taken from under it.
    partial = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}{PARTIAL}")
    with writing_to(path.parent):
        try:
            partial.write_bytes(data)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)  # where the disk is full, even a part is too much
            raise


def write_json(path: Path, value: object) -> None:
    """Write JSON so that it is there whole or not at all."""
    write_bytes(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n")


def same_settings(file: Path, asked: Mapping[str, Any], what: str) -> None:
    """Keep in a file what something is made with; `RunMismatch` where it holds other settings already.

    Parameters
    ----------
    what
        What lies in the file's folder, as the reader would say it: `a training`.
    """
    plain = json.loads(json.dumps(asked))
    if not file.exists():
        write_json(file, plain)
    known = json.loads(file.read_text())
    for name, value in plain.items():
        if known.get(name) != value:
            raise RunMismatch(
                f"{file.parent} holds {what} with {name} = {known.get(name)}, but {value} is asked now: "
                "go on with the old value, or choose another folder."
            )


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a Parquet table so that it is there whole or not at all."""
    buffer = BytesIO()
    table.to_parquet(buffer)
    write_bytes(path, buffer.getvalue())


def _megabytes(path: Path) -> str:
    return f"{sum(file.stat().st_size for file in path.rglob('*') if file.is_file()) / 1e6:,.1f} MB"
