"""Where along the sites a score falls for good, when there are few images and many sites.

A pair of classes has a dozen to a hundred test images, and the sites are many. Every stretch from one of a few depths
to a later one is tried, so a loss is found whether it comes in one step or in many. By chance alone some stretch will
fall: how far is seen by flipping signs. Were there no loss, an image would be as likely to turn wrong as to turn
right, so its whole trajectory along the sites could as well be upside down. A fall counts where few of such worlds
show any as large anywhere: one test of all stretches together, exact for few images, and not made blunt by sites
that say nearly the same (maxT; Westfall & Young 1993, "Resampling-Based Multiple Testing"; of a single stretch it
is the exact McNemar test). Only inside a stretch that falls so are the sites between its depths tried, by the same
test among themselves: that tells where, and no longer whether.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

SIGNIFICANT = 0.05
FLIPS = 4999
TIE = 1e-9
"""Sums closer than this are the same sum, rounded differently."""


@dataclass(frozen=True)
class Fall:
    """A fall that luck does not explain and that no later site makes good.

    Attributes
    ----------
    start, end
        The site after which it begins and the one by which it has come, by position. No shorter stretch between
        them falls significantly.
    size
        Of the fall, in the unit of the values.
    p_value
        Two-sided, of the fall between the depths tried first in which this one lies, all stretches between these depths
        considered. That something is lost rests on it alone; where in between was sought out later.
    """

    start: int
    end: int
    size: float
    p_value: float


@dataclass(frozen=True)
class Flipped:
    """Means of the values of images at each site: as observed, and with signs flipped at random.

    Attributes
    ----------
    observed
        (sites,) float64.
    flipped
        (flips, sites) float64.
    """

    observed: np.ndarray
    flipped: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray, clusters: np.ndarray, *, seed: int) -> Self:
        """Flip the trajectories of images; those of one cluster together.

        Parameters
        ----------
        values
            (sites, images) finite floats.
        clusters
            (images,) what must not be taken for independent, such as pictures of one object.
        seed
            Of the signs.
        """
        _, codes = np.unique(clusters, return_inverse=True)
        sums = np.stack([np.bincount(codes, row) for row in values]) / values.shape[1]
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (FLIPS, sums.shape[1]))
        return cls(sums.sum(1), signs @ sums.T)

    def at(self, sites: Sequence[int]) -> Self:
        """Return the same at some of the sites."""
        return type(self)(self.observed[list(sites)], self.flipped[:, list(sites)])

    def above_zero(self) -> np.ndarray:
        """(sites,) bool, whether each mean is significantly above zero, as if no other had been looked at."""
        pairs = zip(self.flipped.T, self.observed, strict=True)
        p_value = np.array([_share_beyond(np.abs(chance), np.abs(seen)) for chance, seen in pairs])
        return (p_value < SIGNIFICANT) & (self.observed > 0)

    def of_stretches(self) -> np.ndarray:
        """(sites, sites) two-sided p-values of each site being as high as each other, all stretches considered."""
        change = self.observed[:, None] - self.observed
        return _share_beyond(np.ptp(self.flipped, axis=1), np.abs(change))

    def between(self, one: int, other: int) -> float:
        """Two-sided p-value of two sites being equally high, as if no others had been looked at."""
        change = np.abs(self.flipped[:, one] - self.flipped[:, other])
        return float(_share_beyond(change, np.abs(self.observed[one] - self.observed[other])))


def fall_for_good(flipped: Flipped, depths: Sequence[int]) -> Fall | None:
    """Find where a score falls for good: first between which depths, then between which sites.

    What is lost for good inside a part of the model is missing at its end, so a few depths are enough to see that
    something is lost. Only then the sites between them are tried, and the fall is named as closely as they tell.

    Parameters
    ----------
    flipped
        At every site.
    depths
        Positions of the sites to try first, increasing.
    """
    coarse = _largest(flipped, depths)
    if coarse is None:
        return None
    closer = _largest(flipped, range(coarse.start, coarse.end + 1)) or coarse
    return replace(closer, p_value=coarse.p_value)


def _largest(flipped: Flipped, sites: Sequence[int]) -> Fall | None:
    """Return the largest fall among some sites that is significant, as short as it can be told, and lasts."""
    there = flipped.at(sites)
    height, p_value = there.observed, there.of_stretches()
    later = np.triu(np.ones_like(p_value, dtype=bool), 1)
    falls = later & (p_value < SIGNIFICANT) & (height[:, None] > height)
    within = falls[::-1].cumsum(0)[::-1].cumsum(1)  # how many of them lie inside a stretch, itself included
    lasting = [
        Fall(sites[start], sites[end], float(height[start] - height[end]), float(p_value[start, end]))
        for start, end in np.argwhere(falls & (within == 1))
        if not _made_good(there, int(start), int(end))
    ]
    return max(lasting, key=lambda fall: fall.size, default=None)


def _made_good(flipped: Flipped, start: int, end: int) -> bool:
    """Whether a later site is seen to rise again, and not seen to stay below where the fall began."""
    height = flipped.observed
    return any(
        height[later] > height[end]
        and flipped.between(end, later) < SIGNIFICANT
        and (height[later] >= height[start] or flipped.between(start, later) >= SIGNIFICANT)
        for later in range(end + 1, len(height))
    )


def _share_beyond(chance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Share of values of `chance` that reach each value of `seen`, what was observed counted among them."""
    below = np.searchsorted(np.sort(chance), seen - TIE)
    return (len(chance) - below + 1) / (len(chance) + 1)
