"""Oxford Flowers-102."""

from pathlib import Path

import numpy as np

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import GHOSH, ZHANG, HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_mat
from fgdiag.listing import Listed, Listing

# In the order of the labels 1 to 102. Changed from the authors' page: `pink-yellow dahlia?`, `globe-flower` and
# `desert-rose`. The spelling `barbeton daisy` is theirs; see the synonyms.
_NAMES = (
    "pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid, "
    "bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris, "
    "globe flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, "
    "pincushion flower, fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, "
    "stemless gentian, artichoke, sweet william, carnation, garden phlox, love in the mist, mexican aster, "
    "alpine sea holly, ruby-lipped cattleya, cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, "
    "daffodil, sword lily, poinsettia, bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, "
    "common dandelion, petunia, wild pansy, primula, sunflower, pelargonium, bishop of llandaff, gaura, geranium, "
    "orange dahlia, pink and yellow dahlia, cautleya spicata, japanese anemone, black-eyed susan, silverbush, "
    "californian poppy, osteospermum, spring crocus, bearded iris, windflower, tree poppy, gazania, azalea, "
    "water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily, anthurium, frangipani, clematis, "
    "hibiscus, columbine, desert rose, tree mallow, magnolia, cyclamen, watercress, canna lily, hippeastrum, bee balm, "
    "ball moss, foxglove, bougainvillea, camellia, mallow, mexican petunia, bromelia, blanket flower, trumpet creeper, "
    "blackberry lily"
)
NAMES = tuple(_NAMES.split(", "))
_CHANGED = {
    "pink-yellow dahlia?": "pink and yellow dahlia",
    "pink-yellow dahlia": "pink and yellow dahlia",
    "globe-flower": "globe flower",
    "desert-rose": "desert rose",
}

SYNONYMS = {
    "moon orchid": ("moth orchid", "phalaenopsis"),
    "monkshood": ("aconite", "wolfsbane"),
    "globe thistle": ("echinops",),
    "snapdragon": ("antirrhinum",),
    "colt's foot": ("coltsfoot",),
    "spear thistle": ("bull thistle",),
    "globe flower": ("globeflower", "trollius"),
    "purple coneflower": ("echinacea",),
    "peruvian lily": ("alstroemeria",),
    "balloon flower": ("platycodon",),
    "giant white arum lily": ("arum lily", "calla lily"),
    "pincushion flower": ("scabiosa", "scabious"),
    "corn poppy": ("common poppy", "field poppy", "red poppy"),
    "love in the mist": ("love-in-a-mist", "nigella"),
    "mexican aster": ("cosmos", "garden cosmos"),
    "alpine sea holly": ("eryngium",),
    "great masterwort": ("astrantia",),
    "siam tulip": ("curcuma",),
    "lenten rose": ("hellebore",),
    "barbeton daisy": ("barberton daisy", "gerbera", "gerbera daisy"),
    "sword lily": ("gladiolus",),
    "common dandelion": ("dandelion",),
    "wild pansy": ("heartsease",),
    "japanese anemone": ("chinese anemone",),
    "black-eyed susan": ("rudbeckia",),
    "californian poppy": ("california poppy",),
    "osteospermum": ("african daisy", "cape daisy"),
    "water lily": ("waterlily",),
    "thorn apple": ("datura", "jimsonweed"),
    "passion flower": ("passionflower",),
    "anthurium": ("flamingo flower",),
    "frangipani": ("plumeria",),
    "columbine": ("aquilegia",),
    "desert rose": ("adenium",),
    "watercress": ("nasturtium",),
    "canna lily": ("canna",),
    "hippeastrum": ("amaryllis",),
    "bee balm": ("monarda",),
    "foxglove": ("digitalis",),
    "bromelia": ("bromeliad",),
    "blanket flower": ("gaillardia",),
    "trumpet creeper": ("trumpet vine",),
    "blackberry lily": ("leopard lily",),
}

_SPLITS = {"trnid": "train", "valid": "val", "tstid": "test"}


def read(folder: Path) -> Listing:
    """Read `imagelabels.mat` (labels from 1) and `setid.mat` (numbers of the images of each split, from 1)."""
    root = find_root(folder, ("jpg", "imagelabels.mat", "setid.mat"), inside=("flowers-102", "102flowers"))
    labels = np.atleast_1d(read_mat(root / "imagelabels.mat", "labels"))
    images = []
    for key, split in _SPLITS.items():
        for number in np.atleast_1d(read_mat(root / "setid.mat", key)).tolist():
            if not 1 <= number <= len(labels):
                raise ImagesNotUsable(
                    f"{root / 'setid.mat'} names image {number}; expected 1 to {len(labels)}, "
                    "as many as imagelabels.mat has."
                )
            images.append(Listed(f"jpg/image_{number:05}.jpg", NAMES[labels[number - 1] - 1], None, split))
    images.sort()
    return Listing("flowers-102", images, FileReader(root.absolute()))


def clean(image: Listed) -> Listed:
    """Tidy a name as the authors' page, and copies of it, have it."""
    name = image.fine.lower()
    return image._replace(fine=_CHANGED.get(name, name))


FLOWERS = KnownSet(
    name="flowers-102",
    title="Oxford Flowers-102",
    paper="Nilsback and Zisserman, Automated flower classification over a large number of classes, ICVGIP 2008",
    homepage="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    licence="none stated by the authors",
    splits={"train": 1020, "val": 1020, "test": 6149},
    classes=102,
    images=8189,
    class_names="kept in fgdiag, as the files hold numbers only; from the authors' page, three of them tidied",
    coarse="",
    coarse_source="the set groups its classes in no way",
    layout="jpg/image_00001.jpg ..., imagelabels.mat, setid.mat",
    read=read,
    clean=clean,
    hub=HubCopy("dpdl-benchmark/oxford_flowers102", Columns("label")),
    synonyms=SYNONYMS,
    used_by=(GHOSH, ZHANG),
    note="the test split is six times the train split; train and val have 10 images a class each",
)
