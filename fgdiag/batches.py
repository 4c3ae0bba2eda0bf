"""Which images go through the model together, and their decoding ahead of the forward pass."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import pandas as pd
from PIL import Image

from fgdiag.decode import KEPT_PIXELS
from fgdiag.errors import ImageUnreadable
from fgdiag.image_set import ImageSet

PIXELS_SIDE = 16
"""The baseline `pixels` is the image at this side: 768 numbers."""
THUMBNAIL_SIDE = 160
"""Pixels of the longest side."""
BATCH_PIXELS = 4 * KEPT_PIXELS
"""Decoded images of one batch, so that a block of 60-megapixel scans stays below a gigabyte."""
DECODERS = 4
AHEAD = 1
"""Batches decoded while the model works on one."""


@dataclass(frozen=True)
class Decoded:
    """One image of a batch; without a picture where it cannot be read."""

    row: int
    picture: Image.Image | None = None
    pixels: np.ndarray | None = None
    """(768,) float32 in [0, 1]: 16 rows of 16 RGB values."""
    thumbnail: bytes = b""
    failure: str = ""


def to_extract(table: pd.DataFrame) -> np.ndarray:
    """(images,) bool: which images of a set are looked at; excluded ones are not."""
    return (table["split"] != "excluded").to_numpy()


def plan(table: pd.DataFrame, rows: range, batch_size: int) -> list[list[int]]:
    """Part the images of a block into batches of similar size, so that little is padding.

    Returns
    -------
    list of list of int
        Rows of the image table; all of the block that are to be extracted, each once.
    """
    part = table.iloc[rows.start : rows.stop]
    wanted = np.flatnonzero(to_extract(part)) + rows.start
    width, height = (table[name].to_numpy(np.int64)[wanted] for name in ("width", "height"))
    order = np.lexsort((wanted, width, width * height))
    batches: list[list[int]] = []
    held = 0
    for at in order:
        pixels = min(int(width[at] * height[at]), KEPT_PIXELS)
        if not batches or len(batches[-1]) == batch_size or held + pixels > BATCH_PIXELS:
            batches.append([])
            held = 0
        batches[-1].append(int(wanted[at]))
        held += pixels
    return batches


def decode_one(images: ImageSet, row: int) -> Decoded:
    """Open an image and make what is kept of it besides activations; a failure is a reason, not an error."""
    try:
        picture = images.open(row)
    except ImageUnreadable as error:
        return Decoded(row, failure=str(error))
    return Decoded(row, picture, shrink(picture), jpeg(picture))


def shrink(picture: Image.Image) -> np.ndarray:
    """Average the image over a 16x16 grid: (768,) float32 in [0, 1]."""
    small = picture.convert("RGB").resize((PIXELS_SIDE, PIXELS_SIDE), Image.Resampling.BOX)
    return (np.asarray(small, np.float32) / 255).reshape(-1)


def jpeg(picture: Image.Image) -> bytes:
    """Make the thumbnail of an image."""
    small = picture.copy()
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


@contextmanager
def decoding(images: ImageSet, batches: Iterable[Sequence[int]]) -> Iterator[Iterator[list[Decoded]]]:
    """Decode batches in order, one ahead of the reader, in threads that end with the block."""
    pool = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")
    try:
        yield _ahead(pool, images, batches)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _ahead(
    pool: ThreadPoolExecutor, images: ImageSet, batches: Iterable[Sequence[int]]
) -> Iterator[list[Decoded]]:
    waiting: deque[list[Future[Decoded]]] = deque()
    for batch in batches:
        waiting.append([pool.submit(decode_one, images, row) for row in batch])
        if len(waiting) > AHEAD:
            yield [future.result() for future in waiting.popleft()]
    while waiting:
        yield [future.result() for future in waiting.popleft()]
