"""What a source of labelled images says about them, and the table row that each of them becomes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


class Listed(NamedTuple):
    """One image as its source names it; None where the source says nothing."""

    source: str
    """Path relative to the source's folder, or `row 17`."""
    fine: str
    coarse: str | None = None
    split: str | None = None
    """`train`, `val` or `test`."""
    group: str | None = None


@dataclass(frozen=True)
class Listing:
    """All images of a source, in a fixed order, and how to get at their bytes."""

    name: str
    images: list[Listed]
    read: Callable[[str], bytes]
    """From `Listed.source` to the bytes of the file, or `ImageUnreadable`. Called from several threads."""
    ignored: tuple[str, ...] = ()
    """What lies in the source and is no image: other files, empty class folders."""
    warnings: tuple[str, ...] = ()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """From a fine label to what else its class is called."""


class ImageRow(NamedTuple):
    """One row of `ImageSet.table`."""

    id: str
    """Content hash: BLAKE2b with 128 bits of the file's bytes, in hex."""
    source: str
    fine: str
    coarse: str
    """The fine label again where the source has no coarse one."""
    split: str
    """`train`, `val`, `test` or `excluded`."""
    group: str
    """Images of one group stay on one side of a split that is made here."""
    width: int
    """Pixels, as displayed; 0 where unknown."""
    height: int
    status: str
    """`ok`, or why the image cannot be read."""

    @property
    def readable(self) -> bool:
        """Whether the header of the file is that of an image."""
        return self.status == "ok"
