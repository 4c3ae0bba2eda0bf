"""Nearest class mean: the plainest reader there is, an image named by the class whose average it is closest to.

Euclidean distance of standardised features, as `NearestCentroid` of scikit-learn; it has nothing to choose. Its
probabilities are those of round Gaussians around the means, all of one size, which is chosen on training images.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.linear import Basis
from fgdiag_probes.reading import Reading, Readings, choice_of

SIZES = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Sizes of the Gaussians to choose from, in units of the median squared distance to the nearest mean."""


def class_means(
    features: np.ndarray, labels: Labels, folds: np.ndarray, *, resolution: float = 0.0
) -> Readings:
    """Read every level by the nearest class mean; the test images are touched once.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    folds
        (train,) fold of each training image.
    resolution
        See `fgdiag_probes.linear.Basis.of`.

    Returns
    -------
    Readings
        As of `fgdiag_probes.reading.read`; `Choice.penalty` is NaN.
    """
    basis = Basis.of(features[labels.train], resolution=resolution)
    known, asked = basis.design[:, :-1], basis.project(features[labels.test])[:, :-1]
    return {level: _read(known, asked, labels, level, folds) for level in labels.levels}


def _read(known: Tensor, asked: Tensor, labels: Labels, level: Level, folds: np.ndarray) -> Reading:
    codes, classes = torch.from_numpy(labels.codes(level)[labels.train]), len(labels.names(level))
    held_out = torch.empty(len(known), classes)
    for fold in np.unique(folds):
        out = torch.from_numpy(folds == fold)
        held_out[out] = _distances(known[out], known[~out], codes[~out], classes)
    unit = held_out.min(1).values.median()
    tried = [
        (choice_of((-held_out / (size * unit)).numpy(), labels, level, penalty=float("nan")), size)
        for size in SIZES
    ]
    choice, size = min(tried, key=lambda one: one[0].bits)
    logits = -_distances(asked, known, codes, classes) / (size * unit)
    return replace(Reading.of_logits(logits.numpy(), labels, level, labels.test), choice=choice)


def _distances(asked: Tensor, known: Tensor, codes: Tensor, classes: int) -> Tensor:
    """(rows, classes) squared distance to the mean of each class; to that of all where a class has no image."""
    counts = torch.bincount(codes, minlength=classes)
    means = torch.zeros(classes, known.shape[1]).index_add_(0, codes, known) / counts[:, None].clamp_min(1)
    means[counts == 0] = known.mean(0)
    return torch.cdist(asked, means).square()
