"""Caltech-101."""

from pathlib import Path

from fgdiag.decode import SUFFIXES
from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import ZHANG, HubCopy, KnownSet
from fgdiag.known_sets.layout import files, find_root, folders
from fgdiag.listing import Listed, Listing

_BACKGROUND = "BACKGROUND_Google"

# What the folder is named, in lower case, where that is not what a person would say of its photographs.
NAMES = {
    "airplanes": "airplane",
    "bass": "bass fish",
    "binocular": "binoculars",
    "bonsai": "bonsai tree",
    "buddha": "Buddha statue",
    "car_side": "side of a car",
    "cougar_body": "body of a cougar",
    "cougar_face": "face of a cougar",
    "crocodile_head": "head of a crocodile",
    "faces": "face of a person in a scene",
    "faces_easy": "close-up of the face of a person",
    "flamingo_head": "head of a flamingo",
    "garfield": "Garfield",
    "hawksbill": "hawksbill turtle",
    "headphone": "headphones",
    "joshua_tree": "Joshua tree",
    "leopards": "leopard",
    "lotus": "lotus flower",
    "motorbikes": "motorbike",
    "nautilus": "nautilus shell",
    "sea_horse": "seahorse",
    "snoopy": "Snoopy",
    "water_lilly": "water lily",
    "windsor_chair": "Windsor chair",
    "yin_yang": "yin and yang symbol",
}

SYNONYMS = {
    "airplane": ("aeroplane", "plane"),
    "cellphone": ("cell phone", "mobile phone"),
    "crayfish": ("crawfish",),
    "electric guitar": ("guitar",),
    "ewer": ("jug", "pitcher"),
    "gramophone": ("phonograph",),
    "grand piano": ("piano",),
    "hawksbill turtle": ("sea turtle",),
    "inline skate": ("rollerblade", "roller blade"),
    "motorbike": ("motorcycle",),
    "rhino": ("rhinoceros",),
    "side of a car": ("car",),
    "wrench": ("spanner",),
    "yin and yang symbol": ("yin yang", "yin-yang"),
}


def read(folder: Path) -> Listing:
    """Read a folder of images for each class; the one of mixed backgrounds is no class and is left out."""
    root = find_root(
        folder, ("accordion",), inside=("101_ObjectCategories", "caltech-101/101_ObjectCategories")
    )
    images = [
        Listed(f"{of_class.name}/{image.name}", of_class.name)
        for of_class in folders(root)
        if of_class.name != _BACKGROUND
        for image in files(of_class, SUFFIXES)
    ]
    if not images:
        raise ImagesNotUsable(f"No image in the folders of {root}; expected one folder of images a class.")
    return Listing("caltech-101", images, FileReader(root.absolute()), ignored=(f"{_BACKGROUND}/",))


def clean(image: Listed) -> Listed:
    """`car_side` to `side of a car`, and other folders by rule."""
    folder = image.fine.lower()
    return image._replace(fine=NAMES.get(folder, folder.replace("_", " ")))


CALTECH = KnownSet(
    name="caltech-101",
    title="Caltech-101",
    paper="Li, Fergus and Perona, Learning generative visual models from few training examples, CVPR workshop 2004",
    homepage="https://data.caltech.edu/records/mzrjq-6wc02",
    licence="CC BY 4.0",
    splits={},
    classes=101,
    images=8677,
    class_names="from the names of the folders; 25 are reworded, such as car_side to `side of a car`",
    coarse="",
    coarse_source="the set groups its classes in no way",
    layout="101_ObjectCategories/<class>/*.jpg",
    read=read,
    clean=clean,
    hub=HubCopy("flwrlabs/caltech101", Columns("label")),
    synonyms=SYNONYMS,
    used_by=(ZHANG,),
    note="no published split, so papers differ in theirs; the folder BACKGROUND_Google is left out; Faces and "
    "Faces_easy are the same photographs, whole and cropped",
)
