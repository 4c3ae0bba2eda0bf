"""Labelled images in a Hugging Face dataset, from the hub or from a `save_to_disk` folder.

`datasets` is an optional dependency and imported only here, when such a source is asked for.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdiag.decode import read_file
from fgdiag.errors import ImagesNotUsable, ImageUnreadable
from fgdiag.listing import Listed, Listing
from fgdiag.splits import split_name

if TYPE_CHECKING:
    from datasets import Dataset

FINE_NAMES = ("fine", "fine_label", "label", "labels")
COARSE_NAMES = ("coarse", "coarse_label")
JOINT = " | "
"""Between the parts of a fine label that is read from more than one column."""

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


@dataclass(frozen=True)
class Columns:
    """Which columns of a dataset hold what; None where none does."""

    fine: str | tuple[str, ...]
    """One column, or several that make the label together, joined by `JOINT`."""
    coarse: str | None = None
    group: str | None = None
    once: str | None = None
    """Names the image of a row; a row whose image was there before is left out."""

    @classmethod
    def found(cls, features: Mapping[str, object]) -> "Columns":
        """Find them by the names that people give such columns."""
        coarse = next((name for name in COARSE_NAMES if name in features), None)
        return cls(_fine_column(features), coarse, "group" if "group" in features else None)

    def check(self, features: Mapping[str, object]) -> None:
        """Raise `ImagesNotUsable` where a column is missing."""
        fine = (self.fine,) if isinstance(self.fine, str) else self.fine
        wanted = [name for name in (*fine, self.coarse, self.group, self.once) if name]
        if missing := [name for name in wanted if name not in features]:
            raise ImagesNotUsable(
                f"The dataset has the columns {', '.join(features)}; expected {', '.join(missing)} too."
            )


def is_hub_id(source: str) -> bool:
    """Whether this has the form of a hub id, `owner/name` or `owner/name:config`."""
    return _HUB_ID.fullmatch(source) is not None


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets` wrote this folder with `save_to_disk`."""
    return any((folder / name).is_file() for name in ("dataset_dict.json", "state.json"))


def list_saved_dataset(folder: Path, columns: Columns | None = None) -> Listing:
    """Read a `Dataset` or `DatasetDict` that `save_to_disk` wrote; `ImagesNotUsable` where it is broken.

    Columns that are not given are found by their names.
    """
    datasets = _datasets()
    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever Arrow and JSON raise on broken files
        raise ImagesNotUsable(f"{folder} cannot be read as a saved dataset: {_one_line(error)}") from error
    return _listing(folder.resolve().name, loaded, columns)


def list_hub_dataset(hub_id: str, columns: Columns | None = None) -> Listing:
    """Load `owner/name` or `owner/name:config` from the hub; `ImagesNotUsable` where that fails.

    Columns that are not given are found by their names.
    """
    datasets = _datasets()
    name, _, config = hub_id.partition(":")
    try:
        loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # no such id, no network, a gated set, an unknown config...
        raise ImagesNotUsable(
            f"{hub_id!r} is no folder or table here and cannot be loaded from the hub: {_one_line(error)}"
        ) from error
    return _listing(name.rpartition("/")[2], loaded, columns)


def _datasets() -> Any:
    try:
        import datasets
    except ModuleNotFoundError as error:
        if error.name != "datasets":
            raise
        raise ImagesNotUsable(
            "A Hugging Face dataset needs the package `datasets`; install it with: "
            "pip install 'fgdiag[datasets]'"
        ) from error
    return datasets


@dataclass(frozen=True)
class DatasetReader:
    """Reads the undecoded bytes of an image from `row 17`, or from `train row 17` where there are parts."""

    parts: Mapping[str, "Dataset"]
    column: str

    @classmethod
    def undecoded(cls, parts: Mapping[str, "Dataset"]) -> "DatasetReader":
        """Find the column of images, and keep `datasets` from decoding it."""
        column = _image_column(next(iter(parts.values())).features)
        raw = _datasets().Image(decode=False)
        return cls({part: dataset.cast_column(column, raw) for part, dataset in parts.items()}, column)

    def __call__(self, source: str) -> bytes:
        """Return the bytes; raise `ImageUnreadable` with the reason where there are none."""
        part, _, row = source.rpartition("row ")
        image = self.parts[part.strip()][int(row)][self.column]
        if image is None:
            raise ImageUnreadable("no image in this row")
        return read_file(Path(image["path"])) if image["bytes"] is None else image["bytes"]


