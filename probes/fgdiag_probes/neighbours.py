"""What nearest neighbours read: a reader that needs no straight boundaries, beside the linear probe.

An image is named by the training images most like it: cosine similarity of standardised features, each
neighbour's vote weighted by `exp(similarity / 0.07)` as in Wu et al. 2018 (arXiv 1805.01978).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.linear import Basis
from fgdiag_probes.reading import Choice, Reading, Readings, choice_of

NEIGHBOURS = (1, 5, 20, 60)
WHITENING = (0.0, 0.5, 1.0)
"""Powers by which the spread along principal directions is evened out: 0 leaves it, 1 makes it equal."""
TEMPERATURE = 0.07
UNSURE = (0.05, 0.3, 1.0)
"""Shares of the probability that go by class frequency: a class without a vote is not impossible, and where
neighbours say nothing they are not listened to."""
ROWS_AT_ONCE = 1024
"""Images compared with all training images at once: 120 MB for 20,000 of them, whatever the width."""


def nearest(
    features: np.ndarray,
    labels: Labels,
    folds: np.ndarray,
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
    whitening: Sequence[float] = WHITENING,
    resolution: float = 0.0,
) -> Readings:
    """Read every level from the nearest training images; the test images are touched once.

    At each level an image's neighbours are sought among the training images of its candidates, so `fine|coarse`
    looks among the siblings only. The number of neighbours and the whitening are those that name most training
    images right from images of other folds; how far the votes are trusted is what gives the least log-loss there. Mean,
    scale and principal directions are those of all training images, without their labels.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    labels
        Who is known and who is asked.
    folds
        (train,) fold of each training image.
    neighbours, whitening
        The grid.
    resolution
        See `fgdiag_probes.linear.Basis.of`.

    Returns
    -------
    Readings
        As of `fgdiag_probes.reading.read`; `Choice.penalty` is NaN, and `at_edge` tells whether the most
        neighbours on offer were chosen.
    """
    basis = Basis.of(features[labels.train], resolution=resolution)
    known, asked = basis.design[:, :-1], basis.project(features[labels.test])[:, :-1]
    readings: Readings = {}
    for level in labels.levels:
        problem = _Problem.of(labels, level, folds)
        choice, scale, count, unsure = _choose(problem, known, labels, level, neighbours, whitening)
        found = problem.closest(asked * scale, known * scale, problem.test, count)
        logits = problem.logits(found, problem.test, count, unsure)
        readings[level] = replace(Reading.of_logits(logits, labels, level, labels.test), choice=choice)
    return readings


def _choose(
    problem: "_Problem",
    known: Tensor,
    labels: Labels,
    level: Level,
    neighbours: Sequence[int],
    whitening: Sequence[float],
) -> tuple[Choice, Tensor, int, float]:
    """Choose the scale of the directions, the number of neighbours and how unsure to be, by held-out images."""
    spread, tried = known.square().mean(0), []

    def score(found: tuple[Tensor, Tensor], count: int, unsure: float) -> Choice:
        logits = problem.logits(found, problem.train, count, unsure)
        return choice_of(logits, labels, level, penalty=float("nan"), at_edge=count == max(neighbours))

    for power in whitening:
        scale = spread ** (-power / 2)
        found = problem.closest(known * scale, known * scale, problem.train, max(neighbours))
        tried += [(score(found, count, UNSURE[0]), scale, count, found) for count in neighbours]
    _, scale, count, found = max(tried, key=lambda one: (one[0].accuracy, -one[0].bits))
    choice, unsure = min(((score(found, count, one), one) for one in UNSURE), key=lambda one: one[0].bits)
    return choice, scale, count, unsure


@dataclass(frozen=True)
class _Images:
    """Who is asked: the fold that each image may not look at (-1: none), and its candidates, (rows, classes)."""

    fold: Tensor
    candidates: Tensor


@dataclass(frozen=True)
class _Problem:
    """One level: the classes of the training images, and who is asked."""

    codes: Tensor
    train: _Images
    test: _Images

    @classmethod
    def of(cls, labels: Labels, level: Level, folds: np.ndarray) -> "_Problem":
        candidates = [
            torch.from_numpy(labels.candidates(level, rows)) for rows in (labels.train, labels.test)
        ]
        return cls(
            torch.from_numpy(labels.codes(level)[labels.train]),
            _Images(torch.from_numpy(np.asarray(folds)), candidates[0]),
            _Images(torch.full((len(labels.test),), -1), candidates[1]),
        )

    def closest(self, queries: Tensor, known: Tensor, images: _Images, count: int) -> tuple[Tensor, Tensor]:
        """(rows, count) similarity and class of the closest training images of other folds, closest first.

        Training images that are no candidates have similarity -inf.
        """
        queries, known = (torch.nn.functional.normalize(side) for side in (queries, known))
        similarity, classes = [], []
        for rows in torch.arange(len(queries)).split(ROWS_AT_ONCE):
            alike = queries[rows] @ known.T
            alike.masked_fill_(images.fold[rows, None] == self.train.fold, -torch.inf)
            alike.masked_fill_(~images.candidates[rows][:, self.codes], -torch.inf)
            best = alike.topk(min(count, len(known)))
            similarity.append(best.values)
            classes.append(self.codes[best.indices])
        return torch.cat(similarity), torch.cat(classes)

    def logits(self, found: tuple[Tensor, Tensor], images: _Images, count: int, unsure: float) -> np.ndarray:
        """(rows, classes) log-probabilities from the votes of the `count` closest."""
        similarity, classes = (side[:, :count] for side in found)
        weight = ((similarity - 1) / TEMPERATURE).exp()
        weight = weight / weight.sum(1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny)
        votes = torch.zeros(images.candidates.shape).scatter_add_(1, classes, weight)
        frequency = images.candidates * torch.bincount(self.codes, minlength=images.candidates.shape[1])
        frequency = frequency / frequency.sum(1, keepdim=True)
        return ((1 - unsure) * votes + unsure * frequency).log().numpy()
