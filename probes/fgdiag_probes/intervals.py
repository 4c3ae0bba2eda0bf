"""How sure a mean over test images is, when images of one class resemble each other.

Classes are resampled with replacement, whole (the cluster bootstrap; Field & Welsh 2007). Deviations are
widened by `sqrt(classes / (classes - 1))`: resampling few clusters understates the spread by that factor.
"""

from dataclasses import dataclass

import numpy as np

RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimates:
    """Means of several quantities over the same images, with intervals and bootstrap p-values.

    Attributes
    ----------
    mean, low, high
        (quantities,) estimate and the ends of its 95 % interval, in the unit of the values.
    p_value
        (quantities,) two-sided, for the mean being zero.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray


def clustered_means(values: np.ndarray, clusters: np.ndarray, *, seed: int = 0) -> Estimates:
    """Means over images, with intervals from resampling whole classes.

    Parameters
    ----------
    values
        (quantities, images) finite floats, such as correct (0 or 1), bits, or the difference of two of them
        on the same images: a paired drop.
    clusters
        (images,) class of each image.
    """
    _, codes = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(codes).astype(float)
    sums = np.stack([np.bincount(codes, row, len(sizes)) for row in values], axis=1)
    mean = sums.sum(0) / sizes.sum()
    draws = np.random.default_rng(seed).multinomial(
        len(sizes), np.full(len(sizes), 1 / len(sizes)), size=RESAMPLES
    )
    deviation = (draws @ sums) / (draws @ sizes)[:, None] - mean
    means = mean + deviation * np.sqrt(len(sizes) / max(1, len(sizes) - 1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    beyond = np.minimum((means <= 0).sum(0), (means >= 0).sum(0))
    return Estimates(mean, low, high, np.minimum(1.0, 2 * (beyond + 1) / (RESAMPLES + 1)))


def holm(p_values: np.ndarray) -> np.ndarray:
    """P-values adjusted for being one family (Holm 1979): below 0.05 is significant, all tests considered.

    Examples
    --------
    >>> [round(float(p), 3) for p in holm(np.array([0.01, 0.04, 0.03]))]
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    steps = p_values[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty_like(p_values, dtype=float)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted
