"""Data efficiency in bits: prequential (online) codelength (Voita & Titov 2020, arXiv 2003.12298).

The labels of the training images are sent in blocks of growing size. The first is sent at even odds; each later one
with the probabilities of a linear probe fitted to all blocks before it. What that costs in all is small where the
classes are both readable and readable from few images, so it cannot be talked up by a probe that learns by heart.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_softmax

from fgdiag_probes.few_images import TAUGHT, fit_few, probed
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Reading

SHARES = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
"""Ends of the blocks, as shares of the training images."""
HALF_AN_IMAGE = 0.5
"""What a class without images counts as (Krichevsky & Trofimov 1981)."""


@dataclass(frozen=True)
class Codelength:
    """What sending the training labels costs to one who has the features.

    Attributes
    ----------
    totals
        One row a level: `images` sent (of `fine|coarse`, those with a sibling class); `bits` in all;
        `uniform_bits`, the cost at even odds, and `compression`, how many times dearer that is;
        `frequency_bits`, the cost to one who learns how frequent the classes are but sees no features: chance;
        `bits_an_image` with a 95 % interval (`low`, `high`; clustered by fine class).
    curve
        One row a level and `block`: `images_before`, on which the probe was fitted; `images` sent, their `bits`,
        `bits_an_image`, `uniform_bits`, `frequency_bits`; and `accuracy` in [0, 1], of the likeliest class.
    """

    totals: pd.DataFrame
    curve: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Return the totals as a table; see `totals`."""
        return self.totals

    def json(self) -> dict[str, Any]:
        """Return totals and learning curve as plain values."""
        return {
            "codelength": json.loads(str(self.totals.to_json(orient="records"))),
            "curve": json.loads(str(self.curve.to_json(orient="records"))),
        }


def codelength(
    features: np.ndarray,
    labels: Labels,
    *,
    shares: Sequence[float] = SHARES,
    resolution: float = 0.0,
    seed: int = 0,
) -> Codelength:
    """Send the training labels block by block, at every level.

    Sender and receiver both know the classes and which are siblings. The code is proper, its probabilities sum to
    one over the candidates of an image, also where a block brings classes that no block before it had: those
    share the odds that the estimator of Krichevsky & Trofimov gives them, half an image each among the images
    of the candidates sent so far. The probe's penalty is chosen inside the blocks before; see
    `fgdiag_probes.few_images.fit_few`. With fewer than two classes so far there is no probe, and the classes so
    far share the rest evenly. The test images are not touched.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    labels
        Whose labels are sent: `labels.train`.
    shares
        Rising, the last one 1.
    resolution
        See `fgdiag_probes.linear.Basis.of`.
    seed
        Of the order of the images and of the folds.
    """
    train = labels.train
    block_of_row = blocks(labels.fine[train], labels.groups[train], shares, seed=seed)
    sent = {level: [] for level in labels.levels}
    for block in range(len(shares)):
        before, now = train[block_of_row < block], train[block_of_row == block]
        logits = {
            taught: _logits(features, labels, taught, before, now, resolution, seed)
            for taught in probed(labels)
        }
        for level in labels.levels:
            sent[level].append(_send(logits[TAUGHT[level]], labels, level, before, now).assign(block=block))
    images = {level: pd.concat(parts, ignore_index=True) for level, parts in sent.items()}
    return Codelength(
        pd.DataFrame([_total(images[level], level) for level in labels.levels]),
        pd.DataFrame([_point(part, level) for level in labels.levels for part in sent[level] if len(part)]),
    )


