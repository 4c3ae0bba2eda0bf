"""The field guide as a folder of labelled images, with a table and the masks beside them."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image

from fgdiag.errors import ImagesNotUsable
from fgdiag.fieldguide.drawn_folder import DrawnFolder, check_settings, whole_folder
from fgdiag.fieldguide.plate import draw_bird
from fgdiag.fieldguide.species import PARTS, SPECIES, species_named
from fgdiag.progress import track

JPEG_QUALITY = 92
EDITION = 1
"""Goes up whenever the pixels drawn from a seed change."""

_FOLDER = DrawnFolder("field guide", "fieldguide.json")
_TABLE, _PARTS, _MASKS = "table.parquet", "parts.json", ".masks"


@dataclass(frozen=True)
class _Order:
    """One picture to draw."""

    species: str
    split: str
    index: int
    seed: int

    @property
    def stem(self) -> str:
        fine, coarse = self.species.replace(" ", "-"), self.species.split()[1]
        return f"{self.split}/{coarse}/{fine}/{self.index:03d}"


def write_fieldguide(
    out: Path | str,
    *,
    per_class: int = 20,
    test_per_class: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    size: int = 256,
) -> Path:
    """Draw the field guide into a folder: `{train,test}/<genus>/<species>/NNN.jpg`, table and masks.

    The folder is complete or absent. When it is there already with the same settings, nothing is drawn. The
    same settings give the same bytes, however many workers draw them.

    Parameters
    ----------
    out
        The folder to make. Beside the images it gets `table.parquet` (one row an image: `path`, `fine`,
        `coarse`, `split`, `seed`, `masks`, how each part looks, pose and scene), `parts.json` (the order of
        the parts) and, in a hidden folder, one PNG an image whose bit k is the mask of part k.
    per_class, test_per_class
        Images of each of the 40 species in `train` and in `test`; by default half as many in `test`, and
        never fewer than 2.
    seed
        What all the pictures are drawn from.
    workers
        Processes that draw; by default one for each core.
    size
        Side of the pictures in pixels.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ImagesNotUsable
        `out` exists and is something else, or a field guide with other settings.
    NoSpace
        The disk is full, or the folder cannot be written.
    """
    out = Path(out)
    tested = max(2, per_class // 2) if test_per_class is None else test_per_class
    settings = {
        "edition": EDITION,
        "per_class": per_class,
        "test_per_class": tested,
        "seed": seed,
        "size": size,
    }
    check_settings(settings, {"per_class": 1, "test_per_class": 0, "seed": 0, "size": 64})

    def draw(draft: Path) -> None:
        _draw_all(draft, _orders(per_class, tested, seed), size, workers or os.cpu_count() or 1)
        (draft / _PARTS).write_text(json.dumps(PARTS) + "\n")

    return whole_folder(out, _FOLDER, settings, draw)


def load_masks(out: Path | str, path: str) -> dict[str, np.ndarray]:
    """Read the masks of one image of a written field guide.

    Parameters
    ----------
    out
        The folder `write_fieldguide` made.
    path
        The image's `path` in its table, relative to `out`.

    Returns
    -------
    dict
        For each of `PARTS` what can be seen of it, bool (size, size).

    Raises
    ------
    ImagesNotUsable
        There is no such image, or `out` is no field guide.
    """
    file = Path(out) / _MASKS / Path(path).with_suffix(".png")
    try:
        parts = json.loads((Path(out) / _PARTS).read_text())
        with Image.open(file) as image:
            planes = np.asarray(image)
    except OSError as error:
        raise ImagesNotUsable(
            f"No masks for {path} in {out}. Expected a path of the table.parquet of a written field guide."
        ) from error
    return {part: (planes >> bit & 1).astype(bool) for bit, part in enumerate(parts)}


def image_seed(seed: int, species: str, split: str, index: int) -> int:
    """Seed of one picture, made from what it is alone, so that more pictures never change those before."""
    return int(
        np.random.SeedSequence((seed, crc32(f"{species}/{split}".encode()), index)).generate_state(1)[0]
    )


def _orders(per_class: int, tested: int, seed: int) -> list[_Order]:
    return [
        _Order(species.name, split, index, image_seed(seed, species.name, split, index))
        for split, count in (("train", per_class), ("test", tested))
        for species in SPECIES
        for index in range(count)
    ]


def _draw_all(draft: Path, orders: list[_Order], size: int, workers: int) -> None:
    for folder in {(draft / root / order.stem).parent for order in orders for root in ("", _MASKS)}:
        folder.mkdir(parents=True, exist_ok=True)
    # loky starts fresh processes: a fork would freeze where the caller has threads (torch, zarr), and a plain
    # spawn would run the caller's script again where it has no `if __name__ == "__main__"`.
    pool = Parallel(n_jobs=min(workers, len(orders)), return_as="generator")
    drawn = pool(delayed(_draw_one)(draft, size, order) for order in orders)
    rows = list(track(drawn, description="drawing birds", total=len(orders)))
    pd.DataFrame(rows).to_parquet(draft / _TABLE, index=False)


def _draw_one(draft: Path, size: int, order: _Order) -> dict[str, str | int | float]:
    species = species_named(order.species)
    plate = draw_bird(species, seed=order.seed, size=size)
    path, masks = f"{order.stem}.jpg", f"{_MASKS}/{order.stem}.png"
    plate.image.save(draft / path, quality=JPEG_QUALITY)
    planes = sum(plate.masks[part].astype(np.uint8) << bit for bit, part in enumerate(PARTS))
    Image.fromarray(np.asarray(planes, dtype=np.uint8)).save(draft / masks)
    named = {"path": path, "fine": species.name, "coarse": species.genus, "split": order.split}
    return {**named, "seed": order.seed, "masks": masks, **plate.attributes}