def _listing(name: str, loaded: "Dataset | Mapping[str, Dataset]", columns: Columns | None) -> Listing:
    parts = dict(loaded) if isinstance(loaded, Mapping) else {"": loaded}
    known = {part: split for part in parts if (split := split_name(part))}
    left_out = [part for part in parts if known and part not in known]
    parts = {part: dataset.with_format(None) for part, dataset in parts.items() if part not in left_out}
    warnings = [f"the split {part} is left out: not train, val or test" for part in left_out]
    images: list[Listed] = []
    before: set[str] = set()
    for part, dataset in parts.items():
        listed = _list_part(dataset, part, known.get(part), columns, before)
        labelled = [image for image in listed if image.fine and image.coarse != ""]
        if without := len(listed) - len(labelled):
            warnings.append(f"rows{f' of {part}' if part else ''} without a label, left out ({without})")
        images += labelled
    if not images:
        raise ImagesNotUsable(f"No labelled image in the dataset {name}; expected a label in each row.")
    return Listing(name, images, DatasetReader.undecoded(parts), warnings=tuple(warnings))


def _list_part(
    dataset: "Dataset", part: str, split: str | None, columns: Columns | None, before: set[str]
) -> list[Listed]:
    """List the rows of one split, without those `before` names, and add its own to them."""
    columns = columns or Columns.found(dataset.features)
    columns.check(dataset.features)
    fine = _fine_labels(dataset, columns.fine)
    coarse = _labels(dataset, columns.coarse) if columns.coarse else [None] * len(fine)
    group = _labels(dataset, columns.group) if columns.group else [None] * len(fine)
    rows = _new_rows(_labels(dataset, columns.once), before) if columns.once else range(len(fine))
    return [
        Listed(f"{part} row {row}".strip(), fine[row], coarse[row], split, group[row] or None) for row in rows
    ]


def _fine_labels(dataset: "Dataset", columns: str | tuple[str, ...]) -> list[str]:
    if isinstance(columns, str):
        return _labels(dataset, columns)
    parts = zip(*(_labels(dataset, column) for column in columns), strict=True)
    return [JOINT.join(labels) if all(labels) else "" for labels in parts]


def _new_rows(names: list[str], before: set[str]) -> list[int]:
    rows = []
    for row, name in enumerate(names):
        if name not in before:
            before.add(name)
            rows.append(row)
    return rows


def _image_column(features: Mapping[str, object]) -> str:
    found = [name for name, feature in features.items() if isinstance(feature, _datasets().Image)]
    if len(found) == 1 or "image" in found:
        return "image" if "image" in found else found[0]
    raise ImagesNotUsable(
        f"The dataset has the columns {', '.join(features)}, {len(found) or 'none'} of them of images; "
        "expected one, or one of that name among them: image."
    )


def _fine_column(features: Mapping[str, object]) -> str:
    named = [name for name in FINE_NAMES if name in features]
    classes = [name for name, feature in features.items() if isinstance(feature, _datasets().ClassLabel)]
    unnamed = [name for name in classes if name not in COARSE_NAMES]
    if named or len(unnamed) == 1:
        return (named or unnamed)[0]
    raise ImagesNotUsable(
        f"No fine label among the columns {', '.join(features)} of the dataset; "
        f"rename the one that is it to `fine` and, where there is one, the coarse label to `coarse`."
    )


def _labels(dataset: "Dataset", column: str) -> list[str]:
    """Labels as text; an empty string where a row has none."""
    feature = dataset.features[column]
    if not isinstance(feature, (_datasets().ClassLabel, _datasets().Value)):
        raise ImagesNotUsable(
            f"The column {column} of the dataset holds {feature}; expected one label a row."
        )
    values = dataset.select_columns([column])[:][column]
    if isinstance(feature, _datasets().ClassLabel):
        return [feature.names[value] if value is not None and value >= 0 else "" for value in values]
    return ["" if value is None else str(value).strip() for value in values]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
