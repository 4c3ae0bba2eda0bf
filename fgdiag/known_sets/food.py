"""Food-101."""

from pathlib import Path

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import GHOSH, HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_lines
from fgdiag.listing import Listed, Listing

SYNONYMS = {
    "donuts": ("doughnuts",),
    "dumplings": ("jiaozi",),
    "french fries": ("fries", "chips"),
    "gyoza": ("potstickers",),
    "hamburger": ("burger", "cheeseburger"),
    "macaroni and cheese": ("mac and cheese",),
    "steak": ("beef steak",),
    "creme brulee": ("crème brûlée",),
    "eggs benedict": ("egg benedict",),
    "spaghetti bolognese": ("spaghetti bolognaise",),
}


def read(folder: Path) -> Listing:
    """Read `meta/train.txt` and `meta/test.txt`: one `apple_pie/1005649` a line."""
    root = find_root(folder, ("images", "meta/train.txt", "meta/test.txt"), inside=("food-101",))
    images = []
    for split in ("train", "test"):
        path = root / "meta" / f"{split}.txt"
        for line in read_lines(path):
            fine, slash, number = line.partition("/")
            if not slash or not number:
                raise ImagesNotUsable(
                    f"{path} has the line {line!r}; expected one such as apple_pie/1005649."
                )
            images.append(Listed(f"images/{line}.jpg", fine, None, split))
    return Listing("food-101", images, FileReader(root.absolute()))


def clean(image: Listed) -> Listed:
    """`apple_pie` to `apple pie`."""
    return image._replace(fine=image.fine.replace("_", " "))


FOOD = KnownSet(
    name="food-101",
    title="Food-101",
    paper="Bossard, Guillaumin and Van Gool, Food-101: mining discriminative components with random forests, ECCV 2014",
    homepage="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    licence="none granted by the authors: the photographs are Foodspotting's; scientific fair use",
    splits={"train": 75_750, "test": 25_250},
    classes=101,
    images=101_000,
    class_names="from the names of the folders, underscores as blanks",
    coarse="",
    coarse_source="the set groups its classes in no way",
    layout="images/<class>/*.jpg, meta/train.txt, meta/test.txt",
    read=read,
    clean=clean,
    hub=HubCopy("ethz/food101", Columns("label"), note="its validation split is the published test split"),
    synonyms=SYNONYMS,
    used_by=(GHOSH,),
    note="the authors left wrong labels in train on purpose; test was checked by hand",
)
