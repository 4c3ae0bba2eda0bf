"""Three claims about what makes a VLM good at fine detail, held against the swaps of a grid."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal

from fgdiag_probes.asymmetry import Estimate, Swap

Ruling = Literal["holds", "does not hold", "cannot be told"]
ALIKE = 0.5
"""Logits by which two gains may differ and still be called alike: from 50 % to 62 %."""


@dataclass(frozen=True)
class Claim:
    """A claim of arXiv 2602.17871 as far as a grid can test it, and what one swap says of it."""

    claim: str
    swap: Swap
    ruling: Ruling
    reason: str


def claims(swaps: Sequence[Swap]) -> list[Claim]:
    """Hold every swap against the claim about its factor; the swap is taken as one from the weaker to the stronger."""
    found = []
    for swap in swaps:
        claim, rule = _ABOUT[swap.factor]
        ruling, reason = _untold(swap, rule is not _lifts_fine) or rule(swap)
        found.append(Claim(claim, swap, ruling, reason))
    return found


def _untold(swap: Swap, compares: bool) -> tuple[Ruling, str] | None:
    """Why nothing can be said, where a group has no measure that counts in logits."""
    for group in ("fine", "general") if compares else ("fine",):
        if isnan(swap.logits[group].value):
            if isnan(swap.points[group].value):
                return "cannot be told", f"the grid has no {group} benchmark to compare with"
            return "cannot be told", f"no {group} benchmark is clearly above chance in all cells"
    return None


def _alike(swap: Swap) -> tuple[Ruling, str]:
    general, difference = swap.logits["general"], swap.logits["difference"]
    if general.below_zero:
        return "does not hold", f"general scores change by {_said(general)}"
    if not general.above_zero:
        return "cannot be told", f"the swap lifts general scores by {_said(general)}, which may be nothing"
    if max(-difference.low, difference.high) < ALIKE:
        return "holds", f"fine less general is {_said(difference)}, within {ALIKE:g} logits of zero"
    if difference.above_zero or difference.below_zero:
        return "does not hold", f"fine less general is {_said(difference)}"
    return "cannot be told", f"fine less general is {_said(difference)}, more or less than {ALIKE:g} logits"


def _out_of_proportion(swap: Swap) -> tuple[Ruling, str]:
    fine, difference = swap.logits["fine"], swap.logits["difference"]
    if difference.above_zero and fine.above_zero:
        return "holds", f"fine less general is {_said(difference)}"
    if difference.below_zero or fine.below_zero:
        which = fine if fine.below_zero else difference
        return "does not hold", f"{'fine' if fine.below_zero else 'fine less general'} is {_said(which)}"
    return "cannot be told", f"fine less general is {_said(difference)}"


def _lifts_fine(swap: Swap) -> tuple[Ruling, str]:
    fine = swap.logits["fine"]
    if fine.above_zero:
        return "holds", f"fine scores change by {_said(fine)}"
    if fine.below_zero:
        return "does not hold", f"fine scores change by {_said(fine)}"
    return "cannot be told", f"fine scores change by {_said(fine)}, which may be nothing"


def _said(estimate: Estimate) -> str:
    return f"{estimate.value:+.2f} logits ({estimate.low:+.2f} to {estimate.high:+.2f})"


_ABOUT: dict[str, tuple[str, Callable[[Swap], tuple[Ruling, str]]]] = {
    "encoder": ("A better vision encoder lifts fine-grained scores out of proportion.", _out_of_proportion),
    "llm": ("A better LLM lifts fine-grained and general scores alike.", _alike),
    "plan": ("Training more of the model lifts fine-grained scores.", _lifts_fine),
}
