"""The depths at which a run is compared with itself, and what speaks for each."""

from dataclasses import dataclass

import numpy as np

from fgdiag.errors import RunIncomplete
from fgdiag.sites import Site
from fgdiag_probes.curves import LayerCurves
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Reading, Readings

REFERENCE = "image-only reference"
"""The depth before all others: what a reader without the VLM's language model names right."""

OWN = "own encoder"
"""The VLM's own vision encoder, where it is read as an image-only model."""

NETWORK = "network"
"""Readout of a depth for which a small network speaks."""

LOSING_STAGE = {
    "vision": "vision encoder",
    "projector": "projector",
    "best llm layer": "language model",
    "last llm layer": "language model",
    "answer": "answer",
}
"""Every depth in order, with the stage just before it: the one that lost what is missing there."""


@dataclass(frozen=True)
class Depth:
    """The site and readout that speak for one depth at one level, and what they say about each test image."""

    name: str
    site: str
    readout: str
    reading: Reading


def sites_of(curves: LayerCurves) -> dict[str, list[str]]:
    """The sites among which the best speaks for a depth, by name of the depth; probed depths only.

    The last LLM layer is the last that was recorded.
    """
    sites = sorted({Site.parse(site) for site, _ in curves.readings})
    llm = [str(site) for site in sites if site.part == "llm"]
    among = {
        "vision": ["vision"],
        "projector": [str(site) for site in sites if site.part == "projector"],
        "best llm layer": llm,
        "last llm layer": llm[-1:],
    }
    return {name: found for name, found in among.items() if curves.best("fine", found)}


def depths_of(curves: LayerCurves, answers: Readings | None, level: Level) -> list[Depth]:
    """Depths from the vision encoder to the answer, those that the run has.

    The best of all readouts speaks for a depth, and of all sites where there are several; chosen on held-out
    training images.

    Raises
    ------
    RunIncomplete
        There are not two to compare.
    """
    found = [depth_at(curves, level, name, among) for name, among in sites_of(curves).items()]
    depths = [depth for depth in found if depth]
    if len(depths) + (answers is not None) < 2:
        raise RunIncomplete(
            f"The run has recorded {len(depths)} of the depths that are compared; expected two or more. Record it anew "
            "with vision, projector or LLM layers among --sites, or ask the model (`fgdiag answer`)."
        )
    if answers is not None:
        depths.append(Depth("answer", "answer", "likelihood", answers[level]))
    return depths


def depth_at(curves: LayerCurves, level: Level, name: str, sites: list[str]) -> Depth | None:
    """Return the depth called `name` for which the best readout of `sites` speaks, if there is one."""
    place = curves.best(level, sites)
    return Depth(name, *place, curves.readings[place][level]) if place else None


def comparable(answers: Readings | None, level: Level, labels: Labels) -> np.ndarray:
    """(test,) bool: the images that every depth has something to say about."""
    asked = labels.asked(level, labels.test)
    return asked if answers is None else asked & ~np.isnan(answers[level].bits)
