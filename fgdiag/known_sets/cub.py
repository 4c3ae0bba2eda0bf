"""CUB-200-2011."""

import re
from pathlib import Path

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import CHANDHOK, HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_pairs
from fgdiag.listing import Listed, Listing

SYNONYMS = {
    "Eared Grebe": ("Black-necked Grebe",),
    "Florida Jay": ("Florida Scrub-Jay", "Florida Scrub Jay"),
    "Geococcyx": ("roadrunner", "Greater Roadrunner"),
    "Great Grey Shrike": ("Northern Shrike",),
    "Horned Lark": ("Shore Lark",),
    "Cardinal": ("Northern Cardinal",),
    "Mockingbird": ("Northern Mockingbird",),
    "Myrtle Warbler": ("Yellow-rumped Warbler",),
    "Nighthawk": ("Common Nighthawk",),
    "Pomarine Jaeger": ("Pomarine Skua",),
    "Long-tailed Jaeger": ("Long-tailed Skua",),
    "Sayornis": ("phoebe",),
    "Tree Sparrow": ("American Tree Sparrow",),
    "Bank Swallow": ("Sand Martin",),
    "Whip-poor-will": ("Whippoorwill",),
    "White Pelican": ("American White Pelican",),
}

# The files have underscores for hyphens and blanks alike, and no apostrophes.
_HYPHENATED = re.compile(
    r" (backed|bellied|billed|breasted|capped|cockaded|colored|crowned|eating|eyed|faced|footed|headed|legged|necked|"
    r"sided|tailed|throated|toed|winged)\b"
)
_PERSONS = re.compile(
    r"^(Anna|Baird|Bewick|Brandt|Brewer|Clark|Heermann|Henslow|Le Conte|Lincoln|Nelson|Scott|Swainson|Wilson) "
)
_CHANGED = {
    "Artic Tern": "Arctic Tern",
    "Black and white Warbler": "Black-and-white Warbler",
    "Chuck will Widow": "Chuck-will's-widow",
    "Forsters Tern": "Forster's Tern",
    "Harris Sparrow": "Harris's Sparrow",
    "Whip poor Will": "Whip-poor-will",
}


def read(folder: Path) -> Listing:
    """Read the four lists of the set, each a number and its value a line."""
    names = ("images.txt", "image_class_labels.txt", "classes.txt", "train_test_split.txt")
    root = find_root(folder, ("images", *names), inside=("CUB_200_2011",))
    paths, labels, classes, is_train = (dict(read_pairs(root / name)) for name in names)
    for name, known in zip(names[1:], (labels, classes, is_train), strict=True):
        asked = labels.values() if name == "classes.txt" else paths
        if missing := [number for number in asked if number not in known]:
            raise ImagesNotUsable(
                f"{root / name} has no line for {missing[0]}; expected one for each number."
            )
    images = [
        Listed(
            f"images/{path}", classes[labels[number]], None, "train" if is_train[number] == "1" else "test"
        )
        for number, path in paths.items()
    ]
    return Listing("cub-200", images, FileReader(root.absolute()))


def clean(image: Listed) -> Listed:
    """`001.Black_footed_Albatross` to `Black-footed Albatross`, coarse `Albatross`."""
    name = re.sub(r"^\d+\.", "", image.fine).replace("_", " ")
    name = _CHANGED.get(name) or _PERSONS.sub(r"\1's ", _HYPHENATED.sub(r"-\1", name))
    return image._replace(fine=name, coarse=name.split()[-1])


CUB = KnownSet(
    name="cub-200",
    title="CUB-200-2011",
    paper="Wah, Branson, Welinder, Perona and Belongie, The Caltech-UCSD Birds-200-2011 dataset, CNS-TR-2011-001, 2011",
    homepage="https://www.vision.caltech.edu/datasets/cub_200_2011/",
    licence="non-commercial research and education; the photographs belong to their photographers",
    splits={"train": 5994, "test": 5794},
    classes=200,
    images=11_788,
    class_names="classes.txt; hyphens and apostrophes, which the files lack, are put back by rule",
    coarse="last word of the English name: Albatross, Sparrow, Warbler",
    coarse_source="a heuristic of fgdiag, not taxonomy: it parts hummingbird from violetear and joins the warblers of "
    "several genera",
    layout="images/<class>/*.jpg, images.txt, image_class_labels.txt, classes.txt, train_test_split.txt",
    read=read,
    clean=clean,
    hub=HubCopy("Donghyun99/CUB-200-2011", Columns("label")),
    synonyms=SYNONYMS,
    used_by=(CHANDHOK,),
    note="some of its photographs are in ImageNet too, on which most vision encoders were trained",
)
