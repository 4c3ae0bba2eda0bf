"""The birds of the field guide: eight invented genera of five species, and the marks that tell them apart.

A species is its genus plus one mark, and the first word of its name says which: every `Ringed` bird wears a
white eye-ring, every `Barred` one two white wing bars. What is not marked is `plain`, as in all the genus.
"""

from dataclasses import dataclass
from types import MappingProxyType

PARTS = ("bird", "bill", "crown", "eye_ring", "wing", "breast", "tail", "legs")
"""Every part that has a mask, in the order of the bits on disk. `bird` is the whole animal."""

MARKED_PARTS = PARTS[1:]

MARKS = MappingProxyType(
    {
        "Amber": ("legs", "orange"),
        "Banded": ("breast", "band"),
        "Barred": ("wing", "bars"),
        "Capped": ("crown", "black"),
        "Coral": ("bill", "red"),
        "Golden": ("crown", "yellow"),
        "Ivory": ("bill", "pale"),
        "Lance": ("bill", "long"),
        "Patched": ("wing", "patch"),
        "Ringed": ("eye_ring", "white"),
        "Rosy": ("breast", "rose"),
        "Ruby": ("crown", "red"),
        "Rusty": ("tail", "rufous"),
        "Snowy": ("crown", "white"),
        "Spotted": ("breast", "spots"),
        "Streaked": ("breast", "streaks"),
        "Striped": ("crown", "stripes"),
        "Tipped": ("tail", "white tip"),
    }
)
"""What the first word of a name says: the part that is marked, and how."""

GENERA = (
    "Larkfinch",
    "Reedwren",
    "Mossthrush",
    "Sandplover",
    "Brookjay",
    "Pondfisher",
    "Barkpecker",
    "Rosedove",
)
"""The coarse classes."""

_MEMBERS = {
    "Larkfinch": ("Ringed", "Barred", "Capped", "Ruby", "Streaked"),
    "Reedwren": ("Striped", "Spotted", "Barred", "Patched", "Tipped"),
    "Mossthrush": ("Spotted", "Streaked", "Banded", "Ringed", "Coral"),
    "Sandplover": ("Banded", "Capped", "Amber", "Lance", "Coral"),
    "Brookjay": ("Capped", "Snowy", "Barred", "Rusty", "Tipped"),
    "Pondfisher": ("Snowy", "Spotted", "Coral", "Ivory", "Patched"),
    "Barkpecker": ("Ruby", "Golden", "Rosy", "Streaked", "Ringed"),
    "Rosedove": ("Ringed", "Patched", "Amber", "Banded", "Tipped"),
}


@dataclass(frozen=True)
class Species:
    """One fine class. Each part is `plain`, or marked as `MARKS` says."""

    name: str
    genus: str
    bill: str = "plain"
    crown: str = "plain"
    eye_ring: str = "plain"
    wing: str = "plain"
    breast: str = "plain"
    tail: str = "plain"
    legs: str = "plain"

    @property
    def marks(self) -> dict[str, str]:
        """How each part looks, in the order of `MARKED_PARTS`."""
        return {part: getattr(self, part) for part in MARKED_PARTS}


def _species(word: str, genus: str) -> Species:
    part, look = MARKS[word]
    return Species(f"{word} {genus}", genus, **{part: look})


SPECIES: tuple[Species, ...] = tuple(_species(word, genus) for genus in GENERA for word in _MEMBERS[genus])
"""The fine classes, genus by genus."""


def species_named(name: str) -> Species:
    """Find a species by its name, with blanks or with the hyphens of the folder names.

    Raises
    ------
    KeyError
        There is no such species.
    """
    return _BY_NAME[name.replace("-", " ")]


_BY_NAME = {species.name: species for species in SPECIES}


def differing_parts(species_a: Species, species_b: Species) -> tuple[str, ...]:
    """Name the parts by which two species can be told apart, in the order of `PARTS`.

    Two genera differ everywhere: all of `PARTS`, the whole `bird` included.

    Examples
    --------
    >>> differing_parts(species_named("Ringed Larkfinch"), species_named("Barred Larkfinch"))
    ('eye_ring', 'wing')
    """
    if species_a.genus != species_b.genus:
        return PARTS
    marks_a, marks_b = species_a.marks, species_b.marks
    return tuple(part for part in MARKED_PARTS if marks_a[part] != marks_b[part])
