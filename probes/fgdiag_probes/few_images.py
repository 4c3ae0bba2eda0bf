"""Data efficiency in plain accuracy: how many test images are named right after 1, 5 or 20 of each class.

Where a site holds a class in simple form, few images are enough; accuracy on the full training set hides that.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fgdiag_probes.folds import stratified_group_folds
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.linear import PENALTIES, LinearProbe, fit_at, fit_probe
from fgdiag_probes.reading import Reading, Readings

SHOTS = (1, 5, 20)
DRAWS = 5
FOLDS = 3
TAUGHT: dict[Level, Level] = {"fine|coarse": "fine", "fine": "fine", "coarse": "coarse"}
"""Which labels the probe that answers a level is taught."""
FEW_PENALTY = 0.1
"""Penalty where there are too few images to choose one. With 1 to 3 images of each of 81 classes at three sites of
the demo model, accuracy hardly changes between 1 and 0.001, and the log-loss is least near 0.1."""


@dataclass(frozen=True)
class FewShot:
    """Test accuracy of a linear probe that has seen few images of each class.

    Attributes
    ----------
    table
        One row a level and number of `shots` (training images a class). `accuracy` in [0, 1], the mean over draws,
        with a 95 % interval over test images (`low`, `high`; clustered by fine class); `spread`, the
        standard deviation between draws; `chance`; `images`, how many training images a draw has; `short`, how
        many classes have fewer than `shots` and give all they have; `draws`.
    """

    table: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Return the scores as a table; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return the scores as plain values."""
        return {"few_shot": json.loads(str(self.table.to_json(orient="records")))}


def few_shot(
    features: np.ndarray,
    labels: Labels,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    resolution: float = 0.0,
    seed: int = 0,
) -> FewShot:
    """Train on a few images of each class and test on all test images, at every level.

    `coarse` is trained on `shots` images of each coarse class, `fine` and `fine|coarse` on as many of each fine
    class. The penalty is chosen by cross-validation inside the few images, see `fit_few`; the test images choose
    nothing.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    labels
        Who is trained and tested.
    shots
        Training images a class. Of one draw, the images for 1 are among those for 5.
    draws
        How many times the images are drawn.
    resolution
        See `fgdiag_probes.linear.Basis.of`.
    seed
        Of the draws.
    """
    rng = np.random.default_rng(seed)
    correct: dict[tuple[Level, int], np.ndarray] = {
        (level, count): np.empty((draws, len(labels.test))) for level in labels.levels for count in shots
    }
    for taught in probed(labels):
        for draw in range(draws):
            rank = _rank_in_class(labels.codes(taught)[labels.train], rng)
            for count in shots:
                found = _read(features, labels, taught, labels.train[rank < count], resolution, seed)
                for level, seen in found.items():
                    correct[level, count][draw] = seen.correct(labels, level)
    rows = [_score(hits, labels, level, count) for (level, count), hits in correct.items()]
    return FewShot(pd.DataFrame(rows))


def fit_few(
    X: np.ndarray, y: np.ndarray, groups: np.ndarray, *, resolution: float = 0.0, seed: int = 0
) -> LinearProbe:
    """Fit a linear probe to few images.

    With two groups a class or more, the penalty is chosen by 3-fold cross-validation inside the images given;
    with fewer, nothing held out could be scored, and it is `FEW_PENALTY`.

    Parameters
    ----------
    X, y
        (rows, width) features and (rows,) labels of two classes or more.
    groups
        (rows,) what must stay in one fold.
    resolution
        See `fgdiag_probes.linear.Basis.of`.
    seed
        Of the folds.
    """
    if len(np.unique(groups)) < 2 * len(np.unique(y)):
        return fit_at(X, y, FEW_PENALTY, resolution=resolution)
    folds = stratified_group_folds(y, groups, folds=FOLDS, seed=seed)
    return fit_probe(X, y, folds=folds, penalties=PENALTIES, resolution=resolution)


def probed(labels: Labels) -> list[Level]:
    """Levels that need a probe of their own; the one for `fine` answers `fine|coarse` too."""
    return [level for level in labels.levels if level != "fine|coarse"]


def _rank_in_class(codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(rows,) place of each row in a random order of the rows of its class, from 0."""
    order = np.lexsort((rng.random(len(codes)), codes))
    rank = np.empty(len(codes), np.int64)
    rank[order] = np.arange(len(codes)) - np.searchsorted(codes[order], codes[order])
    return rank


def _read(
    features: np.ndarray, labels: Labels, taught: Level, rows: np.ndarray, resolution: float, seed: int
) -> Readings:
    """Read the levels that a probe taught `taught` on these rows can answer."""
    probe = fit_few(
        features[rows], labels.codes(taught)[rows], labels.groups[rows], resolution=resolution, seed=seed
    )
    logits = probe.logits(features[labels.test])
    return {
        level: Reading.of_logits(logits, labels, level, labels.test)
        for level in labels.levels
        if TAUGHT[level] == taught
    }


def _score(correct: np.ndarray, labels: Labels, level: Level, count: int) -> dict[str, Any]:
    """Make one row of `FewShot.table` from what was right, (draws, test)."""
    asked = labels.asked(level, labels.test)
    clusters = labels.fine[labels.test][asked]
    found = clustered_means(correct[:, asked].mean(0, keepdims=True), clusters)
    sizes = np.bincount(labels.codes(TAUGHT[level])[labels.train])
    draws = len(correct)
    return {
        "level": level,
        "shots": count,
        "accuracy": found.mean[0],
        "low": found.low[0].clip(0, 1),
        "high": found.high[0].clip(0, 1),
        "spread": correct[:, asked].mean(1).std(ddof=1) if draws > 1 else np.nan,
        "chance": labels.chance[level][0],
        "images": int(np.minimum(sizes, count).sum()),
        "short": int((sizes < count).sum()),
        "draws": draws,
    }
