"""Distractors: the most alike, siblings, or any; the right class always among the options, anywhere among them."""

import numpy as np
import pytest
from fgdiag_probes.labels import Labels
from fgdiag_probes.miners import NOTHING, Miner, by_image, by_text, offered


@pytest.fixture(scope="module")
def labels(planted) -> Labels:
    return Labels.of(planted(kinds=3, per_kind=2))


def test_names_that_share_words_are_alike():
    names = np.array(["Arla-Sour-Milk", "Garant-Sour-Milk", "Oatly-Oat-Milk", "Leek"])
    alike = by_text(names)
    np.testing.assert_allclose(np.diag(alike), 1)
    assert alike[0, 1] > alike[0, 2] > alike[0, 3]


def test_image_means_that_are_near_are_alike():
    features = np.array([[0.0, 1], [0, 1], [1, 1], [1, 1], [9, 1]])
    alike = by_image(features, np.array([0, 0, 1, 1, 2]), 3)
    assert alike[0, 1] > alike[1, 2] > alike[0, 2]
    np.testing.assert_allclose(np.diag(alike), 0)


def test_the_hardest_are_offered_and_the_right_one_anywhere():
    similarity = np.array([[0, 3, 2, 1], [3, 0, 1, 2], [0, 0, 0, 0], [0, 0, 0, 0.0]])
    truth = np.tile([0, 1], 300)
    options = offered(similarity, np.ones((600, 4), bool), truth, 3, np.random.default_rng(0))
    assert {frozenset(row) for row in options[::2].tolist()} == {frozenset({0, 1, 2})}
    assert {frozenset(row) for row in options[1::2].tolist()} == {frozenset({0, 1, 3})}
    places = np.bincount((options == truth[:, None]).argmax(1))
    assert places.min() > 150


def test_fewer_candidates_are_filled_up_at_the_end():
    candidates = np.array([[1, 1, 0, 0], [1, 1, 1, 1]], bool)
    options = offered(np.zeros((4, 4)), candidates, np.array([1, 1]), 3, np.random.default_rng(0))
    assert sorted(options[0, :2]) == [0, 1]
    assert options[0, 2] == NOTHING
    assert NOTHING not in options[1]


def test_siblings_come_first_and_random_knows_none(labels: Labels):
    truth, everything = np.repeat(np.arange(6), 200), np.ones((1200, 6), bool)
    rng = np.random.default_rng(0)
    mined = Miner.of("siblings", labels)
    options = offered(mined.similarity("fine"), everything, truth, 2, rng)
    assert (options.sum(1) == 2 * (truth // 2 * 2) + 1).all()  # the two of one kind
    drawn = offered(Miner.of("random", labels).similarity("fine"), everything, truth, 2, rng)
    others = drawn[drawn != truth[:, None]]
    assert np.bincount(others, minlength=6).min() > 130
    assert mined.how == "classes of the same coarse class, at random"


def test_the_image_miner_learns_from_training_images_only(labels: Labels, planted):
    run = planted(kinds=3, per_kind=2)
    features = run.activations("vision", "image").copy()
    clean = Miner.of("image", labels, features, "vision")
    features[labels.test] = 1e6
    np.testing.assert_array_equal(Miner.of("image", labels, features, "vision").fine, clean.fine)
    assert clean.how.endswith("in vision")
    with pytest.raises(ValueError, match="needs features"):
        Miner.of("image", labels)
