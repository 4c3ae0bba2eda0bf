"""Linear probes: multinomial logistic regression with an L2 penalty chosen on the training images alone.

The objective is scikit-learn's `LogisticRegression` with `C = 1 / (rows * penalty)` on standardised features:
mean cross-entropy + penalty / 2 * ||W||^2, the bias unpenalised. Standardisation and eigenbasis are computed
once a readout (`Basis`) and serve every label set, fold and penalty. The penalties are walked from strong to
weak until the cross-validated log-loss has clearly risen; where it is least at an end of the grid, the grid
grows there by itself.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fgdiag.sites import ATTENTION
from fgdiag_probes.solver import Solution, follow, minimise

PENALTIES = (1.0, 0.1, 0.01, 0.001, 0.0001)
WEAKER = (1e-5, 1e-6)
"""Tried one by one while the weakest so far is the best; beyond them float32 no longer sees the penalty."""
STRONGER = (100.0, 10.0)
"""Tried where the strongest of the grid is the best: there is little to read, or nothing."""
TOLERANCE = 3e-4
"""Expected fall of the objective, as a share of it, below which a fold counts as solved."""
REFIT_TOLERANCE = 1e-6
"""The same for the probe that is kept. The real distance was up to 40 times the expected one, on residual
streams at weak penalties, which is why this is far below the 1e-3 that the probe is held to."""
REFIT_STEPS = 600
"""Most steps for the probe that is kept; 81 classes at a weak penalty took some 250."""
RISEN = 1.02
"""Weaker penalties are not tried once the cross-validated log-loss is this many times the best one."""
NULL_DIRECTION = 1e-9
"""Directions with less than this share of the largest variance are rounding of exact dependencies."""
BITS = float(np.log2(np.e))


@dataclass(frozen=True)
class Basis:
    """Training rows of one readout, standardised and turned onto their principal directions.

    An L2 penalty does not see rotations, so the optimum is the one on the standardised features.

    Attributes
    ----------
    mean, scale
        (width,) float64. `scale` is infinite for a feature that counts as constant, which makes it zero.
    rotation
        (width, rank) float64, orthonormal columns.
    design
        (rows, rank + 1) float32, the last column ones.
    """

    mean: np.ndarray
    scale: np.ndarray
    rotation: Tensor
    design: Tensor

    @classmethod
    def of(cls, X: np.ndarray, *, resolution: float = 0.0, standardise: bool = True) -> Self:
        """Standardise `X` (rows, width) and find its principal directions.

        Parameters
        ----------
        X
            (rows, width) finite floats.
        resolution
            Relative rounding of the numbers in `X`. A feature that varies by less than this share of its mean
            (or of the typical feature's mean, where that is larger) holds rounding noise, which follows the
            shape of the batch an image was in, and is treated as constant.
        standardise
            False: one scale for all features, so that their variances stay as unequal as they are but a penalty
            means the same whatever the unit of `X`.
        """
        X = np.asarray(X, np.float64)
        mean, spread = X.mean(0), X.std(0)
        floor = resolution * np.maximum(np.abs(mean), np.median(np.abs(mean)))
        varies = spread > np.maximum(floor, 1e-12 * np.abs(mean))
        unit = spread if standardise else np.sqrt(np.square(spread).mean())
        scale = np.where(varies, unit, np.inf)
        standard = torch.from_numpy((X - mean) / scale)
        rotation = _principal_directions(standard)
        return cls(mean, scale, rotation, _design(standard, rotation))

    def project(self, X: np.ndarray) -> Tensor:
        """(rows, rank + 1) float32 design of new rows."""
        standard = torch.from_numpy((np.asarray(X, np.float64) - self.mean) / self.scale)
        return _design(standard, self.rotation)


def _principal_directions(standard: Tensor) -> Tensor:
    rows, width = standard.shape
    gram = standard.T @ standard if width <= rows else standard @ standard.T
    values, vectors = torch.linalg.eigh(gram / rows)
    kept = values > NULL_DIRECTION * values.max().clamp_min(1e-30)
    values, vectors = values[kept], vectors[:, kept]
    return vectors if width <= rows else standard.T @ vectors / (values * rows).sqrt()


def _design(standard: Tensor, rotation: Tensor) -> Tensor:
    """(rows, rank + 1) float32: `standard` on the directions of `rotation`, and a column of ones."""
    return torch.nn.functional.pad(standard.float() @ rotation.float(), (0, 1), value=1.0)


@dataclass(frozen=True)
class LinearProbe:
    """A fitted probe.

    Attributes
    ----------
    weights
        (classes, rank + 1) float32 on the design of `basis`; the last column is the bias.
    classes
        (classes,) the labels, sorted.
    penalty
        L2 penalty it was fitted with.
    gap
        Estimated distance of the objective to its minimum, as a share of it.
    gradient_norm
        Euclidean norm of the gradient of the objective.
    converged
        Whether every fit behind it came within its tolerance.
    """

    basis: Basis
    weights: Tensor
    classes: np.ndarray
    penalty: float
    gap: float
    gradient_norm: float
    converged: bool

    def logits(self, X: np.ndarray) -> np.ndarray:
        """(rows, classes) float32 unnormalised log-probabilities."""
        return (self.basis.project(X) @ self.weights.T).numpy()

    def predict(self, X: np.ndarray) -> np.ndarray:
        """(rows,) the most probable label."""
        return self.classes[self.logits(X).argmax(1)]


@dataclass(frozen=True)
class ChosenProbe(LinearProbe):
    """A fitted probe, and how its penalty was chosen.

    Attributes
    ----------
    tried, cv_bits
        Penalties that were tried and their cross-validated log-loss in bits an image.
    cv_logits
        (rows, classes) float32: every training row's logits from the fold that did not see it, at the chosen
        penalty. Scores for choices (of readouts, layers) come from these, never from test images.
    at_edge
        Whether the chosen penalty is the strongest or the weakest that was tried.
    """

    tried: tuple[float, ...]
    cv_bits: tuple[float, ...]
    cv_logits: np.ndarray
    at_edge: bool


def fit_at(X: np.ndarray | Basis, y: np.ndarray, penalty: float, *, resolution: float = 0.0) -> LinearProbe:
    """Fit one probe with a given penalty.

    Parameters
    ----------
    X
        (rows, width) training features, or their `Basis` where several label sets share it.
    y
        (rows,) labels.
    penalty
        L2 penalty on the mean cross-entropy.
    resolution
        See `Basis.of`; of no effect where `X` is a `Basis`.
    """
    basis = X if isinstance(X, Basis) else Basis.of(X, resolution=resolution)
    classes, codes = np.unique(y, return_inverse=True)
    targets, even = torch.from_numpy(codes), torch.full((1, len(codes)), 1.0 / len(codes))
    start = torch.zeros(1, len(classes), basis.design.shape[1])
    stronger = [one for one in (*PENALTIES, *WEAKER) if one > penalty]
    for solution in follow(basis.design, targets, even, stronger, len(classes), tolerance=TOLERANCE):
        start = solution.weights
    return _keep(basis, classes, targets, penalty, start)


def _keep(
    basis: Basis,
    classes: np.ndarray,
    codes: Tensor,
    penalty: float,
    start: Tensor,
    *,
    folds_solved: bool = True,
) -> LinearProbe:
    """Solve the problem of all rows, to the tolerance of a probe that is kept."""
    found = minimise(
        basis.design,
        codes,
        torch.full((1, len(codes)), 1.0 / len(codes)),
        penalty,
        start,
        tolerance=REFIT_TOLERANCE,
        max_steps=REFIT_STEPS,
    )
    return LinearProbe(
        basis=basis,
        weights=found.weights[0],
        classes=classes,
        penalty=penalty,
        gap=float(found.gap[0]),
        gradient_norm=float(found.gradient_norm[0]),
        converged=bool(found.gap[0] < REFIT_TOLERANCE) and folds_solved,
    )


def fit_probe(
    X: np.ndarray | Basis,
    y: np.ndarray,
    *,
    folds: np.ndarray,
    penalties: Sequence[float] | None = None,
    resolution: float = 0.0,
) -> ChosenProbe:
    """Fit one probe, its penalty chosen by cross-validated log-loss.

    Parameters
    ----------
    X
        (rows, width) training features, or their `Basis` where several label sets share it.
    y
        (rows,) labels.
    folds
        (rows,) int, the fold that holds each row out; see `fgdiag_probes.folds`.
    penalties
        L2 penalties on the mean cross-entropy to choose from. By default `PENALTIES`, which grow by `WEAKER`
        or `STRONGER` ones where the best is at an end.
    resolution
        See `Basis.of`; of no effect where `X` is a `Basis`.
    """
    basis = X if isinstance(X, Basis) else Basis.of(X, resolution=resolution)
    classes, codes = np.unique(y, return_inverse=True)
    targets = torch.from_numpy(codes)
    path = _walk(_CrossValidation.of(basis.design, targets, folds, len(classes)), penalties)
    best = min(path, key=lambda step: step.bits)
    start, solved = best.solution.weights.mean(0, keepdim=True), bool((best.solution.gap < TOLERANCE).all())
    kept = _keep(basis, classes, targets, best.penalty, start, folds_solved=solved)
    return ChosenProbe(
        **vars(kept),
        tried=tuple(step.penalty for step in path),
        cv_bits=tuple(step.bits for step in path),
        cv_logits=best.logits.numpy(),
        at_edge=best in (path[0], path[-1]),
    )


@dataclass(frozen=True)
class _Step:
    """What cross-validation found at one penalty."""

    penalty: float
    bits: float
    logits: Tensor
    solution: Solution


@dataclass(frozen=True)
class _CrossValidation:
    """Training rows, and one problem a fold that may not see the rows of it."""

    design: Tensor
    codes: Tensor
    classes: int
    held_out: Tensor
    """(folds, rows) bool."""
    known: Tensor
    """(rows,) bool: whether the fold that holds the row out saw other rows of its class."""

    @classmethod
    def of(cls, design: Tensor, codes: Tensor, folds: np.ndarray, classes: int) -> Self:
        fold_of_row = torch.from_numpy(np.unique(folds, return_inverse=True)[1])
        held_out = torch.stack([fold_of_row == fold for fold in range(int(fold_of_row.max()) + 1)])
        counts = torch.stack([torch.bincount(codes[~rows], minlength=classes) for rows in held_out])
        return cls(design, codes, classes, held_out, counts[fold_of_row, codes] > 0)

    def along(self, penalties: Sequence[float]) -> Iterator[_Step]:
        """Solve all folds at each penalty, and score the rows held out."""
        seen = (~self.held_out).float()
        row_weights = seen / seen.sum(1, keepdim=True)
        solutions = follow(self.design, self.codes, row_weights, penalties, self.classes, tolerance=TOLERANCE)
        for penalty, solution in zip(penalties, solutions, strict=True):
            logits = torch.empty(len(self.design), self.classes)
            for rows, fitted in zip(self.held_out, solution.weights, strict=True):
                logits[rows] = self.design[rows] @ fitted.T
            surprise = torch.nn.functional.cross_entropy(logits[self.known], self.codes[self.known])
            yield _Step(penalty, float(surprise) * BITS, logits, solution)


def _walk(problem: _CrossValidation, penalties: Sequence[float] | None) -> list[_Step]:
    """Steps at the penalties that are tried, from strong to weak."""
    grid = sorted(penalties or PENALTIES, reverse=True)
    onward = [] if penalties else WEAKER
    path: list[_Step] = []
    for step in problem.along([*grid, *onward]):
        path.append(step)
        best = min(path, key=lambda one: one.bits)
        if step.bits > RISEN * best.bits or (len(path) >= len(grid) and best is not step):
            break
    if not penalties and best is path[0]:
        path[:0] = problem.along(STRONGER)
    return path


def fits_in_words(table: pd.DataFrame) -> str:
    """How the linear fits of a table of scores went: `readout`, `penalty`, `at_edge`, `converged`, a row a probe.

    Attention pooling is left out: it is no linear probe, and its penalties are on another scale.
    """
    table = table.loc[table["readout"] != ATTENTION]
    at_edge, penalty = table["at_edge"].to_numpy(bool), table["penalty"].to_numpy()
    strongest = int((at_edge & (penalty >= max(PENALTIES))).sum())
    weakest = int(at_edge.sum()) - strongest
    unsolved = int((~table["converged"].to_numpy(bool)).sum())
    return (
        f"{len(table)} probes; {unsolved or 'none'} did not converge, {weakest or 'none'} chose the weakest "
        f"penalty on offer and might do better with a weaker one, {strongest or 'none'} the strongest, as is right "
        "where there is nothing to read."
    )
