"""Labelled images in a CSV or Parquet table: `path`, `fine` and perhaps `coarse`, `split`, `group`."""

from pathlib import Path

import pandas as pd

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_folder import FileReader
from fgdiag.listing import Listed, Listing
from fgdiag.splits import split_name

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")

Record = dict[str, str]


def list_table(path: Path) -> Listing:
    """Read labels and paths; a path is absolute or relative to the folder of the table.

    A file that is missing becomes a row with a status when the images are opened.

    Raises
    ------
    ImagesNotUsable
        Not a table, a column or a label missing, an unknown split, or not one of the files exists.
    """
    records = _records(path)
    _check_filled(path, records)
    images = [
        Listed(
            source=record["path"],
            fine=record["fine"],
            coarse=record.get("coarse"),
            split=split,
            group=record.get("group") or None,
        )
        for record, split in zip(records, _splits(path, records), strict=True)
    ]
    if not any((path.parent / image.source).exists() for image in images):
        raise ImagesNotUsable(
            f"None of the {len(images)} files named in {path} exists, such as {images[0].source}; "
            "a path is absolute or relative to the folder of the table."
        )
    return Listing(path.stem, images, FileReader(path.parent.absolute()))


def _records(path: Path) -> list[Record]:
    try:
        frame = _read(path)
    except (ValueError, OSError) as error:
        raise ImagesNotUsable(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error
    columns = [str(name).strip() for name in frame.columns]
    if not {"path", "fine"} <= set(columns):
        raise ImagesNotUsable(
            f"{path} has the columns {', '.join(columns)}; expected `path` and `fine`, "
            "and where you have them `coarse`, `split` and `group`."
        )
    if frame.empty:
        raise ImagesNotUsable(f"{path} has no rows; expected one for each image.")
    return [
        {name: _text(cell) for name, cell in zip(columns, row, strict=True)}
        for row in frame.itertuples(index=False, name=None)
    ]


def _read(path: Path) -> pd.DataFrame:
    if path.suffix.lower() == ".parquet":
        return pd.read_parquet(path)
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    # Labels are text: `007`, `NA` and `None` are names like any other.
    return pd.read_csv(
        path, sep=separator, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
    )


def _text(cell: object) -> str:
    missing = cell is None or cell is pd.NA or cell != cell  # NaN alone is not equal to itself
    return "" if missing else str(cell).strip()


def _check_filled(path: Path, records: list[Record]) -> None:
    for column in ("path", "fine", "coarse"):
        empty = [number for number, record in enumerate(records, 1) if record.get(column) == ""]
        if empty:
            raise ImagesNotUsable(
                f"{path} has no {column} in {len(empty)} of {len(records)} rows, first in row {empty[0]}; "
                "fill it in or take the row out."
            )


def _splits(path: Path, records: list[Record]) -> list[str | None]:
    """`train`, `val` or `test` for each row; None for all where the column is missing or empty."""
    names = [record.get("split", "") for record in records]
    if not any(names):
        return [None] * len(names)
    splits = [split_name(name) for name in names]
    if None in splits:
        row = splits.index(None)
        raise ImagesNotUsable(
            f"{path} has the split {names[row]!r} in row {row + 1}; "
            "expected train, val or test in every row, or no splits at all."
        )
    return splits
