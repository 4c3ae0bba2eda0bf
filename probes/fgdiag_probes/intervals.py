"""How sure a mean over test images is, when images of one class resemble each other.

The question is about classes like these, so classes are what is counted, not images: the deviations of a class
from the mean are summed, and the spread of these sums is the error of the mean. Four things keep the intervals
right where classes are few or of unequal size, or nearly every image is named right (`tests/benchmarks/coverage.py`
measures how right):

- A class that holds much of the images pulls the mean towards itself; its deviation is scaled up for that
  (CR2; Bell & McCaffrey 2002).
- Student's t replaces the normal distribution, with one less than the effective number of classes (Kish 1965)
  as degrees of freedom.
- Where deviations are skewed, as near 0 % and 100 %, the interval reaches further out on the side of the long tail
  (the first term of the Edgeworth expansion: Johnson 1978, "Modified t tests and confidence intervals for
  asymmetrical populations"). On the other side it is not drawn in, for the skewness of few classes is a guess.
- Nothing seen to happen is no proof that nothing happens, so half an image either way is added to what was seen
  (Agresti & Min 2005, "Simple improved confidence intervals for comparing matched proportions").
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

CONFIDENCE = 0.95
LIKENESS = 0.1
"""Correlation assumed between images of one class, where too few of them differ to see it."""
TINY = 1e-60


@dataclass(frozen=True)
class Estimates:
    """Means of several quantities over the same images, with intervals and p-values.

    Attributes
    ----------
    mean, low, high
        (quantities,) float64, estimate and the ends of its 95 % interval, in the unit of the values.
    p_value
        (quantities,) float64, two-sided, for the mean being zero; below 0.05 where the interval leaves out
        zero, and only there.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    p_value: np.ndarray


@dataclass(frozen=True)
class _Errors:
    """Standard error and skewness of each mean, and the degrees of freedom that they are known with."""

    standard: np.ndarray
    skewness: np.ndarray
    freedom: float


def clustered_means(values: np.ndarray, clusters: np.ndarray, *, step: float | None = None) -> Estimates:
    """Means over images, with intervals that hold for other classes of the same sort.

    Measured by `tests/benchmarks/coverage.py`: from 15 classes on, intervals of drops in points cover the truth in
    93 to 97 of 100 cases; in more where accuracy is near 0 % or 100 % and hardly any image differs; with 8 classes
    in 92 or more. Drops in bits of a nearly perfect reader fall short, down to 82 with 8 classes and 88 with 15:
    the few images that cost most are often not among those seen.

    Parameters
    ----------
    values
        (quantities, images) finite floats, such as correct (0 or 1), bits, or the difference of two of them
        on the same images: a paired drop.
    clusters
        (images,) class of each image. One class says nothing about others, so its interval has no ends.
    step
        What one image can change a value by: 1 for right or wrong, 100 in points. Default: the least
        difference between two of the values, which is that where any differ, and next to nothing for bits.
    """
    _, codes = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(codes).astype(float)
    sums = np.stack([np.bincount(codes, row, len(sizes)) for row in values])
    mean = sums.sum(1) / sizes.sum()
    if len(sizes) == 1:
        endless = np.full_like(mean, np.inf)
        return Estimates(mean, -endless, endless, np.ones_like(mean))
    errors = _errors(sums - mean[:, None] * sizes, sizes, _least_difference(values) if step is None else step)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, errors.freedom))
    low = mean - errors.standard * _reach(quantile, -errors.skewness)
    high = mean + errors.standard * _reach(quantile, errors.skewness)
    ratio = mean / np.maximum(errors.standard, TINY)
    to_zero = _quantile(np.abs(ratio), -np.sign(ratio) * errors.skewness)
    return Estimates(mean, low, high, 2 * student.sf(to_zero, errors.freedom))


def accuracies(correct: np.ndarray, clusters: np.ndarray) -> dict[str, np.ndarray]:
    """Columns `accuracy`, `low` and `high` for a table: shares of images named right, with intervals inside [0, 1].

    Parameters
    ----------
    correct
        (readers, images) 1 where right, 0 where not; shares between the two where an image was asked about often.
    clusters
        (images,) class of each image.
    """
    found = clustered_means(correct, clusters, step=1.0)
    return {"accuracy": found.mean, "low": found.low.clip(0, 1), "high": found.high.clip(0, 1)}


def _errors(deviations: np.ndarray, sizes: np.ndarray, step: float) -> _Errors:
    """Take the sums of deviations of the classes for independent draws around zero.

    Parameters
    ----------
    deviations
        (quantities, classes).
    """
    images = sizes.sum()
    images_alike = (sizes**2).sum() / images
    unseen = step**2 * (1 + LIKENESS * (images_alike - 1))
    variance = (deviations**2 / (1 - sizes / images)).sum(1) + unseen
    spread = np.maximum((deviations**2).sum(1) + unseen, TINY)
    skewness = (deviations**3).sum(1) / spread**1.5
    return _Errors(np.sqrt(variance) / images, skewness, max(1.0, images / images_alike - 1))


def _least_difference(values: np.ndarray) -> float:
    """Between two different values; their size where all are the same, such as 1 where all is right."""
    different = np.unique(values)
    return float(np.diff(different).min()) if len(different) > 1 else float(np.abs(different[0]))


def _reach(quantile: float, skewness: np.ndarray) -> np.ndarray:
    """Standard errors from the mean to an end of the interval, where the skewness is positive towards it."""
    return quantile + np.maximum(skewness, 0) * (2 * quantile**2 + 1) / 6


def _quantile(reach: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """Solve `_reach` for the quantile; 0 where no quantile reaches so little."""
    skewness = np.maximum(skewness, 0)
    beyond = np.maximum(reach - skewness / 6, 0)
    return 2 * beyond / (1 + np.sqrt(1 + 4 * beyond * skewness / 3))


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
