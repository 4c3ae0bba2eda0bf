"""Many multinomial logistic regressions on the same rows, solved together in one batch of matrix products.

The problems share the design matrix and differ in which rows they may see (cross-validation folds). The
method is L-BFGS (Liu & Nocedal 1989) with the diagonal of each class's own Fisher information,
`sum_i w_i p_ik (1 - p_ik) z_ij^2`, as preconditioner, renewed every few steps. In the eigenbasis of the Gram
matrix that diagonal is close to the whole Hessian block, and unlike the constant bound of Boehning (1992) it
follows the curvature as it fades where the classes become separable: 10 to 20 steps instead of 50 to 150.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 6
"""Pairs of steps and gradient changes that L-BFGS remembers."""
RENEW_EVERY = 10
"""Steps between two looks at the curvature; one look costs half a step."""
BIAS_PENALTY = 1e-8
"""Keeps the bias of a class that a fold never shows from running away; too small to be seen in the loss."""


@dataclass(frozen=True)
class Solution:
    """Minimisers of a batch of problems.

    Attributes
    ----------
    weights
        (problems, width, classes) float32; the last row of width is the bias.
    gap
        (problems,) estimated distance to the optimum as a share of the objective.
    gradient_norm
        (problems,) Euclidean norm of the gradient of the objective.
    """

    weights: Tensor
    gap: Tensor
    gradient_norm: Tensor


class _Problems:
    """Of each problem: weighted mean cross-entropy plus `penalty / 2 * ||W||^2`, the bias unpenalised."""

    def __init__(self, design: Tensor, codes: Tensor, row_weights: Tensor, penalty: float):
        self.design, self.codes, self.row_weights = design, codes, row_weights
        self.ridge = torch.full((design.shape[1], 1), penalty, dtype=design.dtype, device=design.device)
        self.ridge[-1] = BIAS_PENALTY

    def keep(self, which: Tensor) -> None:
        self.row_weights = self.row_weights[which]

    def of_truth(self, values: Tensor) -> Tensor:
        """(problems, rows): the value of each row's own class."""
        return values.gather(2, self.codes.view(1, -1, 1).expand(len(values), -1, 1)).squeeze(2)

    def value(self, weights: Tensor, probabilities: Tensor) -> Tensor:
        surprise = -self.of_truth(probabilities).clamp_min(1e-30).log()
        return (surprise * self.row_weights).sum(1) + 0.5 * _dot(self.ridge * weights, weights)

    def gradient(self, weights: Tensor, probabilities: Tensor) -> Tensor:
        """Consumes `probabilities`."""
        residual = probabilities
        residual[:, torch.arange(len(self.codes), device=self.codes.device), self.codes] -= 1.0
        residual *= self.row_weights.unsqueeze(2)
        return torch.addcmul(self.design.T @ residual, self.ridge, weights)

    def curvature(self, squared_design: Tensor, probabilities: Tensor) -> Tensor:
        spread = probabilities * (1.0 - probabilities) * self.row_weights.unsqueeze(2)
        return squared_design.T @ spread + self.ridge


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
        (problems, width, classes), such as the solution at a neighbouring penalty.
    tolerance
        A problem is left alone once the expected fall of its objective is below this share of it.
    max_steps
        Steps after which what is not solved is returned as it is; see `Solution.gap`.
    """
    problems = _Problems(design, codes, row_weights, penalty)
    squared = design.square()
    solved = Solution(start.clone(), start.new_zeros(len(start)), start.new_zeros(len(start)))
    running = torch.arange(len(start), device=start.device)
    history: list[tuple[Tensor, Tensor, Tensor]] = []

    weights = start
    logits = design @ weights
    probabilities = logits.softmax(2)
    value = problems.value(weights, probabilities)
    scale = problems.curvature(squared, probabilities).reciprocal()
    gradient = problems.gradient(weights, probabilities)
    for step in range(max_steps + 1):
        direction = _direction(gradient, history, scale)
        gap = -0.5 * _dot(gradient, direction) / value
        done = (gap < tolerance) | (step == max_steps)
        if done.any():
            solved.weights[running[done]] = weights[done]
            solved.gap[running[done]] = gap[done]
            solved.gradient_norm[running[done]] = gradient[done].flatten(1).norm(dim=1)
            left = ~done
            if not left.any():
                break
            problems.keep(left)
            history = [(s[left], y[left], r[left]) for s, y, r in history]
            running, weights, logits, gradient, scale, direction = (
                tensor[left] for tensor in (running, weights, logits, gradient, scale, direction)
            )
        moved, logits, probabilities = _line_search(problems, weights, logits, gradient, direction)
        weights = weights + moved
        value = problems.value(weights, probabilities)
        if step % RENEW_EVERY == RENEW_EVERY - 1:
            scale = problems.curvature(squared, probabilities).reciprocal()
        before, gradient = gradient, problems.gradient(weights, probabilities)
        change = gradient - before
        history.append((moved, change, _inverse(_dot(moved, change))))
        del history[:-MEMORY]
    return solved


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a.flatten(1), b.flatten(1))


def _inverse(curved: Tensor) -> Tensor:
    """1 / `curved`; zero where rounding has left no curvature to learn from."""
    return torch.where(curved > 1e-30, curved.reciprocal(), 0.0)


def _direction(gradient: Tensor, history: list[tuple[Tensor, Tensor, Tensor]], scale: Tensor) -> Tensor:
    """Two-loop recursion of L-BFGS around the diagonal `scale`."""
    direction = -gradient
    taken: list[Tensor] = []
    for moved, change, inverse in reversed(history):
        share = inverse * _dot(moved, direction)
        direction = torch.addcmul(direction, change, share.view(-1, 1, 1), value=-1.0)
        taken.append(share)
    direction = direction * scale
    if history:
        moved, change, inverse = history[-1]
        fitting = _inverse(inverse * _dot(change, change * scale))
        direction *= torch.where(inverse > 0, fitting, 1.0).view(-1, 1, 1)
    for (moved, change, inverse), share in zip(history, reversed(taken), strict=True):
        direction.addcmul_(moved, (share - inverse * _dot(change, direction)).view(-1, 1, 1))
    return direction


def _line_search(
    problems: _Problems, weights: Tensor, logits: Tensor, gradient: Tensor, direction: Tensor, tries: int = 5
) -> tuple[Tensor, Tensor, Tensor]:
    """Go along `direction` until the slope has at least halved; nearly always the first try, a full step.

    Logits are linear in the step, so another try costs a softmax and no matrix product. Returns what was
    added to the weights, and the logits and probabilities there.
    """
    turn = problems.design @ direction
    slope_start = _dot(gradient, direction)
    slope_truth = (problems.of_truth(turn) * problems.row_weights).sum(1)
    slope_ridge = _dot(problems.ridge * weights, direction)
    bend_ridge = _dot(problems.ridge * direction, direction)
    length, low, high = torch.ones_like(slope_start), torch.zeros_like(slope_start), None
    for attempt in range(tries):
        new_logits = torch.addcmul(logits, turn, length.view(-1, 1, 1))
        probabilities = new_logits.softmax(2)
        mean_turn = (probabilities * turn).sum(2)
        slope = (mean_turn * problems.row_weights).sum(1) - slope_truth + slope_ridge + length * bend_ridge
        if attempt == tries - 1 or bool((slope.abs() <= -0.5 * slope_start).all()):
            break
        variance = (probabilities * turn.square()).sum(2) - mean_turn.square()
        bend = (variance * problems.row_weights).sum(1) + bend_ridge
        low = torch.where(slope < 0, length, low)
        high = torch.full_like(length, torch.inf) if high is None else high
        high = torch.where(slope < 0, high, length)
        newton = length - slope / bend.clamp_min(1e-30)
        middle = torch.where(high.isinf(), 2.0 * length, 0.5 * (low + high))
        length = torch.where((newton > low) & (newton < high), newton, middle)
    return direction * length.view(-1, 1, 1), new_logits, probabilities
