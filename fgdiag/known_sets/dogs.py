"""Stanford Dogs."""

import re
from pathlib import Path

import numpy as np

from fgdiag.image_dataset import Columns
from fgdiag.image_folder import FileReader
from fgdiag.known_sets.known_set import CHANDHOK, HubCopy, KnownSet
from fgdiag.known_sets.layout import find_root, read_mat
from fgdiag.listing import Listed, Listing

# WordNet 3: the child of `dog` (of `hunting dog`, for hounds, terriers and sporting dogs) that a breed lies under.
# A breed that is such a child itself, such as the pug, is not here and is a kind of its own.
KINDS = {
    "toy dog": "Chihuahua, Japanese spaniel, Maltese dog, Pekinese, Shih-Tzu, Blenheim spaniel, papillon, toy terrier",
    "hound": "Afghan hound, basset, beagle, bloodhound, bluetick, black-and-tan coonhound, Walker hound, "
    "English foxhound, redbone, borzoi, Irish wolfhound, Italian greyhound, whippet, Ibizan hound, "
    "Norwegian elkhound, otterhound, Saluki, Scottish deerhound, Weimaraner",
    "terrier": "Staffordshire bullterrier, American Staffordshire terrier, Bedlington terrier, Border terrier, "
    "Kerry blue terrier, Irish terrier, Norfolk terrier, Norwich terrier, Yorkshire terrier, wire-haired fox terrier, "
    "Lakeland terrier, Sealyham terrier, Airedale, cairn, Australian terrier, Dandie Dinmont, Boston bull, "
    "miniature schnauzer, giant schnauzer, standard schnauzer, Scotch terrier, Tibetan terrier, silky terrier, "
    "soft-coated wheaten terrier, West Highland white terrier, Lhasa",
    "sporting dog": "flat-coated retriever, curly-coated retriever, golden retriever, Labrador retriever, "
    "Chesapeake Bay retriever, German short-haired pointer, vizsla, English setter, Irish setter, Gordon setter, "
    "Brittany spaniel, clumber, English springer, Welsh springer spaniel, cocker spaniel, Sussex spaniel, "
    "Irish water spaniel",
    "working dog": "kuvasz, schipperke, groenendael, malinois, briard, kelpie, komondor, Old English sheepdog, "
    "Shetland sheepdog, collie, Border collie, Bouvier des Flandres, Rottweiler, German shepherd, Doberman, "
    "miniature pinscher, Greater Swiss Mountain dog, Bernese mountain dog, Appenzeller, EntleBucher, boxer, "
    "bull mastiff, Tibetan mastiff, French bulldog, Great Dane, Saint Bernard, Eskimo dog, malamute, Siberian husky, "
    "affenpinscher",
    "spitz": "Samoyed, Pomeranian, chow, keeshond",
    "griffon": "Brabancon griffon",
    "corgi": "Pembroke, Cardigan",
    "poodle": "toy poodle, miniature poodle, standard poodle",
    "wild dog": "dingo, dhole, African hunting dog",
}

