"""Open labelled images from wherever they lie: a folder, a table, a Hugging Face dataset, a published set by name.

Every file is read once, for the hash of its content and the size in its header; none is decoded, unless
near-duplicates are to be grouped.
"""

import os
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path

import pandas as pd

from fgdiag.decode import measure
from fgdiag.duplicates import NO_PAIRS, exclude_taught_copies, find_pairs, join_groups
from fgdiag.errors import ImagesNotUsable, ImageUnreadable
from fgdiag.image_dataset import is_hub_id, is_saved_dataset, list_hub_dataset, list_saved_dataset
from fgdiag.image_folder import list_folder
from fgdiag.image_set import ImageSet
from fgdiag.image_table import TABLE_SUFFIXES, list_table
from fgdiag.known_sets import KNOWN_SETS, is_known_set, list_known_set, whole_name
from fgdiag.listing import ImageRow, Listed, Listing
from fgdiag.progress import track
from fgdiag.prompts import spoken
from fgdiag.splits import complete_split, exclude_thin_classes, leaks, limit_classes

__all__ = ["ImageSet", "open_images"]

SHOW_PROGRESS_FROM = 10_000
"""Images. Fewer are opened before a bar would be read."""
IMAGES_A_TASK = 64
"""For one thread at a time. A task for each image would be so many that Ctrl-C is likely to come while one is
handed over, where `concurrent.futures` (as of Python 3.11) may be left with a lock that nobody opens."""


def open_images(
    source: str | Path | ImageSet,
    *,
    test_share: float = 0.25,
    seed: int = 0,
    limit: int | None = None,
    group_duplicates: bool = False,
) -> ImageSet:
    """Open labelled images from a folder, a table, a Hugging Face dataset, or a published set by its name.

    Parameters
    ----------
    source
        - A folder `<fine>/*.jpg` or `<coarse>/<fine>/*.jpg`, perhaps with `train/`, `val/`, `test/` above.
        - A `.csv` or `.parquet` table with `path`, `fine` and perhaps `coarse`, `split`, `group`.
        - A Hugging Face dataset: a `save_to_disk` folder, or a hub id `owner/name` or `owner/name:config`.
        - A set of `fgdiag.known_sets`: its name, `flowers-102`, or its name and the folder of a copy,
          `flowers-102:/data/flowers`. A folder or file that has that name comes first.
        - An `ImageSet`, which is returned as it is.
    test_share
        Where the source has no test images: the share of each class that is held out, above 0 and below 1.
    seed
        For that split and for `limit`. The split depends on the files' contents, not on their order.
    limit
        Keep at most this many images of each class in each split, for a quick look.
    group_duplicates
        Put near-duplicates (see `fgdiag.duplicates`) into one group, so that a split made here and the folds of a
        probe keep them on one side. Where the split is that of the source, the training copies of test images get
        the split `excluded` instead. Every image is decoded for that, at a small size.

    Returns
    -------
    ImageSet
        A fine label found under two coarse labels is written `coarse/fine`, so fine labels are unique. Exact
        duplicates share a group, unless the source gives groups, and so never straddle a split made here.
        An image that cannot be read stays as a row with the reason in `status`; a class with too few images
        stays with the split `excluded`.

    Raises
    ------
    ImagesNotUsable
        There is no such source, no labels can be read off it, or fewer than two classes can be used.
    """
    if isinstance(source, ImageSet):
        return source
    _check_options(source, test_share, limit)
    listing = _list(source)
    rows = _inspect(listing, _unique_fine_labels(listing.images))
    if not any(row.readable for row in rows):
        raise ImagesNotUsable(
            f"None of the {len(rows)} images of {source} can be read, "
            f"such as {rows[0].source}: {rows[0].status}."
        )
    pairs = find_pairs(listing.read, [row.source for row in rows]) if group_duplicates else NO_PAIRS
    rows, split_warnings = complete_split(join_groups(rows, pairs), test_share=test_share, seed=seed)
    rows, copy_warnings = exclude_taught_copies(rows, pairs)
    rows, excluded = exclude_thin_classes(rows)
    _check_classes(source, rows, excluded)
    warnings = [*listing.warnings, *split_warnings, *copy_warnings, *_exclusions(excluded), *leaks(rows)]
    warnings += [*_two_names(rows), *_same_words(rows)]
    if limit is not None:
        rows = limit_classes(rows, limit, seed=seed)
    table = pd.DataFrame(rows, columns=list(ImageRow._fields))
    return ImageSet(
        listing.name,
        table,
        listing.read,
        listing.ignored,
        excluded,
        tuple(warnings),
        _whole(source),
        listing.synonyms,
    )


def _check_options(source: str | Path, test_share: float, limit: int | None) -> None:
    if not str(source):
        raise ImagesNotUsable("The source of the images is empty; expected a folder, a table or a hub id.")
    if not 0 < test_share < 1:
        raise ImagesNotUsable(f"The test share is {test_share}; expected a number above 0 and below 1.")
    if limit is not None and limit < 1:
        raise ImagesNotUsable(f"The limit is {limit} images a class; expected at least 1.")


