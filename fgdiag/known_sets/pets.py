"""Oxford-IIIT Pet."""

import re
from pathlib import Path

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import GHOSH, HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_lines
from fgdiag.listing import Listed, Listing

SYNONYMS = {
    "American Pit Bull Terrier": ("pit bull", "pitbull", "pit bull terrier"),
    "British Shorthair": ("British Short Hair",),
    "English Cocker Spaniel": ("cocker spaniel",),
    "German Shorthaired Pointer": ("German Short-haired Pointer",),
    "Great Pyrenees": ("Pyrenean Mountain Dog",),
    "Leonberger": ("Leonberg",),
    "Miniature Pinscher": ("min pin",),
    "Saint Bernard": ("St Bernard", "St. Bernard"),
    "Scottish Terrier": ("Scottie",),
    "Shiba Inu": ("Shiba",),
    "Sphynx": ("Sphynx cat", "sphinx cat"),
    "Staffordshire Bull Terrier": ("Staffordshire bullterrier",),
    "Wheaten Terrier": ("Soft-coated Wheaten Terrier",),
    "Yorkshire Terrier": ("Yorkie",),
}

_SPECIES = {"1": "cat", "2": "dog"}
_SPLITS = {"trainval.txt": "train", "test.txt": "test"}


def read(folder: Path) -> Listing:
    """Read `annotations/trainval.txt` and `test.txt`: image, class from 1, species (1 cat, 2 dog), breed."""
    needed = ("images", "annotations/trainval.txt", "annotations/test.txt")
    root = find_root(folder, needed, inside=("oxford-iiit-pet",))
    images = []
    for name, split in _SPLITS.items():
        path = root / "annotations" / name
        for line in read_lines(path):
            if line.startswith("#"):
                continue
            parts = line.split()
            if len(parts) != 4 or parts[2] not in _SPECIES:
                raise ImagesNotUsable(
                    f"{path} has the line {line!r}; expected an image, its class, its species (1 or 2) and breed."
                )
            breed = re.sub(r"_\d+$", "", parts[0])
            images.append(Listed(f"images/{parts[0]}.jpg", breed, _SPECIES[parts[2]], split))
    return Listing("oxford-pets", images, FileReader(root.absolute()))


def clean(image: Listed) -> Listed:
    """`american_bulldog` to `American Bulldog`; the breed `german_shorthaired` gets its noun."""
    name = image.fine.replace("_", " ").title()
    if name == "German Shorthaired":
        name = "German Shorthaired Pointer"
    return image._replace(fine=name)


PETS = KnownSet(
    name="oxford-pets",
    title="Oxford-IIIT Pet",
    paper="Parkhi, Vedaldi, Zisserman and Jawahar, Cats and dogs, CVPR 2012",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/pets/",
    licence="CC BY-SA 4.0",
    splits={"train": 3680, "test": 3669},
    classes=37,
    images=7349,
    class_names="from the names of the files, capitalised",
    coarse="cat or dog",
    coarse_source="the set's own species column",
    layout="images/*.jpg, annotations/trainval.txt, annotations/test.txt",
    read=read,
    clean=clean,
    hub=HubCopy("timm/oxford-iiit-pet", Columns("label", "label_cat_dog")),
    synonyms=SYNONYMS,
    used_by=(GHOSH,),
    note="the published trainval split is taken as train",
)
