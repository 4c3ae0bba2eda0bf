"""Maps from taking things away: occlusion, Shapley values by sampling, KernelSHAP.

What is taken away is a window of the picture or an image token, and what comes in its place is the same window or token
of the blurred picture. Nothing but scores is needed, no gradients; the price is many forward passes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import FeatureAblation, KernelShap, ShapleyValueSampling
from torch import Tensor

from fgdiag_probes.layout import PixelLayout, TokenLayout
from fgdiag_probes.substitution import AT_ONCE, Substitution

WINDOWS, SAMPLED_WINDOWS = 14, 7
"""Windows along the longer side of the picture, where pixels are taken away one window at a time, and where sampling
takes many at once."""
BUDGET = 256
"""Forward passes that sampling methods may take."""


@dataclass(frozen=True)
class _Pieces:
    """What is taken away: windows or tokens.

    Attributes
    ----------
    given
        The picture.
    of_number
        int64, of the shape of what is put in, or of one that broadcasts to it: the piece that a number belongs to.
    count
        How many pieces there are.
    lay
        From a relevance of each piece, (pieces,) float64, to cells (rows, columns).
    """

    given: Substitution
    of_number: Tensor
    count: int
    lay: Callable[[np.ndarray], np.ndarray]

    def scores(self, present: Tensor) -> Tensor:
        """(versions,) scores where only those pieces are there that have a 1 in `present` (versions, pieces)."""
        values = torch.where((present > 0.5)[:, self.of_number], self.given.original, self.given.blurred)
        return self.given.scores(values)

    @property
    def all(self) -> Tensor:
        """(1, pieces), every piece there."""
        return torch.ones(1, self.count, device=self.given.original.device)

    def laid(self, relevance: Tensor) -> np.ndarray:
        """Cells (rows, columns) of a relevance (1, pieces)."""
        return self.lay(relevance[0].detach().double().cpu().numpy())


def occlusion(given: Substitution, layout: PixelLayout | TokenLayout) -> np.ndarray:
    """How much the score falls when a window or a token is taken away (Zeiler & Fergus 2014, arXiv 1311.2901).

    Returns
    -------
    ndarray
        (rows, columns) float64, in the unit of the target.
    """
    pieces = _pieces(given, layout, WINDOWS)
    method = FeatureAblation(pieces.scores)
    return pieces.laid(method.attribute(pieces.all, perturbations_per_eval=AT_ONCE))


def shapley(
    given: Substitution, layout: PixelLayout | TokenLayout, budget: int = BUDGET, seed: int = 0
) -> np.ndarray:
    """Mean fall of the score over random orders of taking away (Strumbelj & Kononenko 2010), by captum.

    Returns
    -------
    ndarray
        (rows, columns) float64; its sum is the difference of the scores of the picture and of the blurred one.
    """
    pieces = _pieces(given, layout, SAMPLED_WINDOWS)
    orders, method = max(1, budget // pieces.count), ShapleyValueSampling(pieces.scores)
    with _seeded(seed):
        return pieces.laid(method.attribute(pieces.all, n_samples=orders, perturbations_per_eval=AT_ONCE))


def kernel_shap(
    given: Substitution, layout: PixelLayout | TokenLayout, budget: int = BUDGET, seed: int = 0
) -> np.ndarray:
    """Shapley values by weighted linear regression (Lundberg & Lee 2017, arXiv 1705.07874), by captum.

    Returns
    -------
    ndarray
        As `shapley`, up to the error of the regression.
    """
    pieces = _pieces(given, layout, SAMPLED_WINDOWS)
    method = KernelShap(pieces.scores)
    with _seeded(seed):
        return pieces.laid(method.attribute(pieces.all, n_samples=budget, perturbations_per_eval=AT_ONCE))


def _pieces(given: Substitution, layout: PixelLayout | TokenLayout, windows: int) -> _Pieces:
    if isinstance(layout, TokenLayout):
        return _tokens(given, layout)
    return _windows(given, layout, windows)


def _tokens(given: Substitution, layout: TokenLayout) -> _Pieces:
    count = given.original.shape[1]
    of_number = torch.arange(count, device=given.original.device)[:, None]
    return _Pieces(given, of_number, count, lambda values: layout.lay(torch.from_numpy(values)))


def _windows(given: Substitution, layout: PixelLayout, windows: int) -> _Pieces:
    """Windows of equal size; padding belongs to the first, for taking it away changes nothing."""
    side = max(1, round(max(layout.shape) / windows))
    row, column = (axis // side for axis in np.indices(layout.shape))
    window = row * (column.max() + 1) + column
    names, codes = np.unique(window[layout.seen], return_inverse=True)
    of_cell = np.zeros(layout.shape, np.int64)
    of_cell[layout.seen] = codes
    of_number = torch.from_numpy(np.append(of_cell.reshape(-1), 0)[layout.cell])
    sizes = np.bincount(codes)

    def lay(values: np.ndarray) -> np.ndarray:
        return np.where(layout.seen, (values / sizes)[of_cell], np.nan)

    shaped = of_number.reshape(given.original.shape[1:]).to(given.original.device)
    return _Pieces(given, shaped, len(names), lay)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Draw from a seed, and leave the generators of torch and numpy as they were."""
    state = np.random.get_state()  # noqa: NPY002 (captum draws from the global one)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
