"""Classes in an order that puts what looks alike side by side.

Within each coarse class, and among the coarse classes, neighbours in the order are as similar as a tree of
averages allows: hierarchical clustering of class means with the leaves ordered optimally (Bar-Joseph et al. 2001,
"Fast optimal leaf ordering for hierarchical clustering"; `scipy.cluster.hierarchy`).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from fgdiag.store import Run
from fgdiag_probes.curves import LayerCurves
from fgdiag_probes.depths import sites_of


@dataclass(frozen=True)
class ClassOrder:
    """An order of the fine classes, those of one coarse class together.

    Attributes
    ----------
    classes
        (classes,) codes into `Labels.fine_names`.
    kinds
        (classes,) the coarse class of each, codes into `Labels.coarse_names`; all the same where there is none.
    """

    classes: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, fine: np.ndarray, kind_of: np.ndarray) -> Self:
        """Order classes by the similarity of their means.

        Parameters
        ----------
        features
            (rows, width) of training images.
        fine
            (rows,) class of each row; every class of `kind_of` has rows.
        kind_of
            (classes,) the coarse class of each fine class.
        """
        spread = features.std(0)
        scaled = (features - features.mean(0)) / np.where(spread > 0, spread, np.inf)
        means = np.stack([scaled[fine == code].mean(0) for code in range(len(kind_of))])
        kinds = np.unique(kind_of)
        members = [np.flatnonzero(kind_of == kind) for kind in kinds]
        of_kinds = _in_order(np.stack([means[found].mean(0) for found in members]))
        classes = np.concatenate([members[kind][_in_order(means[members[kind]])] for kind in of_kinds])
        return cls(classes, kind_of[classes])

    @property
    def blocks(self) -> list[tuple[int, int, int]]:
        """Coarse class, first position and the position after the last, block by block."""
        ends = [*(np.flatnonzero(np.diff(self.kinds)) + 1).tolist(), len(self.kinds)]
        return [
            (int(self.kinds[end - 1]), start, end) for start, end in zip([0, *ends[:-1]], ends, strict=True)
        ]


def class_order(run: Run, curves: LayerCurves, *, site: str | None = None) -> ClassOrder:
    """Order the classes of a run by what the best readout of a site makes of the training images.

    Parameters
    ----------
    site
        Default: what the projector is fed, or the first site where that was not recorded. Attention has no vectors,
        so it does not speak here.

    Raises
    ------
    SiteNotFound
        The run has no such site.
    """
    labels = curves.labels
    if site is None:
        site = next(iter(sites_of(curves).values()))[0]
    place = curves.best("fine", [site], pooled=True) or (site, run.readouts(site)[0])
    features = run.activations(*place)[labels.train].astype(np.float64)
    return ClassOrder.of(features, labels.fine[labels.train], labels.siblings.argmax(0))


def _in_order(means: np.ndarray) -> np.ndarray:
    """(rows,) positions such that neighbours are similar."""
    if len(means) < 3:
        return np.arange(len(means))
    return leaves_list(linkage(means, "average", optimal_ordering=True))