def blocks(codes: np.ndarray, groups: np.ndarray, shares: Sequence[float], *, seed: int = 0) -> np.ndarray:
    """Deal images into blocks so that each beginning of the sequence holds about its share of every class.

    Groups stay whole; a group of several classes counts as the class of its first image.

    Parameters
    ----------
    codes, groups
        (rows,) class and group of each image.
    shares
        Rising ends of the blocks, the last one 1.
    seed
        Of the order of the groups of a class, and of how shares of less than one image are rounded.

    Returns
    -------
    (rows,) int64 block of each image.

    Raises
    ------
    ValueError
        The shares do not rise to 1.
    """
    if list(shares) != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
        raise ValueError(
            f"Shares of {tuple(shares)} are no blocks; give rising ones above 0, the last one 1."
        )
    rng = np.random.default_rng(seed)
    _, first, group_of_row, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    class_of_group = codes[first]
    end = np.empty(len(sizes))
    for one in np.unique(class_of_group):
        members = rng.permutation(np.flatnonzero(class_of_group == one))
        end[members] = sizes[members].cumsum() - rng.random() * sizes[members]
        end[members] /= sizes[members].sum()
    return np.searchsorted(np.asarray(shares), end)[group_of_row]


def _logits(
    features: np.ndarray,
    labels: Labels,
    taught: Level,
    before: np.ndarray,
    now: np.ndarray,
    resolution: float,
    seed: int,
) -> np.ndarray:
    """(now, classes) log-odds of the classes seen before, by a probe fitted to the images before."""
    codes, logits = labels.codes(taught)[before], np.zeros((len(now), len(labels.names(taught))))
    if len(now) and len(np.unique(codes)) > 1:
        probe = fit_few(features[before], codes, labels.groups[before], resolution=resolution, seed=seed)
        logits[:, probe.classes] = probe.logits(features[now])
    return logits


def _send(
    logits: np.ndarray, labels: Labels, level: Level, before: np.ndarray, now: np.ndarray
) -> pd.DataFrame:
    """Price each image of a block that has anything to send: one row an image."""
    candidates = labels.candidates(level, now)
    counts = np.bincount(labels.codes(level)[before], minlength=candidates.shape[1])
    seen = Reading.of_logits(_with_escape(logits, candidates, counts), labels, level, now)
    blind = Reading.of_logits(
        np.broadcast_to(np.log(counts + HALF_AN_IMAGE), candidates.shape), labels, level, now
    )
    table = pd.DataFrame(
        {
            "fine": labels.fine[now],
            "images_before": len(before),
            "bits": seen.bits.astype(float),
            "uniform_bits": np.log2(candidates.sum(1)),
            "frequency_bits": blind.bits.astype(float),
            "accuracy": (seen.said == labels.codes(level)[now]).astype(float),
        }
    )
    return table.loc[labels.asked(level, now)]


def _with_escape(logits: np.ndarray, candidates: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """(rows, classes) log-probabilities over the candidates, those without images so far included."""
    known, new = candidates & (counts > 0), candidates & (counts == 0)
    total_new = new.sum(1, keepdims=True)
    total_sent = (candidates @ counts)[:, None] + HALF_AN_IMAGE * candidates.sum(1, keepdims=True)
    escape = HALF_AN_IMAGE * total_new / total_sent
    with np.errstate(divide="ignore", invalid="ignore"):  # rows without known, or without new, candidates
        known_odds = np.log1p(-escape) + log_softmax(np.where(known, logits, -np.inf), axis=1)
        new_odds = np.log(escape / total_new)
    return np.where(known, known_odds, np.where(new, new_odds, -np.inf))


def _total(images: pd.DataFrame, level: Level) -> dict[str, Any]:
    spread = clustered_means(images["bits"].to_numpy()[None], images["fine"].to_numpy())
    bits, uniform = images["bits"].sum(), images["uniform_bits"].sum()
    return {
        "level": level,
        "images": len(images),
        "bits": bits,
        "uniform_bits": uniform,
        "frequency_bits": images["frequency_bits"].sum(),
        "compression": uniform / bits,
        "bits_an_image": spread.mean[0],
        "low": spread.low[0].clip(0),
        "high": spread.high[0],
    }


def _point(part: pd.DataFrame, level: Level) -> dict[str, Any]:
    return {
        "level": level,
        "block": int(part["block"].iloc[0]),
        "images_before": int(part["images_before"].iloc[0]),
        "images": len(part),
        "bits": part["bits"].sum(),
        "bits_an_image": part["bits"].mean(),
        "uniform_bits": part["uniform_bits"].sum(),
        "frequency_bits": part["frequency_bits"].sum(),
        "accuracy": part["accuracy"].mean(),
    }
