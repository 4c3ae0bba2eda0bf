"""iNaturalist 2021, the mini training split."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import KnownSet
from fgdiag.known_sets.layout import find_root
from fgdiag.listing import Listed, Listing

_SPLITS = {"train_mini.json": "train", "val.json": "val"}


def read(folder: Path) -> Listing:
    """Read `train_mini.json` and `val.json`, in the form of COCO: images, annotations, categories."""
    root = find_root(folder, tuple(_SPLITS), inside=("2021", "inat2021"))
    images = []
    for name, split in _SPLITS.items():
        held = _load(root / name)
        species = {one["id"]: one for one in held["categories"]}
        names = _names(held["categories"])
        paths = {image["id"]: image["file_name"] for image in held["images"]}
        for annotation in held["annotations"]:
            one = annotation["category_id"]
            images.append(Listed(paths[annotation["image_id"]], names[one], species[one]["family"], split))
    return Listing("inat-2021-mini", images, FileReader(root.absolute()))


def _load(path: Path) -> dict[str, Any]:
    held = json.loads(path.read_text("utf-8"))
    if not isinstance(held, dict) or not {"images", "annotations", "categories"} <= held.keys():
        raise ImagesNotUsable(
            f"{path} has no images, annotations and categories; expected the three of them."
        )
    return held


def _names(categories: list[dict[str, Any]]) -> dict[int, str]:
    """Give each species its English name where it has one of its own, then its Latin one, else the other way about."""
    shared = Counter(one.get("common_name", "").lower() for one in categories)
    return {
        one["id"]: ", ".join(
            (one["common_name"], one["name"])
            if shared[one.get("common_name", "").lower()] == 1 and one.get("common_name")
            else (one["name"], *filter(None, [one.get("common_name")]))
        )
        for one in categories
    }


def clean(image: Listed) -> Listed:
    """Take the first name of `American Robin, Turdus migratorius`."""
    return image._replace(fine=image.fine.partition(", ")[0])


def also_called(label: str) -> tuple[str, ...]:
    """Name the species in the other language."""
    return tuple(filter(None, [label.partition(", ")[2]]))


INAT = KnownSet(
    name="inat-2021-mini",
    title="iNaturalist 2021 mini",
    paper="Van Horn, Cole, Beery, Wilber, Belongie and Mac Aodha, Benchmarking representation learning for natural "
    "world image collections, CVPR 2021",
    homepage="https://github.com/visipedia/inat_comp/tree/master/2021",
    licence="non-commercial research and education; each photograph has a licence of its own",
    splits={"train": 500_000, "val": 100_000},
    classes=10_000,
    images=600_000,
    class_names="the English name where no other species has it, else the Latin one; the other is a synonym",
    coarse="family",
    coarse_source="iNaturalist's taxonomy, in the files",
    layout="train_mini.json, val.json, train_mini/<species>/*.jpg, val/<species>/*.jpg",
    read=read,
    clean=clean,
    also_called=also_called,
    note="the public test split has no labels, so val is used as test; every file is read once for its "
    "hash, --limit or not",
)
