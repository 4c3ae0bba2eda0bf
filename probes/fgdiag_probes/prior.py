"""How far to correct class names' likelihoods for what the model would say anyway, chosen on training images.

A name is favoured for its words, whatever the picture shows (surface form competition, Holtzman et al. 2021, arXiv
2104.08315). What it is favoured by is taken from the same question without an image, or from training images, and
taken off by a weight. Prior and weight are those that name most of a sample of training images rightly; Zhang et al.
(2024, arXiv 2405.18415) estimate and choose them on the images they are scored on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
A_CLASS, AT_MOST = 4, 200
"""Training images that are asked about: of each fine class, and of all."""


@dataclass(frozen=True)
class Correction:
    """A prior of class names and how much of it is taken off.

    Attributes
    ----------
    prior
        `blind`: log P(name | question) without an image. `training`: log of the mean, over training images, of
        P(name | image, question) among the names asked for; it uses no label (Zhou et al. 2024, arXiv 2309.17249,
        estimate it so on a batch of what is asked).
    weight
        0 takes nothing off, 1 all of it.
    names
        (names,) class names.
    values
        (names,) nats of each.
    tried
        One row a prior and weight: `prior`, `weight`, and the `accuracy` with it on the training images.
    images
        How many those were.
    """

    prior: str
    weight: float
    names: np.ndarray
    values: np.ndarray
    tried: pd.DataFrame
    images: int

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Scores (images, names) less the weighted prior."""
        return scores - self.weight * self.values

    def json(self) -> dict[str, Any]:
        """All of it, the nats by name."""
        return {
            "prior": self.prior,
            "weight": self.weight,
            "images": self.images,
            "tried": self.tried.to_dict("records"),
            "nats": dict(zip(self.names.tolist(), self.values.tolist(), strict=True)),
        }


def training_sample(images: pd.DataFrame, *, seed: int = 0) -> np.ndarray:
    """Rows of training images, ascending: 4 of each fine class and 200 in all at most, each class in turn.

    Parameters
    ----------
    images
        A run's images: `split`, `status`, `fine`.
    seed
        Which images are drawn.
    """
    usable = ((images["split"] == "train") & (images["status"] == "ok")).to_numpy()
    drawn = np.random.default_rng(seed).permutation(np.flatnonzero(usable))
    fine = images["fine"].to_numpy(str)[drawn]
    turn = pd.Series(fine).groupby(fine).cumcount().to_numpy()
    order = np.argsort(turn, kind="stable")
    order = order[turn[order] < A_CLASS]
    return np.sort(drawn[order[:AT_MOST]])


def training_prior(scores: np.ndarray) -> np.ndarray:
    """Log of the mean probability of each name among the names, (names,) nats, from scores (images, names)."""
    wide = scores.astype(np.float64)
    logs = wide - np.logaddexp.reduce(wide, axis=1, keepdims=True)
    return (np.logaddexp.reduce(logs, axis=0) - np.log(len(logs))).astype(np.float32)


def choose_correction(
    scores: np.ndarray, truth: np.ndarray, names: np.ndarray, priors: Mapping[str, np.ndarray]
) -> Correction:
    """Take the prior and the weight that name most training images rightly; of equals the smaller weight.

    Parameters
    ----------
    scores
        (images, names) nats of training images; -inf where a name is not asked for.
    truth
        (images,) index of the right name.
    names
        (names,) class names.
    priors
        (names,) nats by name of the prior, the one to prefer first.
    """
    tried = pd.DataFrame(
        [
            (prior, weight, float(((scores - weight * values).argmax(1) == truth).mean()))
            for weight in WEIGHTS
            for prior, values in priors.items()
        ],
        columns=["prior", "weight", "accuracy"],
    )
    best = tried.loc[tried["accuracy"].idxmax()]
    prior = str(best["prior"])
    return Correction(prior, float(best["weight"]), names, priors[prior], tried, len(scores))
