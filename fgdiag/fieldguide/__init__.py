"""A field guide drawn by code: 40 invented bird species in 8 genera, with a mask for every part.

No photograph needs to be shipped or fetched, and the truth is known: which marks tell two species apart, and
where in each picture they are. Species of one genus share shape and plumage and differ in one or two small
marks.
"""

from fgdiag.fieldguide.plate import Plate, draw_bird
from fgdiag.fieldguide.scenes import TOPICS, draw_scene, write_scenes
from fgdiag.fieldguide.species import (
    GENERA,
    MARKS,
    PARTS,
    SPECIES,
    Species,
    differing_parts,
    species_named,
)
from fgdiag.fieldguide.write import load_masks, write_fieldguide

__all__ = [
    "GENERA",
    "MARKS",
    "PARTS",
    "SPECIES",
    "TOPICS",
    "Plate",
    "Species",
    "differing_parts",
    "draw_bird",
    "draw_scene",
    "load_masks",
    "species_named",
    "write_fieldguide",
    "write_scenes",
]
