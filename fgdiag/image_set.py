"""A set of labelled images: one table, and the images behind it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from PIL import Image

from fgdiag.decode import decode
from fgdiag.errors import ImageUnreadable

SPLITS = ("train", "val", "test", "excluded")


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """Labelled images: a table of what is known of each, and a way to open them.

    Examples
    --------
    >>> images = open_images("flowers/")
    >>> print(images)
    >>> images.table.loc[images.table.split == "test", ["source", "fine"]]
    >>> images.open(0)
    """

    name: str
    """Name of the folder, table or dataset."""
    table: pd.DataFrame
    """One row an image, columns as in `ImageRow`, index 0 to n - 1."""
    read: Callable[[str], bytes]
    """From the column `source` to the bytes of the file."""
    ignored: tuple[str, ...] = ()
    """What lies in the source and is no image: other files, folders without an image."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Classes that cannot be both trained on and tested, each with the reason."""
    warnings: tuple[str, ...] = ()
    """One line for each thing to know before a number is believed."""
    source: str = ""
    """What `open_images` takes to open them again: a whole path, a hub id or the name of a known set."""
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """From a fine label to what else its class is called, where the source says so (see `fgdiag.known_sets`)."""

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.table)

    def __repr__(self) -> str:
        """Say what, how many, in which classes and splits, and what to know before a number is believed."""
        return "\n".join([self._headline(), *(f"  {line}" for line in self._details())])

    @property
    def levels(self) -> tuple[str, ...]:
        """`("fine", "coarse")`, or `("fine",)` where coarse labels say nothing else than fine ones.

        A coarse level has at least two classes, and fewer than the fine level, among the images in use.
        """
        fine, coarse = (len(set(labels)) for labels in self._labels_in_use())
        return ("fine", "coarse") if 1 < coarse < fine else ("fine",)

    @cached_property
    def digest(self) -> str:
        """Hash over id, fine, coarse, split and group of every row in order: 128 bits in hex."""
        total = blake2b(digest_size=16)
        for row in self.table[["id", "fine", "coarse", "split", "group"]].itertuples(index=False):
            total.update("\x1f".join((*row, "\x1e")).encode())
        return total.hexdigest()

    def open(self, row: int) -> Image.Image:
        """Decode one image: RGB, upright, first frame (see `fgdiag.decode.decode`).

        Raises
        ------
        ImageUnreadable
            With the reason alone as message, as a run records it.
        """
        status = self.table["status"].iloc[row]
        if status != "ok":
            raise ImageUnreadable(status)
        return decode(self.read(self.table["source"].iloc[row]))

    def subset(self, rows: ArrayLike) -> "ImageSet":
        """Keep some rows, given by position or by a boolean mask of shape (images,), in the order given."""
        return replace(self, table=self.table.iloc[np.asarray(rows)].reset_index(drop=True))

    def _labels_in_use(self) -> tuple[list[str], list[str]]:
        used = self.table[self.table["split"] != "excluded"]
        return list(used["fine"]), list(used["coarse"])

    def _headline(self) -> str:
        fine, coarse = (len(set(labels)) for labels in self._labels_in_use())
        kinds = f" in {coarse} coarse classes" if "coarse" in self.levels else ""
        return f"{self.name}: {len(self)} images of {fine} classes{kinds}"

    def _details(self) -> Iterable[str]:
        sizes = Counter(self.table["split"])
        yield ", ".join(
            f"{split} {sizes[split]}" for split in ("train", "val", "test", "excluded") if sizes[split]
        )
        unreadable = self.table[self.table["status"] != "ok"]
        if len(unreadable):
            first = unreadable.iloc[0]
            yield f"{len(unreadable)} unreadable, such as {first['source']}: {first['status']}"
        if self.ignored:
            yield f"{len(self.ignored)} ignored as no image, such as {self.ignored[0]}"
        yield from (f"note: {line}" for line in self.warnings)