def _list(source: str | Path) -> Listing:
    path = Path(source).expanduser()
    if path.is_dir():
        return list_saved_dataset(path) if is_saved_dataset(path) else list_folder(path)
    if path.suffix.lower() in TABLE_SUFFIXES and path.is_file():
        return list_table(path)
    if path.exists():
        raise ImagesNotUsable(f"{path} is no folder and no table; expected a folder, a .csv or a .parquet.")
    if is_known_set(str(source)):
        return list_known_set(str(source))
    if is_hub_id(str(source)) and not Path(path.parts[0]).exists():
        return list_hub_dataset(str(source))
    raise ImagesNotUsable(f"There is no {str(source)!r}; {_near(path)}")


def _whole(source: str | Path) -> str:
    path = Path(source).expanduser()
    if path.exists():
        return str(path.resolve())
    return whole_name(str(source)) if is_known_set(str(source)) else str(source)


def _near(path: Path) -> str:
    """What there is instead: a similar name, a known set, or what the last folder that exists holds."""
    missing = path
    while not missing.parent.exists():
        missing = missing.parent
    try:
        there = sorted(name for name in os.listdir(missing.parent) if not name.startswith("."))
    except OSError:
        there = []
    if close := get_close_matches(missing.name, there, n=3):
        return f"did you mean {' or '.join(str(missing.parent / name) for name in close)}?"
    if close := get_close_matches(str(path).partition(":")[0].lower(), KNOWN_SETS, n=1):
        return f"did you mean the known set {close[0]}? `fgdiag sets` lists them."
    if there:
        return f"{missing.parent.resolve()} holds {_some(there)}."
    return "expected a folder, a .csv or .parquet table, or the hub id of a dataset."


def _unique_fine_labels(images: list[Listed]) -> list[Listed]:
    """Write a fine label found under two coarse labels as `coarse/fine`."""
    homes: dict[str, set[str | None]] = defaultdict(set)
    for image in images:
        homes[image.fine].add(image.coarse)
    return [
        image if len(homes[image.fine]) == 1 else image._replace(fine=f"{image.coarse}/{image.fine}")
        for image in images
    ]


def _inspect(listing: Listing, images: list[Listed]) -> list[ImageRow]:
    """Hash every file and read its header."""
    parts = [images[at : at + IMAGES_A_TASK] for at in range(0, len(images), IMAGES_A_TASK)]
    pool = ThreadPoolExecutor()
    try:
        looked = pool.map(lambda part: [_look(listing.read, image) for image in part], parts)
        if len(images) >= SHOW_PROGRESS_FROM:
            looked = track(looked, description="opening images", total=len(images), size=IMAGES_A_TASK)
        return [row for rows in looked for row in rows]
    finally:
        pool.shutdown(cancel_futures=True)


def _look(read: Callable[[str], bytes], image: Listed) -> ImageRow:
    data, width, height, status = None, 0, 0, "ok"
    try:
        data = read(image.source)
        width, height = measure(data)
    except ImageUnreadable as error:
        status = str(error)
    # Without bytes, the image is known by its source alone.
    content = f"nothing read: {image.source}".encode() if data is None else data
    identity = blake2b(content, digest_size=16).hexdigest()
    return ImageRow(
        id=identity,
        source=image.source,
        fine=image.fine,
        coarse=image.coarse or image.fine,
        split=image.split or "",
        group=image.group or identity,
        width=width,
        height=height,
        status=status,
    )


def _check_classes(source: str | Path, rows: list[ImageRow], excluded: dict[str, str]) -> None:
    usable = {row.fine for row in rows} - set(excluded)
    if len(usable) < 2:
        raise ImagesNotUsable(
            f"{source} has {len(usable) or 'no'} usable class{_named(sorted(usable))}; expected at least two"
            f"{'. Not usable: ' if excluded else ''}{_some(_reasons(excluded))}."
        )


def _exclusions(excluded: dict[str, str]) -> list[str]:
    if not excluded:
        return []
    classes = "1 class is" if len(excluded) == 1 else f"{len(excluded)} classes are"
    return [f"{classes} excluded: {_some(_reasons(excluded))}"]


def _reasons(excluded: dict[str, str]) -> list[str]:
    return [f"{fine} ({reason})" for fine, reason in excluded.items()]


def _two_names(rows: list[ImageRow]) -> list[str]:
    """One line for identical images under different labels: at least one of the labels is wrong."""
    first: dict[str, ImageRow] = {}
    pairs = {row.id: (first[row.id], row) for row in rows if first.setdefault(row.id, row).fine != row.fine}
    if not pairs:
        return []
    one, other = next(iter(pairs.values()))
    return [f"images under two classes ({len(pairs)}), such as {one.source} and {other.source}"]


def _same_words(rows: list[ImageRow]) -> list[str]:
    """One line for classes that are called the same when spoken: no answer in words can tell them apart."""
    first: dict[str, str] = {}
    pairs = [
        (first[words], fine)
        for fine in sorted({row.fine for row in rows if row.split != "excluded"})
        if first.setdefault(words := spoken(fine), fine) != fine
    ]
    if not pairs:
        return []
    one, other = pairs[0]
    return [f"classes spoken alike ({len(pairs)}), such as {one} and {other}: no answer can tell them apart"]


def _named(labels: list[str]) -> str:
    return f" ({', '.join(labels)})" if labels else ""


def _some(names: list[str], most: int = 3) -> str:
    """Name the first few, and say how many more there are."""
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
