"""ELPV: defects of solar cells in electroluminescence images."""

from pathlib import Path

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import KnownSet
from fgdiag.known_sets.layout import find_root, read_lines
from fgdiag.listing import Listed, Listing

# The experts said functional or defective, and whether they were sure; the set writes that as a probability.
_GRADES = ("functional", "probably functional", "probably defective", "defective")
_KINDS = {"mono": "monocrystalline", "poly": "polycrystalline"}


def read(folder: Path) -> Listing:
    """Read `labels.csv`: image, probability of a defect (0, 1/3, 2/3 or 1) and kind of cell, with blanks between."""
    root = find_root(
        folder, ("images", "labels.csv"), inside=("data", "src/elpv_dataset/data", "elpv_dataset/data")
    )
    images = []
    for line in read_lines(root / "labels.csv"):
        parts = line.replace(",", " ").split()
        if len(parts) != 3 or parts[2] not in _KINDS:
            raise ImagesNotUsable(
                f"{root / 'labels.csv'} has the line {line!r}; expected an image, a probability, and mono or poly."
            )
        grade = _GRADES[round(3 * float(parts[1]))]
        images.append(Listed(parts[0], f"{grade} {_KINDS[parts[2]]} solar cell", _kind(parts[2])))
    return Listing("elpv", images, FileReader(root.absolute()))


def _kind(of_cell: str) -> str:
    return f"{_KINDS[of_cell]} solar cell"


ELPV = KnownSet(
    name="elpv",
    title="ELPV (solar cells)",
    paper="Deitsch et al., Automatic classification of defective photovoltaic module cells in electroluminescence "
    "images, Solar Energy 185, 2019",
    homepage="https://github.com/zae-bayern/elpv-dataset",
    licence="CC BY-NC-SA 4.0",
    splits={},
    classes=8,
    images=2624,
    class_names="probability of a defect in words (functional, probably functional, probably defective, defective) "
    "and the kind of cell",
    coarse="monocrystalline or polycrystalline",
    coarse_source="the set's own column of kinds",
    layout="images/*.png, labels.csv",
    read=read,
    package="elpv_dataset/data",
    note="the cells are cut from 44 modules, and the set does not say from which, so cells of one module may lie on "
    "both sides of a split; the two middle grades are what the experts were unsure of",
)
