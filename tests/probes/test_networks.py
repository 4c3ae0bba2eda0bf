import numpy as np
from fgdiag_probes.networks import nonlinear
from fgdiag_probes.reading import read

from tests.probes.labelled import clouds, exclusive_or, labelled


def test_reads_what_no_line_can() -> None:
    features, fine, test = exclusive_or(480)
    labels = labelled(fine, test)
    folds = labels.folds(folds=3, seed=0)
    line = read(features, labels, folds, resolution=0.0)["fine"].correct(labels, "fine").mean()
    network = nonlinear(features, labels, folds)["fine"]
    assert line < 0.62
    assert network.correct(labels, "fine").mean() > 0.93
    assert network.choice is not None
    assert network.choice.accuracy > 0.93


def test_is_about_as_good_as_a_line_where_a_line_is_best() -> None:
    features, fine, test = clouds(6, 90, 12, apart=0.5)
    labels = labelled(fine, test, kind_of=np.array([0, 0, 0, 1, 1, 2]))
    folds = labels.folds(folds=3, seed=0)
    line, network = read(features, labels, folds, resolution=0.0), nonlinear(features, labels, folds)
    for level in labels.levels:
        asked = labels.asked(level, labels.test)
        gap = line[level].correct(labels, level)[asked] - network[level].correct(labels, level)[asked]
        assert abs(gap.mean()) < 0.06
        assert abs(np.mean(network[level].bits[asked] - line[level].bits[asked])) < 0.2


def test_what_features_do_not_know_stays_at_chance() -> None:
    features, fine, test = clouds(4, 90, 12, apart=0.0)
    labels = labelled(fine, test)
    found = nonlinear(features, labels, labels.folds(folds=3, seed=0))["fine"]
    assert abs(found.correct(labels, "fine").mean() - 0.25) < 0.12
    assert abs(np.mean(found.bits) - 2.0) < 0.3


def test_the_seed_decides_and_the_test_images_do_not() -> None:
    features, fine, test = clouds(4, 45, 8, apart=0.6)
    labels = labelled(fine, test)
    folds = labels.folds(folds=3, seed=0)
    one, same, other = (nonlinear(features, labels, folds, seed=seed)["fine"] for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.bits, same.bits)
    assert (one.bits != other.bits).any()
    features[test] += 3.0
    assert nonlinear(features, labels, folds)["fine"].choice == one.choice or one.choice is None


def test_features_without_anything_to_see_are_at_chance() -> None:
    _, fine, test = clouds(4, 30, 6, apart=1.0)
    labels = labelled(fine, test)
    blind = np.full((len(fine), 3), 2.0, np.float32)
    found = nonlinear(blind, labels, labels.folds(folds=3, seed=0))["fine"]
    assert found.correct(labels, "fine").mean() == 0.25
    assert abs(found.bits.mean() - 2.0) < 0.1
