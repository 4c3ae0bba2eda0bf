"""Whether two models fail on the same images, and in the same way.

Two models may name as many images right and yet not the same ones. Cohen's kappa is how far they are right together
beyond what two models of their accuracies would be by luck: 1 where they are right on the same images, 0 at luck.
Where both are wrong, models that see the same thing take the image for the same wrong class.
"""

from typing import Any

import numpy as np


def agreement(said: np.ndarray, truth: np.ndarray, candidates: np.ndarray) -> dict[str, Any]:
    """Compare what two models say about the same images.

    Parameters
    ----------
    said
        (2, images) int, the class that each names.
    truth
        (images,) int, the right one.
    candidates
        (images,) int, among how many classes each image's was to be named.

    Returns
    -------
    dict
        `images`; shares of them in [0, 1]: `both_right`, `only_first`, `only_second`, `both_wrong`; `kappa` of being
        right (Cohen 1960; None where one is always right or always wrong); `same_wrong`: of the images on which both
        are wrong, the share on which both name the same class, and `same_wrong_by_luck`, that of two who name one of
        the wrong classes at random (None where no image is wrong for both).
    """
    right = said == truth
    first, second = right
    wrong = ~first & ~second
    same = (said[0] == said[1])[wrong]
    return {
        "images": len(truth),
        "both_right": float((first & second).mean()),
        "only_first": float((first & ~second).mean()),
        "only_second": float((~first & second).mean()),
        "both_wrong": float(wrong.mean()),
        "kappa": _kappa(first, second),
        "same_wrong": float(same.mean()) if wrong.any() else None,
        "same_wrong_by_luck": float((1 / (candidates[wrong] - 1)).mean()) if wrong.any() else None,
    }


def _kappa(first: np.ndarray, second: np.ndarray) -> float | None:
    agree, p, q = (first == second).mean(), first.mean(), second.mean()
    by_luck = p * q + (1 - p) * (1 - q)
    if min(p, q) in (0, 1) or max(p, q) in (0, 1):
        return None
    return float((agree - by_luck) / (1 - by_luck))
