"""Published image sets that can be opened by name: what is known of each, and how its copies are read.

    open_images("flowers-102")                  the copy on the hub
    open_images("flowers-102:/data/flowers")    an own copy: the original folder, or a `save_to_disk` of the hub's

`fgdiag sets` lists them, and `docs/image-sets.md` says more of each.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from fgdiag.errors import FgdiagError, ImagesNotUsable
from fgdiag.image_dataset import is_saved_dataset, list_hub_dataset, list_saved_dataset
from fgdiag.known_sets.aircraft import AIRCRAFT
from fgdiag.known_sets.caltech import CALTECH
from fgdiag.known_sets.cars import CARS
from fgdiag.known_sets.cub import CUB
from fgdiag.known_sets.dogs import DOGS
from fgdiag.known_sets.elpv import ELPV
from fgdiag.known_sets.flowers import FLOWERS
from fgdiag.known_sets.food import FOOD
from fgdiag.known_sets.grocery import GROCERY
from fgdiag.known_sets.ham10000 import HAM10000
from fgdiag.known_sets.imagenet import IMAGENET
from fgdiag.known_sets.inat import INAT
from fgdiag.known_sets.known_set import HubCopy, KnownSet
from fgdiag.known_sets.pets import PETS
from fgdiag.listing import Listed, Listing

__all__ = ["KNOWN_SETS", "HubCopy", "KnownSet", "facts", "is_known_set", "list_known_set", "whole_name"]

KNOWN_SETS = {
    one.name: one
    for one in (
        IMAGENET,
        FLOWERS,
        PETS,
        FOOD,
        CUB,
        CARS,
        AIRCRAFT,
        DOGS,
        CALTECH,
        INAT,
        GROCERY,
        HAM10000,
        ELPV,
    )
}


def facts(name: str) -> KnownSet:
    """Return what is known of a set.

    Raises
    ------
    ImagesNotUsable
        No set of that name is known; the message lists them.

    Examples
    --------
    >>> facts("oxford-pets").synonyms["Shiba Inu"]
    ('Shiba',)
    """
    if name.lower() not in KNOWN_SETS:
        raise ImagesNotUsable(f"No image set {name!r} is known; expected one of {', '.join(KNOWN_SETS)}.")
    return KNOWN_SETS[name.lower()]


def is_known_set(source: str) -> bool:
    """Whether this is the name of a known set, alone or with a folder: `flowers-102:/data/flowers`."""
    return source.partition(":")[0].lower() in KNOWN_SETS


def whole_name(source: str) -> str:
    """Write the folder of `flowers-102:flowers/` in full, so that it is found from anywhere."""
    name, colon, folder = source.partition(":")
    return f"{name.lower()}{colon}{Path(folder).expanduser().resolve() if folder else ''}"


def list_known_set(source: str) -> Listing:
    """List the images of a known set, with the names and kinds that `facts` tells of.

    Parameters
    ----------
    source
        The name alone, for the copy on the hub or, where a package brings the images, that package; or the name,
        a colon and a folder: the original one, or one that `save_to_disk` wrote of the copy on the hub.

    Raises
    ------
    ImagesNotUsable
        No such folder, files that are not those of the set, or no copy that can be had by the name alone.
    """
    name, _, folder = source.partition(":")
    known = facts(name)
    listing, raw = _listed(known, folder)
    if not raw:
        raise ImagesNotUsable(f"No image of {known.title} in {folder or name}; expected {known.layout}.")
    return replace(
        listing,
        name=known.name,
        images=[known.clean(image) for image in raw],
        synonyms=_synonyms(known, raw),
    )


def _listed(known: KnownSet, folder: str) -> tuple[Listing, list[Listed]]:
    """Return a listing, and its images with the splits to use and the labels of the copy."""
    path = Path(folder).expanduser() if folder else _of_package(known)
    if path is not None and not is_saved_dataset(path):
        listing = _from_folder(known, path)
        return listing, listing.images
    if known.hub is None:
        raise ImagesNotUsable(
            f"fgdiag knows no copy of {known.title} on the hub; get it from {known.homepage} and give its folder: "
            f"{known.name}:FOLDER"
            + (f" (or install the package: pip install 'fgdiag[{known.name}]')." if known.package else ".")
        )
    columns = known.hub.columns
    listing = list_saved_dataset(path, columns) if path else list_hub_dataset(known.hub.id, columns)
    if known.hub.splits:
        return listing, listing.images
    return listing, [image._replace(split=None) for image in listing.images]


def _of_package(known: KnownSet) -> Path | None:
    """Return the folder of images that an installed package brings along."""
    module, _, below = known.package.partition("/")
    spec = find_spec(module) if module else None
    return Path(spec.origin).parent / below if spec and spec.origin else None


def _from_folder(known: KnownSet, folder: Path) -> Listing:
    if not folder.is_dir():
        raise ImagesNotUsable(f"There is no folder {folder}; expected {known.title}: {known.layout}.")
    try:
        return known.read(folder)
    except FgdiagError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, OSError) as error:
        raise ImagesNotUsable(
            f"{folder} cannot be read as {known.title} ({type(error).__name__}: {error}); expected {known.layout}."
        ) from error


def _synonyms(known: KnownSet, raw: Iterable[Listed]) -> dict[str, tuple[str, ...]]:
    """Further names of each class; one that two classes would share tells nothing and is left out."""
    names: dict[str, set[str]] = defaultdict(set)
    for label, name in {(image.fine, known.clean(image).fine) for image in raw}:
        names[name] |= {*known.also_called(label), *known.synonyms.get(name, ())}
    taken = defaultdict(set)
    for name, others in names.items():
        for words in (name, *others):
            taken[words.lower()].add(name)
    own = {
        name: tuple(sorted(words for words in others if len(taken[words.lower()]) == 1 and words != name))
        for name, others in names.items()
    }
    return {name: own[name] for name in sorted(own) if own[name]}
