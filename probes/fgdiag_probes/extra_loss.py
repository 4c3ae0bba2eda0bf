"""How much further accuracy falls at each stage of a damaged run than in the undamaged one: the extra loss.

A loss that both have is no extra loss, so a model with a bottleneck of its own can be judged too. It is counted among
all fine classes, where there is more to lose than among those of one kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgdiag.store import Run
from fgdiag_probes.curves import LayerCurves
from fgdiag_probes.depths import comparable, depth_at, depths_of
from fgdiag_probes.drops import SIGNIFICANT
from fgdiag_probes.intervals import Estimates, clustered_means, holm
from fgdiag_probes.labels import Level
from fgdiag_probes.reading import Reading
from fgdiag_probes.verdict import Stage

STAGES: tuple[Stage, ...] = ("vision encoder", "projector", "language model", "answer")
LEVEL: Level = "fine"
LAST_DEPTH = ("vision", "projector", "last llm layer", "answer")
"""Where each stage ends."""


@dataclass(frozen=True)
class Seen:
    """What one run gets right, image by image: the same images in the same order for every case of a seed."""

    stages: np.ndarray
    """(stages, images) 0 or 1, at the end of each stage."""
    layers: np.ndarray
    """(1 + layers, images) the same for the projector and each site of the language model."""
    names: tuple[str, ...]
    """Sites of the language model."""
    clusters: np.ndarray

    @classmethod
    def of(cls, run: Run, curves: LayerCurves, answers: Reading) -> "Seen":
        """Collect what the probes and the answers of a run get right, of the images that both are asked."""
        labels = curves.labels
        asked = np.flatnonzero(comparable({LEVEL: answers}, LEVEL, labels))
        asked = asked[np.argsort(run.images["source"].to_numpy(str)[labels.test[asked]], kind="stable")]
        ends = {depth.name: depth for depth in depths_of(curves, {LEVEL: answers}, LEVEL)}
        before = [str(site) for site in run.sites if site.part == "projector"]
        names = tuple(str(site) for site in run.sites if site.part == "llm")
        along = [depth_at(curves, LEVEL, "layer", sites) for sites in (before, *([name] for name in names))]

        def right(readings: Sequence[Reading]) -> np.ndarray:
            return np.stack([reading.correct(labels, LEVEL)[asked] for reading in readings])

        return cls(
            right([ends[name].reading for name in LAST_DEPTH]),
            right([depth.reading for depth in along if depth]),
            names,
            labels.fine_names[labels.fine[labels.test][asked]],
        )

    def falling(self, damaged: "Seen") -> str:
        """Site of the language model with the largest extra fall from the site before."""
        falls = np.diff(_fallen(self.layers, damaged.layers).mean(1))
        return self.names[int(falls.argmax())]


def judge_extra(undamaged: np.ndarray, damaged: np.ndarray, clusters: np.ndarray) -> tuple[Stage, Estimates]:
    """Name the stage with the largest significant extra loss.

    Parameters
    ----------
    undamaged, damaged
        (stages, images) 0 or 1: whether the best readout at the end of each stage names an image rightly.
    clusters
        (images,) fine class.

    Returns
    -------
    stage, extra
        `none` where no extra loss is above zero with a Holm-corrected p-value below 0.05; the losses in points.
    """
    extra = clustered_means(np.diff(_fallen(undamaged, damaged), axis=0, prepend=0), clusters)
    lost = (holm(extra.p_value) < SIGNIFICANT) & (extra.mean > 0)
    return (STAGES[int(np.where(lost, extra.mean, -np.inf).argmax())] if lost.any() else "none"), extra


def _fallen(undamaged: np.ndarray, damaged: np.ndarray) -> np.ndarray:
    """Points that the damage has cost up to each depth, image by image."""
    return 100 * (undamaged - damaged)
