"""HAM10000: dermatoscopic photographs of pigmented skin lesions."""

from pathlib import Path

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_table
from fgdiag.listing import Listed, Listing

_METADATA = ("HAM10000_metadata.csv", "HAM10000_metadata")
_FOLDERS = (
    "HAM10000_images_part_1",
    "HAM10000_images_part_2",
    "ham10000_images_part_1",
    "ham10000_images_part_2",
)

# The code of the metadata, and the words of a copy on the hub, in lower case.
NAMES = {
    **dict.fromkeys(("akiec", "actinic_keratoses"), "actinic keratosis"),
    **dict.fromkeys(("bcc", "basal_cell_carcinoma"), "basal cell carcinoma"),
    **dict.fromkeys(("bkl", "benign_keratosis-like_lesions"), "benign keratosis"),
    **dict.fromkeys(("df", "dermatofibroma"), "dermatofibroma"),
    **dict.fromkeys(("mel", "melanoma"), "melanoma"),
    **dict.fromkeys(("nv", "melanocytic_nevi"), "melanocytic nevus"),
    **dict.fromkeys(("vasc", "vascular_lesions"), "vascular lesion"),
}
_MALIGNANT = ("actinic keratosis", "basal cell carcinoma", "melanoma")

SYNONYMS = {
    "actinic keratosis": ("solar keratosis", "Bowen's disease", "intraepithelial carcinoma"),
    "basal cell carcinoma": ("basalioma", "BCC"),
    "benign keratosis": (
        "seborrheic keratosis",
        "seborrhoeic keratosis",
        "solar lentigo",
        "lichenoid keratosis",
    ),
    "melanoma": ("malignant melanoma",),
    "melanocytic nevus": ("melanocytic naevus", "mole", "naevus", "nevus"),
    "vascular lesion": ("angioma", "angiokeratoma", "pyogenic granuloma", "hemangioma", "haemangioma"),
}


def read(folder: Path) -> Listing:
    """Read the metadata: `lesion_id`, `image_id` and the diagnosis `dx`; the lesion is the group of its images."""
    metadata = next((name for name in _METADATA if (folder / name).is_file()), _METADATA[0])
    root = find_root(folder, (metadata,))
    if not (parts := [name for name in _FOLDERS if (root / name).is_dir()]):
        raise ImagesNotUsable(f"{root} has no folder of images; expected {_FOLDERS[0]}/ and {_FOLDERS[1]}/.")
    of_image = {file.stem: f"{part}/{file.name}" for part in parts for file in (root / part).glob("*.jpg")}
    rows = read_table(root / metadata, ("lesion_id", "image_id", "dx"))
    return Listing(
        "ham10000",
        [
            Listed(of_image.get(image, f"{parts[0]}/{image}.jpg"), diagnosis, None, None, lesion)
            for lesion, image, diagnosis in rows[["lesion_id", "image_id", "dx"]].itertuples(index=False)
        ],
        FileReader(root.absolute()),
    )


def clean(image: Listed) -> Listed:
    """Write out the code of a diagnosis, and say whether it is malignant."""
    name = NAMES.get(image.fine.lower(), image.fine)
    return image._replace(
        fine=name, coarse="malignant skin lesion" if name in _MALIGNANT else "benign skin lesion"
    )


HAM10000 = KnownSet(
    name="ham10000",
    title="HAM10000 (skin lesions)",
    paper="Tschandl, Rosendahl and Kittler, The HAM10000 dataset, Scientific Data 5, 2018",
    homepage="https://doi.org/10.7910/DVN/DBW86T",
    licence="CC BY-NC 4.0",
    splits={},
    classes=7,
    images=10_015,
    class_names="the diagnosis codes of the metadata (nv, mel, ...) written out",
    coarse="benign or malignant",
    coarse_source="medical usage: melanoma, basal cell carcinoma, and actinic keratosis with intraepithelial carcinoma "
    "count as malignant; the last is its early stage, and some authors count it apart",
    layout="HAM10000_metadata.csv, HAM10000_images_part_1/*.jpg, HAM10000_images_part_2/*.jpg",
    read=read,
    clean=clean,
    hub=HubCopy(
        "marmal88/skin_cancer",
        Columns("dx", group="lesion_id", once="image_id"),
        splits=False,
        note="its splits hold the same photographs more than once; they are joined, each photograph is taken once, and "
        "a split by lesion is made",
    ),
    group="photographs of one lesion (7,470 lesions)",
    synonyms=SYNONYMS,
    note="two thirds are melanocytic nevi; the public set has no labelled test split of its own, so one is made",
)
