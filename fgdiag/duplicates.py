"""Near-duplicates: images that show the same thing again, re-encoded, resized, or taken a moment later.

A copy in the training split of what is tested is an answer given away. A perceptual hash of every image finds
candidates, and the correlation of tiny colour thumbnails confirms them.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from fgdiag.decode import glance
from fgdiag.errors import ImageUnreadable
from fgdiag.listing import ImageRow
from fgdiag.progress import track

if TYPE_CHECKING:
    from fgdiag.image_set import ImageSet

HASH_SIDE, COLOUR_SIDE = 32, 16
"""Pixels of the thumbnails. On a finer one than 16 x 16, the edges of a copy cropped by 2 % no longer meet."""
MOST_BITS_APART = 10
"""Of 63. Half of all bits differ between two images that have nothing to do with each other."""
LEAST_CORRELATION = 0.94
"""So 98 of 100 copies cropped by 2 % at each edge are found, and all that were shrunk to a third and re-encoded. Of
2,400 drawn birds that differ by small marks no pair is taken for one; of 5,421 grocery photographs 33 pairs are, and
each of them shows one product in one place."""
SHOW_PROGRESS_FROM = 10_000
IMAGES_A_TASK = 64
ROWS_AT_ONCE = 512

Read = Callable[[str], bytes]


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """Pairs of images that are nearly the same.

    Attributes
    ----------
    table
        One row a pair, the most alike first: `source`, `fine` and `split` of one image, `other_source`,
        `other_fine`, `other_split` of the other, `distance` of their hashes in bits of 63, and the `correlation`
        of their thumbnails in [-1, 1].
    """

    table: pd.DataFrame

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.table)

    @property
    def across_split(self) -> "NearDuplicates":
        """The pairs of a training (or validation) and a test image."""
        splits = self.table[["split", "other_split"]]
        across = splits.isin(["train", "val"]).any(axis=1) & splits.isin(["test"]).any(axis=1)
        return NearDuplicates(self.table.loc[across])

    def frame(self) -> pd.DataFrame:
        """One row a pair."""
        return self.table.reset_index(drop=True)

    def json(self) -> dict[str, Any]:
        """A dictionary for each pair, and how many of them lie across the split."""
        return {"pairs": self.table.to_dict("records"), "across_split": len(self.across_split)}


class Pairs(NamedTuple):
    """Near-duplicates by position, each pair once; the four arrays have one entry a pair."""

    one: np.ndarray
    other: np.ndarray
    distance: np.ndarray
    correlation: np.ndarray


_NO_ROWS = np.zeros(0, np.int64)
NO_PAIRS = Pairs(_NO_ROWS, _NO_ROWS, _NO_ROWS, np.zeros(0, np.float32))


def near_duplicates(images: "ImageSet") -> NearDuplicates:
    """Find the near-duplicates in a set of labelled images.

    Parameters
    ----------
    images
        Every image of the set is looked at, excluded ones too; unreadable ones are left out.

    Returns
    -------
    NearDuplicates
        A pair is at most 10 of 63 bits apart in its perceptual hashes (pHash: signs of the lowest frequencies of
        the cosine transform, [1]_) and its 16 x 16 colour thumbnails correlate by 0.94 or more.

    Notes
    -----
    Found are copies that were resized, re-encoded, brightened or cropped by about 2 %, and photographs of one
    object from one place. Mirrored, turned or more closely cropped copies are not. Line drawings on a plain
    ground are so alike that pairs of them mean little.

    .. [1] C. Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010.
    """
    table = images.table
    readable = np.flatnonzero((table["status"] == "ok").to_numpy())
    pairs = find_pairs(images.read, table["source"].iloc[readable].tolist())
    order = np.argsort(-pairs.correlation, kind="stable")
    columns = ["source", "fine", "split"]
    one, other = (table[columns].iloc[readable[at[order]]].reset_index(drop=True) for at in pairs[:2])
    found = pd.concat([one, other.add_prefix("other_")], axis=1)
    found["distance"], found["correlation"] = pairs.distance[order], pairs.correlation[order].round(4)
    return NearDuplicates(found)


def find_pairs(read: Read, sources: Sequence[str]) -> Pairs:
    """Compare every image with every other; one that cannot be decoded has no near-duplicate.

    Parameters
    ----------
    read
        From a source to the bytes of its file; called from several threads.
    sources
        Images, in the order that the positions in the result count.
    """
    hashes, colours = _prints(read, sources)
    parts = [_pairs_of(hashes, colours, start) for start in range(0, len(sources), ROWS_AT_ONCE)]
    return Pairs(*(np.concatenate([part[k] for part in parts]) for k in range(4))) if parts else NO_PAIRS


def join_groups(rows: Sequence[ImageRow], pairs: Pairs) -> list[ImageRow]:
    """Give near-duplicates one group, together with whatever shared a group with one of them."""
    names, codes = np.unique([row.group for row in rows], return_inverse=True)
    component = _components(codes[pairs.one], codes[pairs.other], len(names))
    first = np.unique(component, return_index=True)[1]  # names are sorted, so this does not hang on the order
    return [
        row._replace(group=str(names[first[component[code]]])) for row, code in zip(rows, codes, strict=True)
    ]


def exclude_taught_copies(rows: Sequence[ImageRow], pairs: Pairs) -> tuple[list[ImageRow], list[str]]:
    """Set training images aside that a chain of near-duplicates joins to a test image.

    Returns
    -------
    rows : list of ImageRow
        Those images with the split `excluded`. Where the split was made with their groups, there are none.
    warnings : list of str
        A line that says how many, and names one.
    """
    component = _components(pairs.one, pairs.other, len(rows))
    tested = {component[at]: row for at, row in enumerate(rows) if row.split == "test"}
    copies = {
        at: tested[component[at]]
        for at, row in enumerate(rows)
        if row.split in ("train", "val") and component[at] in tested
    }
    if not copies:
        return list(rows), []
    kept = [row._replace(split="excluded") if at in copies else row for at, row in enumerate(rows)]
    at, test = next(iter(copies.items()))
    return kept, [
        f"training images excluded as near-duplicates of test images ({len(copies)}), such as "
        f"{rows[at].source} (of {test.source})"
    ]


def _prints(read: Read, sources: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Perceptual hashes (images,) uint64, and colours (images, 768) uint8; of nothing where one is unreadable."""
    parts = [sources[at : at + IMAGES_A_TASK] for at in range(0, len(sources), IMAGES_A_TASK)]
    pool = ThreadPoolExecutor()
    try:
        looked = pool.map(lambda part: [_look(read, source) for source in part], parts)
        if len(sources) >= SHOW_PROGRESS_FROM:
            looked = track(
                looked, description="looking for near-duplicates", total=len(sources), size=IMAGES_A_TASK
            )
        pictures = np.array([picture for part in looked for picture in part], np.uint8)
    finally:
        pool.shutdown(cancel_futures=True)
    pictures = pictures.reshape(-1, HASH_SIDE, HASH_SIDE, 3)
    fold = HASH_SIDE // COLOUR_SIDE
    colours = pictures.reshape(-1, COLOUR_SIDE, fold, COLOUR_SIDE, fold, 3).mean((2, 4), np.float32)
    return _hashes(pictures), colours.round().astype(np.uint8).reshape(len(sources), -1)


