"""Many multinomial logistic regressions on the same rows, solved together, every step two matrix products.

The problems share the design matrix and differ in which rows they may see (cross-validation folds, splits).
The method is L-BFGS (Liu & Nocedal 1989) preconditioned with the Fisher information in the eigenbasis of its
Kronecker factors (EKFAC, George et al. 2018): the design comes on its principal directions, the classes are
turned onto the principal directions of their own curvature, where classes that are taken for each other no
longer disturb each other, and there the diagonal of the Fisher information is nearly all of it. It is the mean
over the problems, which see nearly the same rows, and renewed every few steps. Rows stand last in memory: so
the matrix products reach the machine's peak whatever the number of classes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

MEMORY = 8
"""Pairs of steps and gradient changes that L-BFGS remembers."""
RENEW_EVERY = 10
"""Steps between two looks at the curvature."""
BIAS_PENALTY = 1e-8
"""Keeps the bias of a class that a fold never shows from running away; too small to be seen in the loss."""
TRIES = 5
"""Most lengths that are tried along one direction."""
ONWARD = 0.8
"""How far the next start goes on along the line of the last two solutions of a path. Going on halves the steps
from one penalty to the next a decade weaker; all the way (1.0) overshoots where the path bends."""


@dataclass(frozen=True)
class Solution:
    """Minimisers of a batch of problems.

    Attributes
    ----------
    weights
        (problems, classes, width) float32; the last column of width is the bias.
    gap
        (problems,) estimated distance to the optimum as a share of the objective.
    gradient_norm
        (problems,) Euclidean norm of the gradient of the objective.
    """

    weights: Tensor
    gap: Tensor
    gradient_norm: Tensor


def minimise(
    design: Tensor,
    codes: Tensor,
    row_weights: Tensor,
    penalty: float,
    start: Tensor,
    *,
    tolerance: float = 1e-5,
    max_steps: int = 200,
) -> Solution:
    """Solve every problem to a relative `tolerance` of its objective.

    Of each problem: weighted mean cross-entropy plus `penalty / 2 * ||W||^2`, the bias unpenalised.

    Parameters
    ----------
    design
        (rows, width) float32; the last column is ones. Columns best uncorrelated.
    codes
        (rows,) int64, the class of each row.
    row_weights
        (problems, rows), zero where a problem may not look, else its share of the mean.
    penalty
        L2 penalty on all weights but the bias.
    start
        (problems, classes, width), such as the solution at a neighbouring penalty.
    tolerance
        A problem is left alone once the expected fall of its objective is below this share of it.
    max_steps
        Steps after which what is not solved is returned as it is; see `Solution.gap`.
    """
    problems = _Problems.of(design, codes, row_weights)
    return _minimise(problems.at(penalty), start, tolerance, max_steps)


def follow(
    design: Tensor,
    codes: Tensor,
    row_weights: Tensor,
    penalties: Iterable[float],
    classes: int,
    *,
    tolerance: float,
    max_steps: int = 200,
) -> Iterator[Solution]:
    """Solve at one penalty after the other, best from strong to weak by even factors; solved as asked for.

    The first start is zero, and each later one lies ahead on the line through the last two solutions. Arguments
    as of `minimise`; `classes` is how many `codes` may name.
    """
    problems = _Problems.of(design, codes, row_weights)
    start = design.new_zeros(len(row_weights), classes, design.shape[1])
    before: Tensor | None = None
    for penalty in penalties:
        solution = _minimise(problems.at(penalty), start, tolerance, max_steps)
        here = solution.weights
        start = here if before is None else here + ONWARD * (here - before)
        before = here
        yield solution


def _minimise(problems: "_Problems", start: Tensor, tolerance: float, max_steps: int) -> Solution:
    solved = Solution(torch.empty_like(start), start.new_empty(len(start)), start.new_empty(len(start)))
    running = torch.arange(len(start), device=start.device)
    history: list[_Pair] = []

    weights = start
    logits = problems.logits(weights)
    probabilities = logits.softmax(1)
    curvature = _Curvature.of(problems, probabilities)
    value = problems.value(weights, probabilities)
    gradient = problems.gradient(weights, probabilities)
    for step in range(max_steps + 1):
        direction = _direction(gradient, history, curvature)
        gap = -0.5 * _dot(gradient, direction) / value
        done = (gap < tolerance) | (step == max_steps)
        if done.any():
            solved.weights[running[done]] = weights[done]
            solved.gap[running[done]] = gap[done]
            solved.gradient_norm[running[done]] = _dot(gradient[done], gradient[done]).sqrt()
            left = ~done
            if not left.any():
                break
            problems = problems.keep(left)
            history = [pair.keep(left) for pair in history]
            running, weights, logits, gradient, direction = (
                tensor[left] for tensor in (running, weights, logits, gradient, direction)
            )
        moved, logits, probabilities = _line_search(problems, weights, logits, gradient, direction)
        weights = weights + moved
        value = problems.value(weights, probabilities)
        if step % RENEW_EVERY == RENEW_EVERY - 1:
            curvature = _Curvature.of(problems, probabilities)
        before, gradient = gradient, problems.gradient(weights, probabilities)
        history.append(_Pair.of(moved, gradient - before))
        del history[:-MEMORY]
    return solved


@dataclass(frozen=True)
class _Problems:
    """The batch. Weights are (problems, classes, width), logits and probabilities (problems, classes, rows)."""

    design: Tensor
    transposed: Tensor
    squared: Tensor
    codes: Tensor
    """(1, 1, rows)."""
    row_weights: Tensor
    """(problems, 1, rows)."""
    ridge: Tensor
    """(width,) the penalty on each column of the weights."""

    @classmethod
    def of(cls, design: Tensor, codes: Tensor, row_weights: Tensor) -> Self:
        ridge = design.new_full((design.shape[1],), BIAS_PENALTY)
        codes, row_weights = codes.view(1, 1, -1), row_weights.unsqueeze(1)
        return cls(design, design.T.contiguous(), design.square(), codes, row_weights, ridge)

    def at(self, penalty: float) -> Self:
        ridge = torch.full_like(self.ridge, penalty)
        ridge[-1] = BIAS_PENALTY
        return replace(self, ridge=ridge)

    def keep(self, which: Tensor) -> Self:
        return replace(self, row_weights=self.row_weights[which])

    def logits(self, weights: Tensor) -> Tensor:
        return (weights.flatten(0, 1) @ self.transposed).unflatten(0, weights.shape[:2])

    def of_truth(self, values: Tensor) -> Tensor:
        """(problems, 1, rows): the value of each row's own class."""
        return values.gather(1, self.codes.expand(len(values), -1, -1))

    def mean(self, values: Tensor) -> Tensor:
        """(problems,): weighted mean over rows of (problems, 1, rows)."""
        return torch.linalg.vecdot(values, self.row_weights)[:, 0]

    def value(self, weights: Tensor, probabilities: Tensor) -> Tensor:
        surprise = -self.of_truth(probabilities).clamp_min(1e-30).log()
        return self.mean(surprise) + 0.5 * _dot(self.ridge * weights, weights)

    def gradient(self, weights: Tensor, probabilities: Tensor) -> Tensor:
        """Consumes `probabilities`."""
        residual = probabilities.mul_(self.row_weights)
        residual.scatter_add_(1, self.codes.expand(len(weights), -1, -1), -self.row_weights)
        slope = (residual.flatten(0, 1) @ self.design).unflatten(0, weights.shape[:2])
        return slope.addcmul_(self.ridge, weights)


