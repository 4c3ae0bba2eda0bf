import numpy as np
from fgdiag_probes.folds import stratified_group_folds


def test_classes_are_spread_evenly() -> None:
    labels = np.repeat(np.arange(5), 12)
    folds = stratified_group_folds(labels, np.arange(60), folds=3)
    for label in range(5):
        assert np.bincount(folds[labels == label], minlength=3).tolist() == [4, 4, 4]


def test_groups_stay_whole() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 20, 100)
    folds = stratified_group_folds(rng.integers(0, 3, 100), groups, folds=3)
    for group in range(20):
        assert len(set(folds[groups == group])) <= 1
    assert set(folds) == {0, 1, 2}


def test_the_seed_decides_and_nothing_else() -> None:
    labels, groups = np.repeat(np.arange(4), 10), np.arange(40).astype(str)
    one, same, other = (stratified_group_folds(labels, groups, seed=seed) for seed in (0, 0, 1))
    assert (one == same).all()
    assert (one != other).any()
