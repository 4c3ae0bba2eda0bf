"""Labels made of arrays, for tests of what reads features and labels alone."""

import numpy as np
from fgdiag_probes.labels import Labels, Level


def labelled(
    fine: np.ndarray, test: np.ndarray, *, kind_of: np.ndarray | None = None, groups: np.ndarray | None = None
) -> Labels:
    """Labels of images with these fine classes, of which `test` (bool) are tested.

    `kind_of` maps each fine class to its coarse class; without it there is no coarse level.
    """
    classes = int(fine.max()) + 1
    kinds = np.zeros(classes, np.int64) if kind_of is None else kind_of
    levels: tuple[Level, ...] = ("fine",) if kind_of is None else ("fine|coarse", "fine", "coarse")
    return Labels(
        train=np.flatnonzero(~test),
        test=np.flatnonzero(test),
        fine=fine.astype(np.int64),
        coarse=kinds[fine],
        fine_names=np.array([f"class {i}" for i in range(classes)]),
        coarse_names=np.array([f"kind {i}" for i in range(kinds.max() + 1)]),
        siblings=kinds == np.arange(kinds.max() + 1)[:, None],
        levels=levels,
        groups=(np.arange(len(fine)) if groups is None else groups).astype(str),
    )


def clouds(
    classes: int, each: int, width: int, *, apart: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of Gaussian classes whose means are `apart` times normal; their classes; every third is a test."""
    rng = np.random.default_rng(seed)
    fine = np.tile(np.arange(classes), each)
    means = apart * rng.standard_normal((classes, width))
    features = (means[fine] + rng.standard_normal((len(fine), width))).astype(np.float32)
    return features, fine, np.repeat(np.arange(each) % 3 == 2, classes)


def exclusive_or(images: int, *, width: int = 6, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Two classes told apart by whether two features have one sign: no line does better than chance."""
    rng = np.random.default_rng(seed)
    corner = np.tile([[1, 1], [1, -1], [-1, 1], [-1, -1]], (images // 4, 1))
    features = rng.standard_normal((len(corner), width)) * 0.35
    features[:, :2] += corner
    fine = (corner[:, 0] * corner[:, 1] > 0).astype(np.int64)
    return features.astype(np.float32), fine, np.repeat(np.arange(images // 4) % 3 == 2, 4)
