"""Which training images are held out together when a penalty is chosen."""

import numpy as np


def stratified_group_folds(
    labels: np.ndarray, groups: np.ndarray, *, folds: int = 3, seed: int = 0
) -> np.ndarray:
    """Deal images into folds, each class spread evenly and whole groups on one side.

    Photos of one object, or near-duplicates, share a group; in two folds they would let a probe look up the
    answer. A group of several classes counts as the class of its first image.

    Parameters
    ----------
    labels
        (rows,) class of each image.
    groups
        (rows,) what must stay together.
    folds
        Number of folds.
    seed
        Order in which groups of one size are dealt.

    Returns
    -------
    (rows,) int64 fold that holds each row out.
    """
    _, first, group_of_row, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    _, codes = np.unique(labels, return_inverse=True)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(sizes)), -sizes))
    of_class = np.zeros((codes.max() + 1, folds), np.int64)
    in_all = np.zeros(folds, np.int64)
    fold_of_group = np.empty(len(sizes), np.int64)
    for group in order:
        counts = of_class[codes[first[group]]]
        fold = int(np.lexsort((in_all, counts))[0])
        counts[fold] += sizes[group]
        in_all[fold] += sizes[group]
        fold_of_group[group] = fold
    return fold_of_group[group_of_row]
