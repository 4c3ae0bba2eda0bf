"""Labelled images in a folder tree: `<fine>/*.jpg` or `<coarse>/<fine>/*.jpg`, perhaps under splits."""

import os
from dataclasses import dataclass
from pathlib import Path

from fgdiag.decode import SUFFIXES, read_file
from fgdiag.errors import ImagesNotUsable
from fgdiag.listing import Listed, Listing
from fgdiag.splits import split_name

DEEPEST = 6
"""Folders below this depth are not looked into, so a link to a folder above ends somewhere."""

_EXPECTED = "expected <fine>/*.jpg or <coarse>/<fine>/*.jpg, with or without train/, val/, test/ above"

Parts = tuple[str, ...]
"""A path below the root: `("train", "Apple", "Gala", "1.jpg")`."""


@dataclass(frozen=True)
class FileReader:
    """Reads files by their path, relative to a root or absolute."""

    root: Path

    def __call__(self, source: str) -> bytes:
        """Return the bytes of the file; raise `ImageUnreadable` with the reason where there are none."""
        return read_file(self.root / source)


def list_folder(root: Path) -> Listing:
    """Read the labels off the names of the folders.

    Hidden files and folders are passed over. Files without the suffix of an image, folders without images and
    names that are not UTF-8 are named in `Listing.ignored`.

    Raises
    ------
    ImagesNotUsable
        No image at all, or images where no label can be read off; the message names them.
    """
    images, ignored = _walk(root, ())
    if not images:
        raise ImagesNotUsable(f"No image in {root}{_instead(ignored)}; {_EXPECTED}.")
    splits = _split_folders(images)
    beside = [parts for parts in images if splits and parts[0] not in splits]
    images = [parts for parts in images if not splits or parts[0] in splits]
    levels = _levels(root, {parts: len(parts) - 1 - bool(splits) for parts in images}, ignored)
    return Listing(
        name=root.resolve().name,
        images=[
            Listed(
                source="/".join(parts),
                fine=parts[-2],
                coarse=parts[-3] if levels == 2 else None,
                split=splits.get(parts[0]),
            )
            for parts in images
        ],
        read=FileReader(root.absolute()),
        ignored=tuple(ignored),
        warnings=_left_out(beside),
    )


def _walk(root: Path, above: Parts) -> tuple[list[Parts], list[str]]:
    """Paths of all images below a folder, and the names of what is none, both sorted."""
    images: list[Parts] = []
    ignored: list[str] = []
    for entry in _entries(root.joinpath(*above)):
        parts = (*above, entry.name)
        shown = "/".join(parts)
        if not _is_utf8(entry.name):
            ignored.append(shown.encode("utf-8", "backslashreplace").decode())
        elif entry.is_dir():
            inside, others = _walk(root, parts) if len(parts) < DEEPEST else ([], [])
            images += inside
            ignored += others
            if not inside and _has_image_suffix(entry.name):
                images.append(parts)  # a folder where an image should be: a row that says so
            elif not inside:
                ignored.append(f"{shown}/")
        elif _has_image_suffix(entry.name):
            images.append(parts)
        else:
            ignored.append(shown)
    return images, ignored


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name
            )
    except OSError as error:
        raise ImagesNotUsable(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _has_image_suffix(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _split_folders(images: list[Parts]) -> dict[str, str]:
    """From the top folders that are splits to `train`, `val`, `test`; empty where the tops are classes.

    `train` beside `plane` and `car` is a vehicle: tops are splits where all of them have such names, or where
    there are a train and another split with class folders inside (then what lies beside them is left out).
    """
    tops = {parts[0] for parts in images if len(parts) > 1}
    named = {top: split for top in tops if (split := split_name(top))}
    if len(named) == len(tops):
        return named
    flat = {parts[0] for parts in images if len(parts) == 2}
    deep = {top: split for top, split in named.items() if top not in flat}
    return deep if "train" in deep.values() and len(set(deep.values())) > 1 else {}


def _levels(root: Path, depths: dict[Parts, int], ignored: list[str]) -> int:
    """1 for `<fine>/*`, 2 for `<coarse>/<fine>/*`."""
    first = {depth: "/".join(parts) for parts, depth in reversed(depths.items())}
    if len(first) > 1:
        shallow, deep = first[min(first)], first[max(first)]
        raise ImagesNotUsable(
            f"Images at different depths in {root}, such as {shallow} and {deep}; {_EXPECTED}, "
            "the same for all images."
        )
    (levels,) = first
    if levels not in (1, 2):
        tops = {parts[0] for parts in depths}
        hint = f" Did you mean {root / tops.pop()}?" if levels > 2 and len(tops) == 1 else ""
        raise ImagesNotUsable(
            f"No labels can be read off {first[levels]} in {root}{_instead(ignored)}; {_EXPECTED}.{hint}"
        )
    return levels


def _instead(ignored: list[str]) -> str:
    """What the user may have meant: a table lying in the folder."""
    tables = [name for name in ignored if name.endswith((".csv", ".parquet"))]
    if tables:
        return f" (for the labels of {tables[0]}, give that file instead of the folder)"
    return f" (other files and folders: {len(ignored)}, such as {ignored[0]})" if ignored else ""


def _left_out(beside: list[Parts]) -> tuple[str, ...]:
    if not beside:
        return ()
    tops = ", ".join(sorted({parts[0] for parts in beside}))
    return (f"images beside the split folders, left out ({len(beside)}): {tops}",)
