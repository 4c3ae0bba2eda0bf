"""Linear probes at matched width: each site cut to the width of the narrowest, so that none wins by being wide.

The cut is a principal component analysis of the standardised features, and the probe is the one of
`fgdiag_probes.linear` on the leading directions: at full width it is the same probe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgdiag_probes.labels import Labels
from fgdiag_probes.linear import BITS, PENALTIES, TOLERANCE, Basis, ChosenProbe, fit_at
from fgdiag_probes.reading import Reading, Readings, choice_of_probe
from fgdiag_probes.solver import follow


def read_at_width(
    features: np.ndarray, labels: Labels, folds: np.ndarray, width: int, *, resolution: float = 0.0
) -> Readings:
    """Probe one readout at every level through its `width` leading principal directions.

    The directions of the probe that is kept are those of the training images; in the cross-validation each fold is
    read through the directions of the other folds, so no number on held-out images has seen them, not even
    without their labels. The test images are touched once.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    labels
        Who is trained and tested.
    folds
        (train,) fold of each training image.
    width
        Directions to keep: the least width among the sites compared. A site of no more directions keeps all.
    resolution
        See `fgdiag_probes.linear.Basis.of`.

    Returns
    -------
    Readings
        As of `fgdiag_probes.reading.read`, to be put beside it.
    """
    X = features[labels.train]
    basis = narrow(Basis.of(X, resolution=resolution), width)
    parts = [_Fold.of(X, folds == fold, width, resolution) for fold in np.unique(folds)]
    readings: Readings = {}
    fine = _fit(basis, parts, labels.fine[labels.train])
    for level in labels.levels:
        probe = _fit(basis, parts, labels.coarse[labels.train]) if level == "coarse" else fine
        seen = Reading.of_logits(probe.logits(features[labels.test]), labels, level, labels.test)
        readings[level] = replace(seen, choice=choice_of_probe(probe, labels, level))
    return readings


def narrow(basis: Basis, width: int) -> Basis:
    """Keep the `width` directions of a basis along which its rows vary most, for `fit_probe`.

    Parameters
    ----------
    basis
        Of the rows that the directions may go by: training rows.
    width
        Directions to keep; all where there are no more.

    Returns
    -------
    Basis
        With `rotation` (features, width) and `design` (rows, width + 1).

    Raises
    ------
    ValueError
        `width` is below 1.
    """
    if width < 1:
        raise ValueError(f"A width of {width} leaves nothing to probe; give 1 or more.")
    variance = basis.design[:, :-1].square().mean(0)
    kept = variance.argsort(descending=True)[:width]
    columns = torch.cat([kept, torch.tensor([len(variance)])])
    return replace(basis, rotation=basis.rotation[:, kept], design=basis.design[:, columns])


@dataclass(frozen=True)
class _Fold:
    """Rows held out, as seen through the directions of the others, and those others' basis."""

    held_out: np.ndarray
    design: Tensor
    basis: Basis

    @classmethod
    def of(cls, X: np.ndarray, held_out: np.ndarray, width: int, resolution: float) -> "_Fold":
        basis = narrow(Basis.of(X[~held_out], resolution=resolution), width)
        return cls(held_out, basis.project(X[held_out]), basis)


def _fit(basis: Basis, parts: Sequence[_Fold], y: np.ndarray) -> ChosenProbe:
    """Choose the penalty by the folds' own bases, and fit the probe at it to all rows."""
    classes, codes = np.unique(y, return_inverse=True)
    targets, grid = torch.from_numpy(codes), sorted(PENALTIES, reverse=True)
    logits, known = torch.empty(len(grid), len(y), len(classes)), torch.empty(len(y), dtype=torch.bool)
    for part in parts:
        seen, held = torch.from_numpy(~part.held_out), torch.from_numpy(part.held_out)
        for step, weights in enumerate(_walk(part.basis.design, targets[seen], len(classes), grid)):
            logits[step, held] = part.design @ weights.T
        known[held] = torch.isin(targets[held], targets[seen])
    bits = [float(cross_entropy(one[known], targets[known])) * BITS for one in logits]
    best = int(np.argmin(bits))
    return ChosenProbe(
        **vars(fit_at(basis, y, grid[best])),
        tried=tuple(grid),
        cv_bits=tuple(bits),
        cv_logits=logits[best].numpy(),
        at_edge=best in (0, len(grid) - 1),
    )


def _walk(design: Tensor, codes: Tensor, classes: int, penalties: Sequence[float]) -> Iterator[Tensor]:
    """(classes, width + 1) weights at each penalty, from strong to weak."""
    even = torch.full((1, len(codes)), 1 / len(codes))
    for solution in follow(design, codes, even, penalties, classes, tolerance=TOLERANCE):
        yield solution.weights[0]
