"""Stanford Cars (Cars-196)."""

import re
from pathlib import Path

import numpy as np

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import ZHANG, HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_mat
from fgdiag.listing import Listed, Listing

_MAKES_OF_TWO_WORDS = ("AM General", "Aston Martin", "Land Rover")
_TEST_LABELS = "cars_test_annos_withlabels.mat"


def read(folder: Path) -> Listing:
    """Read the class names of `devkit/cars_meta.mat` and the two lists of file and class (from 1)."""
    needed = ("cars_train", "cars_test", "devkit/cars_meta.mat", "devkit/cars_train_annos.mat")
    root = find_root(folder, needed, inside=("stanford_cars",))
    names = np.atleast_1d(read_mat(root / "devkit/cars_meta.mat", "class_names")).tolist()
    labelled = [("train", root / "devkit/cars_train_annos.mat"), ("test", _test_labels(root))]
    images = []
    for split, path in labelled:
        for row in np.atleast_1d(read_mat(path, "annotations")):
            if "class" not in row:
                raise ImagesNotUsable(f"{path} has no classes; for the test split expected {_TEST_LABELS}.")
            images.append(Listed(f"cars_{split}/{row['fname']}", names[int(row["class"]) - 1], None, split))
    return Listing("cars-196", images, FileReader(root.absolute()))


def _test_labels(root: Path) -> Path:
    """Return the labels of the test split, which came as a file of their own and lie in either place."""
    for path in (root / "devkit" / _TEST_LABELS, root / _TEST_LABELS):
        if path.is_file():
            return path
    raise ImagesNotUsable(
        f"{root} has no {_TEST_LABELS}; expected it there or in devkit/ (devkit/cars_test_annos.mat has no classes)."
    )


def clean(image: Listed) -> Listed:
    """Take the make off the front of `Aston Martin Virage Coupe 2012` as coarse class."""
    two = " ".join(image.fine.split()[:2])
    return image._replace(coarse=two if two in _MAKES_OF_TWO_WORDS else image.fine.split()[0])


def also_called(label: str) -> tuple[str, ...]:
    """Name the car without its year, which few people could tell."""
    without = re.sub(r" (19|20)\d\d$", "", label)
    return (without,) if without != label else ()


CARS = KnownSet(
    name="cars-196",
    title="Stanford Cars (Cars-196)",
    paper="Krause, Stark, Deng and Fei-Fei, 3D object representations for fine-grained categorization, 3dRR 2013",
    homepage="https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    licence="non-commercial research, on the terms of ImageNet",
    splits={"train": 8144, "test": 8041},
    classes=196,
    images=16_185,
    class_names="devkit/cars_meta.mat, as they are: make, model, body, year",
    coarse="make: Audi, BMW, Land Rover",
    coarse_source="the front of the class name",
    layout="cars_train/*.jpg, cars_test/*.jpg, devkit/cars_meta.mat, devkit/cars_train_annos.mat, "
    "cars_test_annos_withlabels.mat (there or in devkit/)",
    read=read,
    clean=clean,
    also_called=also_called,
    hub=HubCopy(
        "tanganke/stanford_cars", Columns("label"), note="its splits of blurred and noisy images are left out"
    ),
    used_by=(ZHANG,),
    note="the homepage no longer serves the files; the name without its year is a synonym where only one class has it",
)
