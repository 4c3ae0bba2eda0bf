"""Which images are asked about where not all are, and which are shown as examples."""

import numpy as np

from fgdiag_probes.labels import Labels, Level


def sampled(labels: Labels, count: int | None, seed: int = 0) -> np.ndarray:
    """Draw test images evenly over the fine classes.

    Parameters
    ----------
    count
        How many; None: all of them.
    seed
        Of the draw. A larger draw holds the smaller one.

    Returns
    -------
    (count,) rows of the run, sorted.
    """
    if count is None or count >= len(labels.test):
        return labels.test
    return np.sort(labels.test[turn_by_turn(labels.fine[labels.test], seed)[:count]])


def examples_of(labels: Labels, level: Level, count: int, seed: int = 0) -> np.ndarray:
    """Draw `count` training images of different classes, as long as there are so many; rows of the run.

    Those for `fine|coarse` have siblings.
    """
    rows = labels.train[labels.asked(level, labels.train)]
    return rows[turn_by_turn(labels.codes(level)[rows], seed)[:count]]


def turn_by_turn(classes: np.ndarray, seed: int) -> np.ndarray:
    """Order of the images in which every class has one before any has two."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(classes)), classes))
    turn = np.empty(len(classes), np.int64)
    turn[order] = np.arange(len(classes)) - np.searchsorted(classes[order], classes[order])
    return np.lexsort((rng.random(len(classes)), turn))
