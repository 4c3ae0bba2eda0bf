"""The writing side of a run: start it or go on with it, block by block, so that it survives any end.

A block is up to 256 consecutive rows of the image table. All its chunks are written, then its mark; a block
without a mark is done again from its first image. So a run that was killed ends as one that was not.
Image tokens are too many to wait for the end of their block: they are written as they come, a chunk an image.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from fgdiag.errors import RunMismatch
from fgdiag.sites import TOKENS
from fgdiag.store import (
    ACTIVATIONS,
    BLOCKS,
    FORMAT,
    IMAGES,
    LOCK,
    MANIFEST,
    PARTIAL,
    Run,
    read_manifest,
    thumbnail_path,
    write_bytes,
    write_json,
    write_table,
    writing_to,
)

Place = tuple[str, str]
"""Site and readout; or site and `tokens`."""

SAME = {
    "fingerprint": "model fingerprint",
    "dtype": "dtype",
    "prompt": "prompt",
    "text": "chat text",
    "readouts": "readouts",
    "seed": "seed",
}
"""What must be as it was for a run to be gone on with, beside the images and the sites, and its name."""


@dataclass
class Block:
    """What one block adds to a run."""

    index: int
    rows: range
    activations: dict[Place, np.ndarray]
    """(rows of the block, width) float32 for each place."""
    thumbnails: dict[int, bytes]
    failures: dict[int, str]
    seconds: float = 0.0


class Recording:
    """A run that this process alone is writing; hold `fgdiag.store.locked` around it."""

    def __init__(self, path: Path, manifest: dict[str, Any], table: pd.DataFrame):
        self.path, self.manifest, self.table = path, manifest, table
        self._arrays: dict[Place, zarr.Array] = {}

    @classmethod
    def resume(cls, path: Path, asked: Mapping[str, Any], table: pd.DataFrame) -> "Recording | None":
        """Go on with the run at `path`; None where there is none, errors as `manifest_in`."""
        manifest = manifest_in(path, asked)
        return None if manifest is None else cls(path, manifest, table)

    @classmethod
    def start(cls, path: Path, asked: Mapping[str, Any], table: pd.DataFrame) -> "Recording":
        """Write the manifest and the table of images as they are before the first block."""
        manifest = {"format": FORMAT, **asked, "started": _now(), "finished": None}
        write_table(path / IMAGES, table)
        write_json(path / MANIFEST, manifest)
        return cls(path, manifest, table)

    @property
    def blocks(self) -> list[range]:
        """Rows of each block."""
        size, count = self.manifest["block"], len(self.table)
        return [range(start, min(start + size, count)) for start in range(0, count, size)]

    def missing(self) -> list[int]:
        """Blocks still to be written, with everything ready to write them."""
        missing = [i for i in range(len(self.blocks)) if not self._mark(i).exists()]
        with writing_to(self.path):
            for left_by_a_kill in self.path.rglob(f"*{PARTIAL}"):
                left_by_a_kill.unlink()
            (self.path / BLOCKS).mkdir(exist_ok=True)
            if missing:
                self._ready_arrays(fresh=len(missing) == len(self.blocks))
        return missing

    def write(self, block: Block) -> None:
        """Write the chunks and thumbnails of a block, then its mark."""
        rows = slice(block.rows.start, block.rows.stop)
        with writing_to(self.path):
            for place, values in block.activations.items():
                self._arrays[place][rows] = values
        self._write_thumbnails(block)
        mark = {
            "rows": [block.rows.start, block.rows.stop],
            "failures": {str(row): reason for row, reason in sorted(block.failures.items())},
            "seconds": round(block.seconds, 3),
        }
        write_json(self._mark(block.index), mark)

    def write_tokens(self, site: str, rows: Sequence[int], grids: np.ndarray) -> None:
        """Write the tokens of some images of a block that has no mark yet.

        Parameters
        ----------
        rows
            Rows of the image table.
        grids
            (rows, tokens, width) float16.
        """
        array = self._arrays[site, TOKENS]
        with writing_to(self.path):
            for row, grid in zip(rows, grids, strict=True):
                array[row] = grid

    def lower_batch_size(self, size: int) -> None:
        """Keep a batch size that fits, for the blocks to come and for whoever goes on with this run."""
        self.manifest["batch_size"] = size
        write_json(self.path / MANIFEST, self.manifest)

    def failures(self) -> dict[int, str]:
        """Rows that could not be read in the blocks written so far, each with the reason."""
        marks = [
            json.loads(self._mark(i).read_text()) for i in range(len(self.blocks)) if self._mark(i).exists()
        ]
        return {int(row): reason for mark in marks for row, reason in mark["failures"].items()}

    def finish(self) -> Run:
        """Write what became of each image, and say in the manifest that the run is whole."""
        failures = self.failures()
        status = [failures.get(row, status) for row, status in enumerate(self.table["status"])]
        table = self.table.assign(status=pd.Series(status, index=self.table.index, dtype="str"))
        write_table(self.path / IMAGES, table)
        marks = [json.loads(self._mark(i).read_text()) for i in range(len(self.blocks))]
        self.manifest |= {
            "unreadable": sum(reason != "ok" for reason in status),
            "seconds": round(sum(mark["seconds"] for mark in marks), 3),
            "finished": _now(),
        }
        write_json(self.path / MANIFEST, self.manifest)
        return Run.open(self.path)

    def _ready_arrays(self, *, fresh: bool) -> None:
        store = self.path / ACTIVATIONS
        if fresh:  # killed while the arrays were laid out, they may be there in part
            shutil.rmtree(store, ignore_errors=True)
            self._lay_out(store)
        group = zarr.open_group(LocalStore(store), mode="r+")
        for site, name in self._places():
            array = group[f"{site['site']}/{name}"]
            if isinstance(array, zarr.Array):
                self._arrays[site["site"], name] = array

    def _lay_out(self, store: Path) -> None:
        group = zarr.create_group(LocalStore(store), zarr_format=3)
        count = len(self.table)
        for site, name in self._places():
            whole = name == TOKENS
            inner = (site[TOKENS], site["width"]) if whole else (site["width"],)
            group.create_array(
                f"{site['site']}/{name}",
                shape=(count, *inner),
                chunks=(1 if whole else min(self.manifest["block"], count), *inner),
                chunk_key_encoding={"name": "default", "separator": "." if whole else "/"},
                dtype="float16" if whole else "float32",
                fill_value=float("nan"),
                # Activations are noise to a compressor: a tenth at most, for much time. But a bfloat16 model
                # leaves bits of a float16 empty, a quarter of all, which counts where there are gigabytes.
                compressors=ZstdCodec(level=1) if whole else None,
            )

    def _places(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Each site of the manifest with each of its arrays."""
        for site in self.manifest["sites"]:
            for name in (*site["readouts"], *([TOKENS] if TOKENS in site else [])):
                yield site, name

    def _write_thumbnails(self, block: Block) -> None:
        for row, jpeg in block.thumbnails.items():
            path = thumbnail_path(self.path, row, self.manifest["block"])
            with writing_to(self.path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, jpeg)

    def _mark(self, index: int) -> Path:
        return self.path / BLOCKS / f"{index:05d}.json"