def _look(read: Read, source: str) -> np.ndarray:
    try:
        return np.asarray(glance(read(source), HASH_SIDE))
    except ImageUnreadable:
        return np.zeros((HASH_SIDE, HASH_SIDE, 3), np.uint8)


def _hashes(pictures: np.ndarray) -> np.ndarray:
    """(images,) uint64: which of the 63 lowest frequencies of the grey image are above their median."""
    grey = pictures @ np.array([0.299, 0.587, 0.114], np.float32)
    low = np.asarray(dctn(grey, axes=(1, 2)))[:, :8, :8].reshape(len(grey), 64)[:, 1:]
    above = low > np.median(low, axis=1, keepdims=True)
    return above.astype(np.uint64) @ (np.uint64(1) << np.arange(63, dtype=np.uint64))


def _pairs_of(hashes: np.ndarray, colours: np.ndarray, start: int) -> Pairs:
    """Pairs of one of the images from `start` on, `ROWS_AT_ONCE` of them, with a later one."""
    apart = np.bitwise_count(hashes[start : start + ROWS_AT_ONCE, None] ^ hashes[None, start:])
    one, other = np.nonzero(np.triu(apart <= MOST_BITS_APART, 1))
    distance, one, other = apart[one, other].astype(np.int64), one + start, other + start
    correlation = np.zeros(len(one), np.float32)
    for at in range(0, len(one), ROWS_AT_ONCE):  # so that ten thousand blank pages do not fill the memory
        some = slice(at, at + ROWS_AT_ONCE)
        correlation[some] = (_unit(colours[one[some]]) * _unit(colours[other[some]])).sum(1)
    near = correlation >= LEAST_CORRELATION
    return Pairs(one[near], other[near], distance[near], correlation[near])


def _unit(colours: np.ndarray) -> np.ndarray:
    """Without their mean, and of length 1; images of one even colour, which are like everything, become 0."""
    centred = colours - colours.mean(1, keepdims=True, dtype=np.float32)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1.0)


def _components(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """(count,) number of the connected component of each node, the first one met being 0."""
    edges = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    return connected_components(edges, directed=False)[1]
