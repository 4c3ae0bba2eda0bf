import numpy as np
import pytest
from fgdiag_probes.neighbours import TEMPERATURE, UNSURE, nearest
from fgdiag_probes.reading import read
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from tests.probes.labelled import clouds, exclusive_or, labelled

KINDS = np.array([0, 0, 0, 1, 1, 2])


def theirs(neighbours: int) -> KNeighborsClassifier:
    found = KNeighborsClassifier(neighbours, metric="cosine", algorithm="brute")
    return found.set_params(weights=lambda gap: np.exp(-gap / TEMPERATURE))


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_equals_scikit_learn(power: float) -> None:
    features, fine, test = clouds(6, 60, 10, apart=0.6)
    labels = labelled(fine, test, kind_of=KINDS)
    folds = labels.folds(folds=3, seed=0)
    found = nearest(features, labels, folds, neighbours=[7], whitening=[power])
    train = features[~test].astype(float)
    space = (features - train.mean(0)) / train.std(0)
    if power:
        space = PCA(whiten=True).fit(space[~test]).transform(space)
    known, asked, y = space[~test], space[test], fine[~test]

    said = theirs(7).fit(known, y).predict(asked)
    assert np.mean(found["fine"].said == said) > 0.99
    held_out = np.concatenate(
        [theirs(7).fit(known[folds != i], y[folds != i]).predict(known[folds == i]) for i in range(3)]
    )
    right = np.mean(held_out == np.concatenate([y[folds == i] for i in range(3)]))
    assert found["fine"].choice is not None
    assert found["fine"].choice.accuracy == pytest.approx(right, abs=0.01)

    for kind in (0, 1):
        of_kind, ours = KINDS[y] == kind, KINDS[fine[test]] == kind
        said = theirs(7).fit(known[of_kind], y[of_kind]).predict(asked[ours])
        assert np.mean(found["fine|coarse"].said[ours] == said) > 0.99
    assert (found["fine|coarse"].said[KINDS[fine[test]] == 2] == -1).all()


def test_bits_are_those_of_votes_with_a_share_by_frequency() -> None:
    features, fine, test = clouds(4, 30, 6, apart=1.0)
    labels = labelled(fine, test)
    found = nearest(features, labels, labels.folds(folds=3, seed=0), neighbours=[9], whitening=[0.0])
    train = features[~test].astype(float)
    space = (features - train.mean(0)) / train.std(0)
    votes = theirs(9).fit(space[~test], fine[~test]).predict_proba(space[test])
    own = votes[np.arange(test.sum()), fine[test]]
    bits = {unsure: -np.log2((1 - unsure) * own + unsure / 4) for unsure in UNSURE}
    assert any(np.allclose(found["fine"].bits, one, atol=2e-3) for one in bits.values())
    assert np.mean(found["fine"].bits) < np.mean(bits[1.0])


def test_reads_what_no_line_can() -> None:
    features, fine, test = exclusive_or(480)
    labels = labelled(fine, test)
    folds = labels.folds(folds=3, seed=0)
    line = read(features, labels, folds, resolution=0.0)["fine"].correct(labels, "fine").mean()
    near = nearest(features, labels, folds)["fine"]
    assert line < 0.62
    assert near.correct(labels, "fine").mean() > 0.93
    assert np.nanmean(near.bits) < 0.5


def test_number_of_neighbours_goes_by_held_out_training_images() -> None:
    features, fine, test = clouds(4, 60, 6, apart=0.5)
    labels = labelled(fine, test)
    folds = labels.folds(folds=3, seed=0)
    chosen = nearest(features, labels, folds)["fine"].choice
    singly = [nearest(features, labels, folds, neighbours=[k])["fine"].choice for k in (1, 5, 20, 60)]
    assert chosen is not None
    assert chosen.accuracy == max(one.accuracy for one in singly if one)
    features[test] = np.random.default_rng(9).standard_normal((test.sum(), 6))
    again = nearest(features, labels, folds)["fine"].choice
    assert again is not None
    assert (again.accuracy, again.bits) == (chosen.accuracy, chosen.bits)


def test_features_without_anything_to_see_are_at_chance() -> None:
    _, fine, test = clouds(4, 30, 6, apart=1.0)
    labels = labelled(fine, test, kind_of=np.array([0, 0, 1, 1]))
    blind = np.full((len(fine), 3), 2.0, np.float32)
    found = nearest(blind, labels, labels.folds(folds=3, seed=0))
    assert found["fine"].correct(labels, "fine").mean() == 0.25
    np.testing.assert_allclose(found["fine"].bits, 2.0, atol=1e-4)
