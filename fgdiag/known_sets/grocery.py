"""GroceryStore."""

from pathlib import Path

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_folder import FileReader, list_folder
from fgdiag.known_sets.known_set import KnownSet
from fgdiag.known_sets.layout import find_root, read_lines, read_table
from fgdiag.listing import Listed, Listing

_NAME, _ID, _COARSE = "Class Name (str)", "Class ID (int)", "Coarse Class Name (str)"
_SPLITS = ("train", "val", "test")

SYNONYMS = {
    "Aubergine": ("eggplant",),
    "Cantaloupe": ("cantaloupe melon", "muskmelon"),
    "Carrots": ("carrot",),
    "Garlic": ("garlic bulb",),
    "Kiwi": ("kiwifruit", "kiwi fruit"),
    "Papaya": ("pawpaw",),
    "Passion-Fruit": ("passionfruit", "maracuja"),
    "Red-Beet": ("beet", "beetroot"),
    "Satsumas": ("mandarin", "satsuma"),
    "Zucchini": ("courgette",),
    "Green-Bell-Pepper": ("green pepper",),
    "Orange-Bell-Pepper": ("orange pepper",),
    "Red-Bell-Pepper": ("red pepper",),
    "Yellow-Bell-Pepper": ("yellow pepper",),
    "Anjou": ("Anjou pear",),
    "Conference": ("Conference pear",),
    "Kaiser": ("Kaiser pear",),
    "Beef-Tomato": ("beefsteak tomato",),
    "Brown-Cap-Mushroom": ("brown mushroom", "cremini mushroom"),
}


def read(folder: Path) -> Listing:
    """Read `classes.csv` and the lists of images, or folders `<split>/<coarse>/<fine>/` where there is no list."""
    if _is_plain(folder):
        return list_folder(folder)
    root = find_root(folder, ("classes.csv", *(f"{split}.txt" for split in _SPLITS)), inside=("dataset",))
    classes = {
        row[_ID]: (row[_NAME], row[_COARSE])
        for row in read_table(root / "classes.csv", (_NAME, _ID, _COARSE)).to_dict("records")
    }
    images = []
    for split in _SPLITS:
        path = root / f"{split}.txt"
        for line in read_lines(path):
            parts = [part.strip() for part in line.split(",")]
            if len(parts) != 3 or parts[1] not in classes:
                raise ImagesNotUsable(
                    f"{path} has the line {line!r}; expected an image, a class of classes.csv and its coarse class."
                )
            images.append(Listed(parts[0], *classes[parts[1]], split))
    return Listing("grocery-store", images, FileReader(root.absolute()))


def _is_plain(folder: Path) -> bool:
    """Whether the classes are the folders and nothing else says what they are."""
    listed = any((folder / below / "classes.csv").exists() for below in ("", "dataset"))
    return not listed and (folder / "train").is_dir() and (folder / "test").is_dir()


GROCERY = KnownSet(
    name="grocery-store",
    title="GroceryStore",
    paper="Klasson, Zhang and Kjellström, A hierarchical grocery store image dataset, WACV 2019",
    homepage="https://github.com/marcusklasson/GroceryStoreDataset",
    licence="MIT",
    splits={"train": 2640, "val": 296, "test": 2485},
    classes=81,
    images=5421,
    class_names="classes.csv, as they are: Granny-Smith",
    coarse="43 kinds of goods: Apple, Juice, Pepper",
    coarse_source="classes.csv",
    layout="dataset/classes.csv, dataset/{train,val,test}.txt, dataset/{train,val,test}/...; or folders "
    "{train,val,test}/<coarse>/<fine>/*.jpg",
    read=read,
    synonyms=SYNONYMS,
    note="the paper counts 5,125 images in 42 kinds; the published files are 5,421 in 43. Photographs of one shelf "
    "lie in train and test alike",
)
