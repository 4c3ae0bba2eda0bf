"""ImageNet-1k (ILSVRC 2012)."""

from pathlib import Path

import numpy as np

from fgdiag.decode import SUFFIXES
from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import GHOSH, ZHANG, HubCopy, KnownSet
from fgdiag.known_sets.layout import files, find_root, folders, read_lines, read_mat, read_pairs, read_table
from fgdiag.listing import Listed, Listing

_MAPPING = ("LOC_synset_mapping.txt", "../../../LOC_synset_mapping.txt")
_VAL_LABELS = ("LOC_val_solution.csv", "../../../LOC_val_solution.csv")
_DEVKIT = "ILSVRC2012_devkit_t12/data"

# First words that name two classes, and the one that is called otherwise for it. `crane2` is what the copy on the hub
# calls the machine.
_MACHINE = ("n03126707", "crane2")
_CHANGED = {
    "crane": "crane bird",
    "crane2": "construction crane",
    "Cardigan, Cardigan Welsh corgi": "Cardigan Welsh corgi",
    "maillot, tank suit": "tank suit",
}


def read(folder: Path) -> Listing:
    """Read `train/<synset>/` and `val/`, the latter with folders of synsets, or flat with a list of their synsets.

    The words of a synset are read from Kaggle's `LOC_synset_mapping.txt` or from `meta.mat` of the development kit.
    """
    root = find_root(folder, ("train", "val"), inside=("Data/CLS-LOC", "ILSVRC/Data/CLS-LOC", "CLS-LOC"))
    words = _words(root)
    images = [*_in_folders(root, "train", words), *_val(root, words)]
    return Listing("imagenet-1k", images, FileReader(root.absolute()))


def _words(root: Path) -> dict[str, str]:
    """Return the words of each synset, `tench, Tinca tinca`."""
    if mapping := _first(root, _MAPPING):
        words = dict(read_pairs(mapping))
    elif (meta := root / _DEVKIT / "meta.mat").is_file():
        words = {one["WNID"]: one["words"] for one in read_mat(meta, "synsets") if one["num_children"] == 0}
    else:
        raise ImagesNotUsable(
            f"{root} does not say what its synsets are called; expected {_MAPPING[0]} or {_DEVKIT}/meta.mat in it."
        )
    machine, called = _MACHINE
    return {**words, machine: called} if machine in words else words


def _first(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((path for name in names if (path := root / name).is_file()), None)


def _in_folders(root: Path, part: str, words: dict[str, str]) -> list[Listed]:
    images = []
    for of_class in folders(root / part):
        if of_class.name not in words:
            raise ImagesNotUsable(
                f"{of_class} is no synset of ImageNet-1k; expected folders such as n01440764 in {part}/."
            )
        fine = words[of_class.name]
        images += [
            Listed(f"{part}/{of_class.name}/{f.name}", fine, None, part) for f in files(of_class, SUFFIXES)
        ]
    return images


def _val(root: Path, words: dict[str, str]) -> list[Listed]:
    if folders(root / "val"):
        return _in_folders(root, "val", words)
    flat = files(root / "val", SUFFIXES)
    if solution := _first(root, _VAL_LABELS):
        rows = read_table(solution, ("ImageId", "PredictionString"))
        synsets = {
            image: boxes.split()[0]
            for image, boxes in zip(rows["ImageId"], rows["PredictionString"], strict=True)
        }
    elif (truth := root / _DEVKIT / "ILSVRC2012_validation_ground_truth.txt").is_file():
        synsets = _from_devkit(root, truth, flat)
    else:
        raise ImagesNotUsable(
            f"{root / 'val'} has no folders of synsets, and no list says what its images show; expected "
            f"{_VAL_LABELS[0]} or {_DEVKIT}/{'ILSVRC2012_validation_ground_truth.txt'}."
        )
    return [Listed(f"val/{file.name}", words[synsets[file.stem]], None, "val") for file in flat]


def _from_devkit(root: Path, truth: Path, flat: list[Path]) -> dict[str, str]:
    """Number the images in the order of their names, as the list of their classes does."""
    of_id = {
        int(one["ILSVRC2012_ID"]): one["WNID"] for one in read_mat(root / _DEVKIT / "meta.mat", "synsets")
    }
    classes = np.array(read_lines(truth), dtype=int)
    if len(classes) != len(flat):
        raise ImagesNotUsable(
            f"{truth} has {len(classes)} lines for the {len(flat)} images of val/; expected as many."
        )
    return {file.stem: of_id[one] for file, one in zip(flat, classes.tolist(), strict=True)}


def clean(image: Listed) -> Listed:
    """Take the first of the words of a synset: `tench` of `tench, Tinca tinca`."""
    return image._replace(fine=_CHANGED.get(image.fine, image.fine.partition(", ")[0]))


def also_called(label: str) -> tuple[str, ...]:
    """Give the further words of the synset."""
    return tuple(label.split(", ")) if label not in ("crane", "crane2") else ("crane",)


IMAGENET = KnownSet(
    name="imagenet-1k",
    title="ImageNet-1k (ILSVRC 2012)",
    paper="Russakovsky et al., ImageNet large scale visual recognition challenge, IJCV 115, 2015",
    homepage="https://www.image-net.org/challenges/LSVRC/2012/",
    licence="non-commercial research and education, on the terms of ImageNet",
    splits={"train": 1_281_167, "val": 50_000},
    classes=1000,
    images=1_331_167,
    class_names="the first word of the synset, from LOC_synset_mapping.txt or the development kit; four first words "
    "that name two classes are made distinct",
    coarse="",
    coarse_source="WordNet has no level at which the classes fall into kinds of equal rank, so none is invented; a "
    "table of your own with a column coarse can give one",
    layout="train/<synset>/*.JPEG, val/<synset>/*.JPEG (or val/*.JPEG with LOC_val_solution.csv or the development "
    "kit's ground truth), LOC_synset_mapping.txt or ILSVRC2012_devkit_t12/data/meta.mat",
    read=read,
    clean=clean,
    also_called=also_called,
    hub=HubCopy("ILSVRC/imagenet-1k", Columns("label"), note="gated: accept its terms on the hub first"),
    used_by=(GHOSH, ZHANG),
    note="the test split has no public labels, so val is used as test; every file is read once for its "
    "hash, --limit or not",
)
