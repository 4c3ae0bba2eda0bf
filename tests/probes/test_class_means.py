import numpy as np
from fgdiag_probes.class_means import class_means
from fgdiag_probes.labels import Level
from sklearn.neighbors import NearestCentroid

from tests.probes.labelled import clouds, labelled

KINDS = np.array([0, 0, 0, 1, 1, 2])


def test_equals_scikit_learn() -> None:
    features, fine, test = clouds(6, 60, 10, apart=0.6)
    labels = labelled(fine, test, kind_of=KINDS)
    folds = labels.folds(folds=3, seed=0)
    found = class_means(features, labels, folds)
    train = features[~test].astype(float)
    space = (features - train.mean(0)) / train.std(0)
    truth: dict[Level, np.ndarray] = {"fine": fine, "coarse": KINDS[fine]}
    for level, y in truth.items():
        said = NearestCentroid().fit(space[~test], y[~test]).predict(space[test])
        assert np.array_equal(found[level].said, said)
        held_out = np.empty(len(y), int)
        rows = np.flatnonzero(~test)
        for fold in range(3):
            out = rows[folds == fold]
            held_out[out] = (
                NearestCentroid().fit(space[rows[folds != fold]], y[rows[folds != fold]]).predict(space[out])
            )
        choice = found[level].choice
        assert choice is not None
        assert np.isclose(choice.accuracy, np.mean(held_out[rows] == y[rows]))
    ours = KINDS[fine] == 1
    of_kind = NearestCentroid().fit(space[~test & ours], fine[~test & ours]).predict(space[test & ours])
    assert np.array_equal(found["fine|coarse"].said[ours[test]], of_kind)


def test_probabilities_fit_the_spread() -> None:
    """Round classes of variance 1 in few dimensions: the chosen Gaussians are about as good as the true ones."""
    features, fine, test = clouds(4, 300, 5, apart=1.0)
    labels = labelled(fine, test)
    found = class_means(features, labels, labels.folds(folds=3, seed=0))["fine"]
    means = np.stack([features[~test & (fine == code)].mean(0) for code in range(4)])
    logits = -np.square(features[test, None] - means).sum(2) / 2
    own = logits[np.arange(test.sum()), fine[test]]
    ideal = np.mean(np.logaddexp.reduce(logits, axis=1) - own) / np.log(2)
    assert abs(found.bits.mean() - ideal) < 0.1


def test_a_class_that_a_fold_does_not_show_breaks_nothing() -> None:
    features, fine, test = clouds(3, 12, 4, apart=3.0)
    keep = (fine != 2) | test
    keep[np.flatnonzero((fine == 2) & ~test)[0]] = True  # one training image
    labels = labelled(fine[keep], test[keep])
    found = class_means(features[keep], labels, labels.folds(folds=3, seed=0))["fine"]
    assert np.isfinite(found.bits).all()