@dataclass(frozen=True)
class _Curvature:
    """Mean Fisher information of the problems: nearly diagonal once the classes are turned."""

    turn: Tensor
    """(classes, classes), orthonormal rows."""
    inverse: Tensor
    """(classes, width), one over the diagonal."""

    @classmethod
    def of(cls, problems: _Problems, probabilities: Tensor) -> Self:
        weighted = probabilities * problems.row_weights
        shared = (weighted @ probabilities.mT).mean(0)
        between = weighted.sum(2).mean(0).diag() - shared
        turn = torch.linalg.eigh(between.double())[1].to(weighted.dtype).T.contiguous()
        spread = turn.square() @ probabilities - (turn @ probabilities).square()
        spread = (spread * problems.row_weights).mean(0).clamp_min(0.0)
        return cls(turn, torch.addmm(problems.ridge, spread, problems.squared).reciprocal())

    def precondition(self, gradient: Tensor) -> Tensor:
        return self.turn.T @ (self.turn @ gradient * self.inverse)


@dataclass(frozen=True)
class _Pair:
    """A step, the change of the gradient along it, and one over their product."""

    moved: Tensor
    change: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, moved: Tensor, change: Tensor) -> Self:
        return cls(moved, change, _inverse(_dot(moved, change)))

    def keep(self, which: Tensor) -> Self:
        return type(self)(self.moved[which], self.change[which], self.inverse[which])


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(problems,) inner products."""
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def _inverse(curved: Tensor) -> Tensor:
    """1 / `curved`; zero where rounding has left no curvature to learn from."""
    return torch.where(curved > 1e-30, curved.reciprocal(), 0.0)


def _direction(gradient: Tensor, history: list[_Pair], curvature: _Curvature) -> Tensor:
    """Two-loop recursion of L-BFGS around the inverse of `curvature`."""
    direction = -gradient
    taken: list[Tensor] = []
    for pair in reversed(history):
        share = pair.inverse * _dot(pair.moved, direction)
        direction = torch.addcmul(direction, pair.change, share.view(-1, 1, 1), value=-1.0)
        taken.append(share)
    direction = curvature.precondition(direction)
    if history:
        last = history[-1]
        fitting = _inverse(last.inverse * _dot(last.change, curvature.precondition(last.change)))
        direction *= torch.where(last.inverse > 0, fitting, 1.0).view(-1, 1, 1)
    for pair, share in zip(history, reversed(taken), strict=True):
        share = share - pair.inverse * _dot(pair.change, direction)
        direction.addcmul_(pair.moved, share.view(-1, 1, 1))
    return direction


def _line_search(
    problems: _Problems, weights: Tensor, logits: Tensor, gradient: Tensor, direction: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Go along `direction` until the slope has at least halved; nearly always the first try, a full step.

    Logits are linear in the step, so another try costs a softmax and no matrix product. Returns what was
    added to the weights, and the logits and probabilities there.
    """
    turn = problems.logits(direction)
    slope_start = _dot(gradient, direction)
    slope_truth = problems.mean(problems.of_truth(turn))
    slope_ridge = _dot(problems.ridge * weights, direction)
    bend_ridge = _dot(problems.ridge * direction, direction)
    length, low = torch.ones_like(slope_start), torch.zeros_like(slope_start)
    high = torch.full_like(length, torch.inf)
    for attempt in range(TRIES):
        new_logits = torch.addcmul(logits, turn, length.view(-1, 1, 1))
        probabilities = new_logits.softmax(1)
        mean_turn = (probabilities * turn).sum(1, keepdim=True)
        slope = problems.mean(mean_turn) - slope_truth + slope_ridge + length * bend_ridge
        if attempt == TRIES - 1 or bool((slope.abs() <= -0.5 * slope_start).all()):
            break
        variance = (probabilities * turn.square()).sum(1, keepdim=True) - mean_turn.square()
        bend = problems.mean(variance) + bend_ridge
        low, high = torch.where(slope < 0, length, low), torch.where(slope < 0, high, length)
        newton = length - slope / bend.clamp_min(1e-30)
        unbounded = high.isinf()
        middle = torch.where(unbounded, 2.0 * length, 0.5 * (low + high))
        # Where a class is not seen, the curvature fades along its bias and Newton would leap out of sight.
        inside = (newton > low) & (newton < torch.where(unbounded, 4.0 * length, high))
        length = torch.where(inside, newton, middle)
    return direction * length.view(-1, 1, 1), new_logits, probabilities
