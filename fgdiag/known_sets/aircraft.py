"""FGVC-Aircraft."""

from pathlib import Path

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import JOINT, Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_pairs
from fgdiag.listing import Listed, Listing

_LEVELS = ("variant", "family", "manufacturer")
_SPLITS = ("train", "val", "test")


def read(folder: Path) -> Listing:
    """Read `images_variant_train.txt` and its like: image number and name a line."""
    needed = ("images", *(f"images_{level}_{split}.txt" for level in _LEVELS for split in _SPLITS))
    root = find_root(folder, needed, inside=("data", "fgvc-aircraft-2013b/data"))
    images = []
    for split in _SPLITS:
        variant, family, maker = (dict(read_pairs(root / f"images_{level}_{split}.txt")) for level in _LEVELS)
        for number in variant:
            if number not in family or number not in maker:
                raise ImagesNotUsable(
                    f"Image {number} is in images_variant_{split}.txt of {root} but not in the lists of families and "
                    "manufacturers; expected it in all three."
                )
            fine = f"{maker[number]}{JOINT}{variant[number]}"
            images.append(Listed(f"images/{number}.jpg", fine, family[number], split))
    return Listing("fgvc-aircraft", images, FileReader(root.absolute()))


def clean(image: Listed) -> Listed:
    """Put the manufacturer before the variant, unless it is there: `Boeing 737-200`, `Cessna 172`."""
    maker, _, variant = image.fine.rpartition(JOINT)
    brand = maker.partition(" ")[0]
    has_brand = not maker or variant.startswith(brand)
    return image._replace(fine=variant if has_brand else f"{maker} {variant}")


def also_called(label: str) -> tuple[str, ...]:
    """Name the variant without its manufacturer."""
    return (label.rpartition(JOINT)[2],)


AIRCRAFT = KnownSet(
    name="fgvc-aircraft",
    title="FGVC-Aircraft (2013b)",
    paper="Maji, Kannala, Rahtu, Blaschko and Vedaldi, Fine-grained visual classification of aircraft, arXiv 1306.5151",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    licence="non-commercial research; the photographs belong to their photographers",
    splits={"train": 3334, "val": 3333, "test": 3333},
    classes=100,
    images=10_000,
    class_names="the variant, behind its manufacturer where the variant does not name it: Boeing 737-200",
    coarse="family, of which there are 70: Boeing 737, DC-9",
    coarse_source="the set's own hierarchy (manufacturer, family, variant)",
    layout="images/*.jpg, images_{variant,family,manufacturer}_{train,val,test}.txt, here or in data/ below",
    read=read,
    clean=clean,
    also_called=also_called,
    hub=HubCopy("HuggingFaceM4/FGVC-Aircraft", Columns(("manufacturer", "variant"), "family")),
    note="the lowest 20 rows of each image are a banner with the photographer's name; fgdiag leaves them in",
)
