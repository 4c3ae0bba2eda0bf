"""What is left at each depth and what falls between two of them, on the same test images."""

from collections.abc import Sequence
from dataclasses import astuple
from itertools import pairwise

import numpy as np
import pandas as pd

from fgdiag_probes.depths import LOSING_STAGE, NETWORK, Depth
from fgdiag_probes.intervals import Estimates, accuracies, clustered_means, holm
from fgdiag_probes.labels import Labels, Level

SIGNIFICANT = 0.05


def drops_between(
    chain: Sequence[Depth],
    labels: Labels,
    level: Level,
    asked: np.ndarray,
    upper: Sequence[Depth] | None = None,
) -> pd.DataFrame:
    """Compare consecutive depths.

    Parameters
    ----------
    chain
        The depths in order.
    asked
        (test,) bool, the images to compare on. A drop is measured on those of them that both its depths have something
        to say about.
    upper
        For each depth of the chain what speaks for it where a reader need not be linear.

    Returns
    -------
    DataFrame
        A row for two consecutive depths; columns as of `fgdiag_probes.bottleneck.LossBudget.drops`.
    """
    correct = 100 * np.stack([depth.reading.correct(labels, level) for depth in chain])
    bits = np.stack([depth.reading.bits for depth in chain])
    known, clusters = asked & ~np.isnan(bits), labels.fine[labels.test]
    fall = _falls(correct, known, clusters, step=100.0)
    rise = _falls(-bits, known, clusters, step=0.0)
    p_value = holm(fall.p_value)
    table = pd.DataFrame(
        {
            "level": level,
            "from": [depth.name for depth in chain[:-1]],
            "to": [depth.name for depth in chain[1:]],
            "stage": [LOSING_STAGE[depth.name] for depth in chain[1:]],
            "drop": fall.mean,
            "low": fall.low,
            "high": fall.high,
            "drop_bits": rise.mean,
            "low_bits": rise.low,
            "high_bits": rise.high,
            "p_value": p_value,
            "significant": (p_value < SIGNIFICANT) & (fall.mean > 0),
            "made_good": [_made_good(correct, known, clusters, at) for at in range(len(chain) - 1)],
        }
    )
    if upper:
        read = 100 * np.stack([depth.reading.correct(labels, level) for depth in upper])
        gone = _falls(read, known, clusters, step=100.0)
        networks = np.array([depth.readout == NETWORK for depth in upper])
        table = table.assign(
            drop_nonlinear=gone.mean,
            low_nonlinear=gone.low,
            high_nonlinear=gone.high,
            by_network=networks[:-1] | networks[1:],
            lost=gone.low > 0,
        )
    return table


def _falls(values: np.ndarray, known: np.ndarray, clusters: np.ndarray, *, step: float) -> Estimates:
    """By how much each row of (depths, test) falls to the next, on the images that both know."""
    found = [
        clustered_means((before - after)[None, both], clusters[both], step=step)
        for (before, after), both in zip(pairwise(values), known[:-1] & known[1:], strict=True)
    ]
    return Estimates(*(np.concatenate(parts) for parts in zip(*map(astuple, found), strict=True)))


def _made_good(correct: np.ndarray, known: np.ndarray, clusters: np.ndarray, at: int) -> bool:
    """Whether a later depth is seen to rise again, and not seen to stay below where the fall began."""
    for later in range(at + 2, len(correct)):
        all_know = known[[at, at + 1, later]].all(0)
        before, after, then = correct[[at, at + 1, later]][:, all_know]
        found = clustered_means(np.stack([then - after, before - then]), clusters[all_know], step=100.0)
        risen, below = _above_zero(found)
        if risen and not below:
            return True
    return False


def scores_at(
    chain: Sequence[Depth],
    labels: Labels,
    level: Level,
    asked: np.ndarray,
    upper: Sequence[Depth] | None = None,
) -> pd.DataFrame:
    """Score each depth of a chain, which may begin with the pixel baseline.

    Returns
    -------
    DataFrame
        A row a depth; columns as of `fgdiag_probes.bottleneck.LossBudget.depths`.
    """
    clusters = labels.fine[labels.test][asked]
    correct = np.stack([depth.reading.correct(labels, level)[asked] for depth in chain])
    chance, chance_bits = labels.chance[level]
    pixels = correct[0] if chain[0].name == "pixels" else np.full(correct.shape[1], chance)
    rival = pixels if pixels.mean() > chance else np.full(correct.shape[1], chance)
    above_chance = clustered_means(correct - chance, clusters, step=1.0)
    above_pixels = clustered_means(correct - pixels, clusters, step=1.0)
    gain = clustered_means(correct - rival, clusters, step=1.0)
    table = pd.DataFrame(
        {
            "level": level,
            "depth": [depth.name for depth in chain],
            "site": [depth.site for depth in chain],
            "readout": [depth.readout for depth in chain],
            **accuracies(correct, clusters),
            "bits": [depth.reading.bits[asked].mean() for depth in chain],
            "chance": chance,
            "chance_bits": chance_bits,
            "above_chance": _above_zero(above_chance),
            "above_pixels": _above_zero(above_pixels),
            "gain_high": gain.high,
            "images": int(asked.sum()),
        }
    )
    if upper:
        by_name = {depth.name: depth for depth in upper}
        nonlinear = [
            by_name[depth.name].reading.correct(labels, level)[asked].mean()
            if depth.name in by_name
            else np.nan
            for depth in chain
        ]
        networks = [depth.name for depth in upper if depth.readout == NETWORK]
        table = table.assign(nonlinear=nonlinear, by_network=table["depth"].isin(networks))
    return table


def _above_zero(found: Estimates) -> np.ndarray:
    return (found.p_value < SIGNIFICANT) & (found.mean > 0)
