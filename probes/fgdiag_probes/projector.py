"""What the projector does to the encoder's vectors, without asking for labels.

Two measures after Li et al. 2025 (Lost in Embeddings, arXiv 2509.11986): whether an image keeps its neighbours, and
how much of the encoder's vectors can be rebuilt from what the projector puts out.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fgdiag.errors import ImagesNotUsable
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.linear import Basis

ROWS_AT_ONCE = 1024
RIDGES = tuple(10.0**power for power in range(-6, 3))
"""Ridge penalties, in units of the variance of a standardised feature."""


@dataclass(frozen=True)
class NeighbourOverlap:
    """Share of an image's nearest neighbours that are still the nearest ones afterwards.

    Attributes
    ----------
    neighbours, images
        How many neighbours of how many images.
    overlap, low, high
        Mean share in [0, 1], and its 95 % interval (clustered by class).
    chance
        Share kept by a projector that shuffles the images: `neighbours / (images - 1)`.
    """

    neighbours: int
    images: int
    overlap: float
    low: float
    high: float
    chance: float

    def frame(self) -> pd.DataFrame:
        """Return the numbers as a table of one row."""
        return pd.DataFrame([asdict(self)])

    def json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)


def neighbour_overlap(
    before: np.ndarray, after: np.ndarray, k: int = 10, *, clusters: np.ndarray
) -> NeighbourOverlap:
    """Compare who is near whom in two spaces.

    Near is a high cosine between vectors less the mean of all, which a shift, a rotation or a change of scale of
    the whole space leaves as it is. At most 1024 x images similarities are held at once.

    Parameters
    ----------
    before, after
        (images, width) of the same images, such as what the projector is fed and what it puts out; the widths
        may differ.
    k
        Neighbours of each image.
    clusters
        (images,) class of each image, by which the interval is clustered.

    Raises
    ------
    ImagesNotUsable
        Not the same images, fewer than `k + 2` of them, or vectors that are not finite.
    """
    _check_pairs(before, after)
    images = len(before)
    if not 1 <= k < images - 1:
        raise ImagesNotUsable(
            f"{k} neighbours were asked for among {images} images; give 1 or more, and at least {k + 2} images."
        )
    kept = np.concatenate(
        [
            (one[:, :, None] == other[:, None]).any(2).double().mean(1).numpy()
            for one, other in zip(_nearest(before, k), _nearest(after, k), strict=True)
        ]
    )
    found = clustered_means(kept[None], clusters)
    low, high = (float(end[0].clip(0, 1)) for end in (found.low, found.high))
    return NeighbourOverlap(k, images, float(found.mean[0]), low, high, k / (images - 1))


def _nearest(vectors: np.ndarray, k: int) -> Iterator[Tensor]:
    """Indices of each image's `k` neighbours, (rows, k), part by part."""
    centred = torch.from_numpy(vectors - vectors.mean(0, dtype=np.float64)).float()
    directions = torch.nn.functional.normalize(centred)
    for rows in torch.arange(len(directions)).split(ROWS_AT_ONCE):
        alike = directions[rows] @ directions.T
        alike[torch.arange(len(rows)), rows] = -torch.inf
        yield alike.topk(k).indices


@dataclass(frozen=True)
class Reconstruction:
    """How much of the vectors before can be rebuilt, linearly, from those after.

    Attributes
    ----------
    share, low, high
        Share of the variance (R2) on test rows, at most 1, and its 95 % interval (clustered by class).
    chance
        0: what the mean of the training rows rebuilds.
    penalty, at_edge
        The ridge penalty chosen, and whether it is an end of the grid. The weakest is right where all can be
        rebuilt, the strongest where nothing can.
    train, test
        Numbers of rows.
    """

    share: float
    low: float
    high: float
    chance: float
    penalty: float
    at_edge: bool
    train: int
    test: int

    def frame(self) -> pd.DataFrame:
        """Return the numbers as a table of one row."""
        return pd.DataFrame([asdict(self)])

    def json(self) -> dict[str, Any]:
        """Return the numbers as plain values."""
        return asdict(self)


def reconstruction(
    before: np.ndarray,
    after: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    *,
    folds: np.ndarray,
    clusters: np.ndarray,
    penalties: Sequence[float] = RIDGES,
    resolution: float = 0.0,
) -> Reconstruction:
    """Rebuild the encoder's vectors from the projector's by ridge regression, and count the variance explained.

    Every feature is standardised by the training rows, so that a few features of huge size do not speak for all.
    One penalty serves all of them: the one with the least squared error on the training rows held out.

    Parameters
    ----------
    before, after
        (rows, width) of the same images or tokens; the widths may differ.
    train, test
        Indices of rows to fit and to score.
    folds
        (train,) fold of each training row; the tokens of one image belong in one fold.
    clusters
        (test,) class of each test row, by which the interval is clustered.
    penalties
        Grid of ridge penalties, in units of the variance of a standardised feature.
    resolution
        See `fgdiag_probes.linear.Basis.of`.

    Raises
    ------
    ImagesNotUsable
        Not the same rows, or vectors that are not finite.
    """
    _check_pairs(before[train], after[train])
    _check_pairs(before[test], after[test])
    scale_of = Basis.of(before[train], resolution=resolution)
    known, wanted = ((before[rows] - scale_of.mean) / scale_of.scale for rows in (train, test))
    errors = np.zeros(len(penalties))
    for fold in np.unique(folds):
        seen, held = folds != fold, folds == fold
        basis = Basis.of(after[train][seen], resolution=resolution)
        rebuilt = _rebuild(basis, known[seen], after[train][held], penalties)
        errors += [np.square(known[held] - one).sum() for one in rebuilt]
    penalty = penalties[int(errors.argmin())]
    (rebuilt,) = _rebuild(Basis.of(after[train], resolution=resolution), known, after[test], [penalty])
    error, spread = np.square(wanted - rebuilt).sum(1), np.square(wanted).sum(1)
    share = 1 - error.sum() / spread.sum()
    # A ratio of two means: its linear part has the same mean and, to first order, the same spread.
    linear = share + (spread - error - share * spread) / spread.mean()
    found = clustered_means(linear[None], clusters)
    at_edge = penalty in (min(penalties), max(penalties))
    low, high = float(found.low[0]), min(1.0, float(found.high[0]))
    return Reconstruction(float(share), low, high, 0.0, penalty, at_edge, len(train), len(test))


def _rebuild(
    basis: Basis, targets: np.ndarray, queries: np.ndarray, penalties: Sequence[float]
) -> Iterator[np.ndarray]:
    """Rebuild the targets of new rows, once a penalty.

    In the eigenbasis of its own rows the ridge solution is a division by variance plus penalty.
    """
    design, mean = basis.design[:, :-1].double(), torch.from_numpy(targets.mean(0))
    covariance = design.T @ (torch.from_numpy(targets) - mean) / len(design)
    variance = design.square().mean(0)[:, None]
    coordinates = basis.project(queries)[:, :-1].double()
    for penalty in penalties:
        yield (coordinates @ (covariance / (variance + penalty)) + mean).numpy()


def _check_pairs(before: np.ndarray, after: np.ndarray) -> None:
    if len(before) != len(after):
        raise ImagesNotUsable(
            f"{len(before)} vectors before and {len(after)} after: give the same images, in the same order."
        )
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        raise ImagesNotUsable(
            "Some vectors are not finite, as those of unreadable and excluded images are: give the rows of "
            "`Labels.train` and `Labels.test` only."
        )
