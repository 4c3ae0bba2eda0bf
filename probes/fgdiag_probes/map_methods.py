"""The ways to make a map, and where each of them can look."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from fgdiag.errors import FgdiagError
from fgdiag_probes import ablation, gradients
from fgdiag_probes.layout import PixelLayout, TokenLayout
from fgdiag_probes.rollout import attention_rollout
from fgdiag_probes.substitution import Entry, Substitution

SMOOTHING = 1.0
"""Standard deviation, in cells, by which maps of gradients at the pixels are smoothed: an encoder takes in whole
patches, and what is finer than these is noise."""

Layout = PixelLayout | TokenLayout


@dataclass(frozen=True)
class Method:
    """One way to make maps.

    Attributes
    ----------
    words
        What it is called.
    entries
        Where it can be used, the usual place first.
    make
        (substitution, layout, budget, seed) to cells (rows, columns).
    versions
        From how many pieces there are to take away, and the budget, to how many versions of the picture are scored.
    sampled
        Whether it draws, so that its maps depend on the budget.
    """

    words: str
    entries: tuple[Entry, ...]
    make: Callable[[Substitution, Layout, int, int], np.ndarray]
    versions: Callable[[int, int], int]
    sampled: bool = False


def _by_gradients(relevance: Callable[[Substitution], Any]) -> Callable[..., np.ndarray]:
    def make(given: Substitution, layout: Layout, _budget: int, _seed: int) -> np.ndarray:
        cells = layout.lay(relevance(given))
        return _smooth(cells) if given.entry == "pixels" else cells

    return make


def _smooth(cells: np.ndarray) -> np.ndarray:
    """Smooth what is seen; the sum stays."""
    seen = np.isfinite(cells)
    box = np.ix_(seen.any(1), seen.any(0))
    smooth = np.full_like(cells, np.nan)
    smooth[box] = gaussian_filter(np.nan_to_num(cells[box]), SMOOTHING, mode="reflect")
    return smooth


METHODS: dict[str, Method] = {
    "ig": Method(
        "integrated gradients",
        ("pixels", "projector", "vision"),
        _by_gradients(gradients.integrated_gradients),
        lambda _pieces, _budget: gradients.STEPS,
    ),
    "ixg": Method(
        "input × gradient",
        ("pixels", "projector", "vision"),
        _by_gradients(gradients.input_times_gradient),
        lambda _pieces, _budget: 1,
    ),
    "gradcam": Method(
        "Grad-CAM",
        ("vision", "projector"),
        _by_gradients(gradients.grad_cam),
        lambda _pieces, _budget: 1,
    ),
    "occlusion": Method(
        "occlusion",
        ("pixels", "projector", "vision"),
        lambda given, layout, _budget, _seed: ablation.occlusion(given, layout),
        lambda pieces, _budget: pieces,
    ),
    "shapley": Method(
        "Shapley values",
        ("projector", "pixels", "vision"),
        ablation.shapley,
        lambda _pieces, budget: budget,
        sampled=True,
    ),
    "kernelshap": Method(
        "KernelSHAP",
        ("projector", "pixels", "vision"),
        ablation.kernel_shap,
        lambda _pieces, budget: budget,
        sampled=True,
    ),
    "rollout": Method(
        "attention rollout (baseline: blind to the question)",
        ("projector",),
        _by_gradients(attention_rollout),
        lambda _pieces, _budget: 1,
    ),
}
ENTRY_WORDS: dict[Entry, str] = {
    "pixels": "at the pixels",
    "vision": "at the encoder's tokens",
    "projector": "at the image tokens",
}


def method_named(name: str) -> tuple[Method, Entry]:
    """Read `METHOD` or `METHOD@ENTRY`; `FgdiagError` where there is none of that name.

    Examples
    --------
    >>> method_named("gradcam")[1]
    'vision'
    """
    word, _, entry = name.partition("@")
    method = METHODS.get(word)
    if method is None:
        raise FgdiagError(f"No method {word!r}; expected one of {', '.join(METHODS)}.")
    if entry and entry not in method.entries:
        raise FgdiagError(f"{word} is used at {' or '.join(method.entries)}, not at {entry!r}.")
    return method, next(one for one in method.entries if entry in ("", one))


def versions_scored(method: Method, layout: Layout, budget: int) -> int:
    """Return about how many versions of a picture are scored for one map."""
    pieces = len(layout.rows) if isinstance(layout, TokenLayout) else ablation.WINDOWS**2
    return method.versions(pieces, budget)