SYNONYMS = {
    "African hunting dog": ("African wild dog", "painted dog"),
    "Airedale": ("Airedale terrier",),
    "American Staffordshire terrier": (
        "American pit bull terrier",
        "pit bull terrier",
        "Staffordshire terrier",
    ),
    "Blenheim spaniel": ("Cavalier King Charles spaniel", "King Charles spaniel"),
    "Boston bull": ("Boston terrier",),
    "Brabancon griffon": ("Brussels griffon",),
    "Brittany spaniel": ("Brittany",),
    "Cardigan": ("Cardigan Welsh corgi",),
    "Doberman": ("Doberman pinscher",),
    "English springer": ("English springer spaniel",),
    "Eskimo dog": ("husky",),
    "German shepherd": ("German shepherd dog", "alsatian"),
    "German short-haired pointer": ("German shorthaired pointer",),
    "Great Pyrenees": ("Pyrenean mountain dog",),
    "Irish setter": ("red setter",),
    "Japanese spaniel": ("Japanese chin",),
    "Leonberg": ("Leonberger",),
    "Lhasa": ("Lhasa apso",),
    "Maltese dog": ("Maltese", "Maltese terrier"),
    "Mexican hairless": ("Xoloitzcuintli", "xolo"),
    "Norwegian elkhound": ("elkhound",),
    "Old English sheepdog": ("bobtail",),
    "Pekinese": ("Pekingese",),
    "Pembroke": ("Pembroke Welsh corgi",),
    "Saluki": ("gazelle hound",),
    "Scotch terrier": ("Scottish terrier", "Scottie"),
    "Scottish deerhound": ("deerhound",),
    "Shetland sheepdog": ("sheltie",),
    "Staffordshire bullterrier": ("Staffordshire bull terrier",),
    "Walker hound": ("Treeing Walker coonhound", "Walker foxhound"),
    "West Highland white terrier": ("westie",),
    "basset": ("basset hound",),
    "black-and-tan coonhound": ("black and tan coonhound",),
    "bluetick": ("bluetick coonhound",),
    "borzoi": ("Russian wolfhound",),
    "bull mastiff": ("bullmastiff",),
    "cairn": ("cairn terrier",),
    "chow": ("chow chow",),
    "clumber": ("clumber spaniel",),
    "cocker spaniel": ("cocker", "English cocker spaniel"),
    "groenendael": ("Belgian sheepdog", "Belgian shepherd"),
    "malamute": ("Alaskan malamute",),
    "malinois": ("Belgian malinois",),
    "redbone": ("redbone coonhound",),
    "silky terrier": ("Australian silky terrier",),
    "wire-haired fox terrier": ("wire fox terrier",),
}


def _key(breed: str) -> str:
    return re.sub(r"[-_\s]+", " ", breed).lower()


_NAMES = {_key(name): name for kind in KINDS.values() for name in kind.split(", ")}
_KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split(", ")}


def read(folder: Path) -> Listing:
    """Read `train_list.mat` and `test_list.mat`: `n02085620-Chihuahua/n02085620_5927.jpg` and its like."""
    root = find_root(folder, ("Images", "train_list.mat", "test_list.mat"), inside=("stanford-dogs", "lists"))
    images = []
    for split in ("train", "test"):
        for path in np.atleast_1d(read_mat(root / f"{split}_list.mat", "file_list")).tolist():
            images.append(Listed(f"Images/{path}", path.partition("/")[0], None, split))
    return Listing("stanford-dogs", images, FileReader(root.absolute()))


def clean(image: Listed) -> Listed:
    """`n02088094-Afghan_hound` to `Afghan hound`, coarse `hound`."""
    breed = re.sub(r"^n\d{8}-", "", image.fine)
    name = _NAMES.get(_key(breed), breed.replace("_", " "))
    return image._replace(fine=name, coarse=_KIND_OF.get(name, name))


DOGS = KnownSet(
    name="stanford-dogs",
    title="Stanford Dogs",
    paper="Khosla, Jayadevaprakash, Yao and Li, Novel dataset for fine-grained image categorization, FGVC at CVPR 2011",
    homepage="http://vision.stanford.edu/aditya86/ImageNetDogs/",
    licence="non-commercial research, on the terms of ImageNet",
    splits={"train": 12_000, "test": 8580},
    classes=120,
    images=20_580,
    class_names="from the names of the folders, which are WordNet's",
    coarse="kind of dog: hound, terrier, spitz",
    coarse_source="WordNet 3, the synset below dog (hunting dogs parted into hounds, terriers and sporting dogs); a "
    "breed directly below dog, such as the pug, is a kind of its own",
    layout="Images/<class>/*.jpg, train_list.mat, test_list.mat",
    read=read,
    clean=clean,
    hub=HubCopy("Donghyun99/Stanford-Dogs", Columns("label")),
    synonyms=SYNONYMS,
    used_by=(CHANDHOK,),
    note="its photographs are ImageNet's, so encoders trained on ImageNet may have seen its test images",
)
