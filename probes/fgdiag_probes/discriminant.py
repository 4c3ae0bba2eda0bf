"""Fisher's linear discriminant: every pair of classes told apart at once, with what all classes teach.

A probe of two classes alone has a few dozen images to learn from, and mostly learns what varies from picture to
picture. How pictures of one class vary can be seen in every class, so it is measured over all of them together; along
which line two classes differ then follows from their means (Fisher 1936; linear discriminant analysis with a pooled,
regularised covariance: Hastie, Tibshirani & Friedman 2009, "The Elements of Statistical Learning", section 4.3). On
the field guide it told pairs of species apart at the encoder that a logistic probe of two classes left at chance.
"""

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from fgdiag_probes.labels import Labels
from fgdiag_probes.linear import Basis
from fgdiag_probes.reading import choice_of

RIDGES = (0.003, 0.03, 0.3, 3.0)
"""Added to the variance of every direction of the standardised features, to choose from."""


def discriminate(
    features: np.ndarray, labels: Labels, folds: np.ndarray, *, resolution: float = 0.0
) -> np.ndarray:
    """Score every class for every test image; of two classes the one with the higher score is the likelier.

    All classes are taken to be equally frequent. The ridge is the one with which most training images, held out in
    turn, are named right at the finest level.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    labels
        Who is trained and tested.
    folds
        (train,) fold of each training image.
    resolution
        See `fgdiag_probes.linear.Basis.of`.

    Returns
    -------
    (test, classes) float32
        Log-probabilities up to a constant of each image.
    """
    basis = Basis.of(features[labels.train], resolution=resolution)
    fine = labels.fine[labels.train]
    design, tested = (rows.numpy()[:, :-1] for rows in (basis.design, basis.project(features[labels.test])))
    seen = [design[folds == fold] for fold in np.unique(folds)]
    scatters = [rows.T @ rows for rows in seen]
    scatter = np.sum(scatters, axis=0)
    held_out = {ridge: np.empty((len(design), len(labels.fine_names)), np.float32) for ridge in RIDGES}
    for fold, rows, own in zip(np.unique(folds), seen, scatters, strict=True):
        others = folds != fold
        pooled = _Pooled.of(design[others], fine[others], len(labels.fine_names), scatter - own)
        for ridge in RIDGES:
            held_out[ridge][~others] = pooled.scores(rows, ridge)
    merit = {
        ridge: choice_of(scores, labels, labels.levels[0], penalty=ridge).accuracy
        for ridge, scores in held_out.items()
    }
    pooled = _Pooled.of(design, fine, len(labels.fine_names), scatter)
    return pooled.scores(tested, max(merit, key=lambda ridge: merit[ridge]))


class _Pooled:
    """Means of classes, and the covariance of images around the mean of their class."""

    def __init__(self, means: np.ndarray, covariance: np.ndarray, shown: np.ndarray):
        self.means, self.covariance, self.shown = means, covariance, shown

    @classmethod
    def of(cls, rows: np.ndarray, fine: np.ndarray, classes: int, scatter: np.ndarray) -> "_Pooled":
        """Take the sums of products `scatter` (width, width) of the rows as given."""
        member = np.zeros((classes, len(rows)), np.float32)
        member[fine, np.arange(len(rows))] = 1
        counts = member.sum(1, keepdims=True)
        means = member @ rows / np.maximum(counts, 1)
        return cls(means, (scatter - (means * counts).T @ means) / len(rows), counts[:, 0] > 0)

    def scores(self, rows: np.ndarray, ridge: float) -> np.ndarray:
        """(rows, classes): linear in the rows; a class that was never shown is never likely."""
        width = len(self.covariance)
        regular = self.covariance.astype(np.float64) + ridge * np.eye(width)
        weights = cho_solve(cho_factor(regular), self.means.T).astype(np.float32)
        scores = rows @ weights - 0.5 * (self.means.T * weights).sum(0)
        return np.where(self.shown, scores, -1e9)