def manifest_in(path: Path, asked: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Read the manifest of the run at `path`; None where a new run can be started there.

    Parameters
    ----------
    asked
        What the run must have been made with, as far as that is known yet.

    Raises
    ------
    RunMismatch
        There is something else than a run, or a run that was made with something else.
    NoSpace
        It is a file, or lies below one.
    """
    if (path / MANIFEST).exists():
        manifest = read_manifest(path)
        _refuse_other(path, manifest, asked or {})
        return manifest
    _refuse_foreign(path)
    return None


def _refuse_foreign(path: Path) -> None:
    """Write nothing into a folder that holds something else."""
    found: list[str] = []
    with writing_to(path), suppress(FileNotFoundError):
        found = os.listdir(path)
    # A run killed before its manifest was written has a table of images and perhaps a part of a file.
    ours = (LOCK, IMAGES)
    others = sorted(name for name in found if name not in ours and not name.endswith(PARTIAL))
    if others:
        raise RunMismatch(
            f"{path} is no run of fgdiag and not empty (it holds {', '.join(others[:3])}); "
            "give a new or an empty folder."
        )


def _refuse_other(path: Path, recorded: Mapping[str, Any], asked: Mapping[str, Any]) -> None:
    differ = {key for key in SAME if key in asked and recorded[key] != asked[key]}
    if "prompt" in differ:
        differ.discard("text")  # the prompt is in it
    differences = [
        f"{name} {_short(recorded[key])}, not {_short(asked[key])}"
        for key, name in SAME.items()
        if key in differ
    ]
    if "fingerprint" in differ and recorded["model"] != asked["model"]:
        differences[0] = f"model {recorded['model']}, not {asked['model']}"
    if "images" in asked and recorded["images"]["digest"] != asked["images"]["digest"]:
        differences.append(f"images {_images(recorded)}, not {_images(asked)}")
    if "sites" in asked and recorded["sites"] != asked["sites"]:
        differences.append(_other_sites(recorded["sites"], asked["sites"]))
    if differences:
        raise RunMismatch(
            f"{path} was recorded with {'; '.join(differences)}. Ask for the same, or give another folder."
        )


def _other_sites(recorded: list[dict[str, Any]], asked: list[dict[str, Any]]) -> str:
    def only(these: list[dict[str, Any]], others: list[dict[str, Any]]) -> str:
        names = [
            f"{site['site']} ({site['width']}: {'+'.join(site['readouts'])}{_tokens(site)})"
            for site in these
            if site not in others
        ]
        return f"{', '.join(names[:4])}{', ...' if len(names) > 4 else ''}" or "nothing more"

    return f"sites {only(recorded, asked)}, not {only(asked, recorded)}"


def _tokens(site: dict[str, Any]) -> str:
    return f"+{site[TOKENS]} tokens" if TOKENS in site else ""


def _images(manifest: Mapping[str, Any]) -> str:
    images = manifest["images"]
    return f"{images['name']} ({images['count']}, digest {images['digest'][:8]})"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}...{text[-17:]}"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
