"""What a small network reads: one hidden layer, an upper bound beside the linear probe.

Detail that this network reads and a linear probe does not is there, but not in linearly accessible form.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgdiag_probes.labels import Labels
from fgdiag_probes.linear import BITS, Basis
from fgdiag_probes.reading import Reading, Readings, choice_of

HIDDEN = 128
DROPOUT = 0.3
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 0.1
EPOCHS = 60
STEPS_AN_EPOCH = 12
PATIENCE = 6
"""Epochs without progress after which training stops."""
PROGRESS = 0.995
"""A held-out log-loss below this many times the best one so far is progress."""


def nonlinear(
    features: np.ndarray, labels: Labels, folds: np.ndarray, *, resolution: float = 0.0, seed: int = 0
) -> Readings:
    """Read every level with a network of one hidden layer; the test images are touched once.

    One network for each fold, which does not see the fold, and one that sees all training images are trained side
    by side (AdamW, dropout). The epoch with the least log-loss on the images held out is the one at which all are
    kept: early stopping on training images, without giving any away. As in `fgdiag_probes.reading.read`, the
    network for `fine` also answers `fine|coarse`. Mean, scale and principal directions are those of all training
    images, without their labels; the directions' spread is evened out by half, which makes training short.

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
    seed
        Of the first weights, the order of the images and the dropout.

    Returns
    -------
    Readings
        As of `fgdiag_probes.reading.read`; `Choice.penalty` is the weight decay, and a network that was still
        improving after the last epoch is `at_edge` and not `converged`.
    """
    basis = Basis.of(features[labels.train], resolution=resolution)
    half_white = basis.design[:, :-1].square().mean(0) ** -0.25
    half_white /= (basis.design[:, :-1] * half_white).square().mean().sqrt().nan_to_num(1.0)
    train = basis.design[:, :-1] * half_white
    fitted = {
        level: _fit(train, labels.codes(level)[labels.train], folds, seed)
        for level in ("fine", "coarse")
        if level in labels.levels
    }
    test = basis.project(features[labels.test])[:, :-1] * half_white
    readings: Readings = {}
    for level in labels.levels:
        fit = fitted["coarse" if level == "coarse" else "fine"]
        choice = choice_of(
            fit.held_out.numpy(),
            labels,
            level,
            penalty=WEIGHT_DECAY,
            at_edge=not fit.settled,
            converged=fit.settled,
        )
        logits = fit.networks.logits(test)[-1].numpy()
        readings[level] = replace(Reading.of_logits(logits, labels, level, labels.test), choice=choice)
    return readings


@dataclass(frozen=True)
class _Networks:
    """Several networks of one shape: (networks, width, hidden), (networks, 1, hidden), and so on."""

    weights: tuple[Tensor, ...]

    @classmethod
    def new(cls, count: int, width: int, classes: int, random: torch.Generator) -> Self:
        into = torch.randn(count, width, HIDDEN, generator=random) / max(1, width) ** 0.5
        out = torch.randn(count, HIDDEN, classes, generator=random) * 0.3 / HIDDEN**0.5
        weights = (into, torch.zeros(count, 1, HIDDEN), out, torch.zeros(count, 1, classes))
        for one in weights:
            one.requires_grad_()
        return cls(weights)

    def logits(self, X: Tensor, dropout: torch.Generator | None = None) -> Tensor:
        """(networks, rows, classes); with a generator, a random part of the hidden units is left out."""
        into, into_bias, out, out_bias = self.weights
        hidden = torch.relu(X @ into + into_bias)
        if dropout is not None:
            hidden = hidden * (torch.rand(hidden.shape, generator=dropout) > DROPOUT) / (1 - DROPOUT)
        return hidden @ out + out_bias


@dataclass(frozen=True)
class _Fit:
    """Networks at their best epoch (the last one has seen all rows); `held_out` logits, (rows, classes)."""

    networks: _Networks
    held_out: Tensor
    bits: float
    epoch: int
    settled: bool = False

    def kept(self) -> Self:
        """Return a copy that further training leaves alone."""
        weights = tuple(one.detach().clone() for one in self.networks.weights)
        return replace(self, networks=_Networks(weights))


def _fit(X: Tensor, codes: np.ndarray, folds: np.ndarray, seed: int) -> _Fit:
    _, fold = np.unique(folds, return_inverse=True)
    epochs = _epochs(X, torch.from_numpy(codes), torch.from_numpy(fold), seed)
    best = next(epochs).kept()
    for fit in epochs:
        if fit.bits < PROGRESS * best.bits:
            best = fit.kept()
        elif fit.epoch - best.epoch >= PATIENCE:
            return replace(best, settled=True)
    return best


def _epochs(X: Tensor, y: Tensor, fold: Tensor, seed: int) -> Iterator[_Fit]:
    """Train, and show the networks after each epoch."""
    random = torch.Generator().manual_seed(seed)
    held_out = fold == torch.arange(int(fold.max()) + 1)[:, None]
    shown = torch.cat([~held_out, torch.ones(1, len(y), dtype=torch.bool)]).float()
    networks = _Networks.new(len(shown), X.shape[1], int(y.max()) + 1, random)
    optimizer = torch.optim.AdamW(networks.weights, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for epoch in range(EPOCHS):
        for rows in torch.randperm(len(y), generator=random).split(-(-len(y) // STEPS_AN_EPOCH)):
            logits = networks.logits(X[rows], dropout=random)
            surprise = cross_entropy(logits.transpose(1, 2), y[rows].expand(len(shown), -1), reduction="none")
            optimizer.zero_grad()
            ((surprise * shown[:, rows]).sum() / len(rows)).backward()
            optimizer.step()
        with torch.no_grad():
            unseen = networks.logits(X)[fold, torch.arange(len(y))]
            yield _Fit(networks, unseen, float(cross_entropy(unseen, y)) * BITS, epoch)
