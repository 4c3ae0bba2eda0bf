import numpy as np
import pytest
from fgdiag_probes.projector import neighbour_overlap, reconstruction
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.neighbors import NearestNeighbors

from fgdiag.errors import ImagesNotUsable

ROWS, WIDTH = 300, 12
RNG = np.random.default_rng(0)
BEFORE = RNG.standard_normal((ROWS, WIDTH)) * np.arange(1, WIDTH + 1)
NOISE = RNG.standard_normal((ROWS, 2 * WIDTH))
CLASSES = np.arange(ROWS) % 20
TRAIN, TEST = np.arange(200), np.arange(200, 300)
HOW = {"folds": np.arange(200) % 3, "clusters": CLASSES[TEST]}


def test_same_space_and_its_rotation_keep_every_neighbour() -> None:
    turn = np.linalg.qr(RNG.standard_normal((2 * WIDTH, 2 * WIDTH)))[0][:WIDTH]
    for after in (BEFORE, 3.0 * BEFORE @ turn + 100.0):
        found = neighbour_overlap(BEFORE, after, 5, clusters=CLASSES)
        assert found.overlap == 1.0
        assert found.low > 0.95


def test_independent_spaces_keep_what_chance_keeps() -> None:
    found = neighbour_overlap(BEFORE, NOISE, 30, clusters=CLASSES)
    assert found.chance == 30 / 299
    assert found.low < found.chance < found.high
    assert found.high - found.low < 0.03


def test_overlap_equals_scikit_learn() -> None:
    after = BEFORE + 4.0 * NOISE[:, :WIDTH]
    kept = []
    for space in (BEFORE, after):
        search = NearestNeighbors(n_neighbors=8, metric="cosine").fit(space - space.mean(0))
        kept.append(search.kneighbors(return_distance=False))
    expected = np.mean([len(set(one) & set(other)) / 8 for one, other in zip(*kept, strict=True)])
    found = neighbour_overlap(BEFORE, after, 8, clusters=CLASSES)
    assert found.overlap == pytest.approx(expected)
    assert 0.1 < found.overlap < 0.9
    assert found.frame()["overlap"][0] == found.json()["overlap"] == found.overlap


def test_an_invertible_map_can_be_undone() -> None:
    after = BEFORE @ RNG.standard_normal((WIDTH, 2 * WIDTH)) + 5.0
    found = reconstruction(BEFORE, after, TRAIN, TEST, **HOW)
    assert found.share == pytest.approx(1.0, abs=1e-4)
    assert found.low > 0.999


def test_a_map_that_drops_half_the_features_keeps_half() -> None:
    """Independent features of equal standing: the other half cannot be guessed."""
    found = reconstruction(BEFORE, BEFORE[:, ::2] @ RNG.standard_normal((6, 6)), TRAIN, TEST, **HOW)
    assert found.share == pytest.approx(0.5, abs=0.05)
    assert found.low < 0.5 < found.high


def test_noise_rebuilds_nothing() -> None:
    found = reconstruction(BEFORE, NOISE, TRAIN, TEST, **HOW)
    assert -0.05 < found.share < 0.005
    assert found.chance == 0.0
    assert found.at_edge


def test_reconstruction_equals_scikit_learn() -> None:
    after = np.hstack([BEFORE[:, :8] + NOISE[:, :8], NOISE[:, 8:]])
    found = reconstruction(BEFORE, after, TRAIN, TEST, penalties=[0.1], **HOW)
    X, Y = ((side - side[TRAIN].mean(0)) / side[TRAIN].std(0) for side in (after, BEFORE))
    ridge = Ridge(alpha=0.1 * len(TRAIN)).fit(X[TRAIN], Y[TRAIN])
    error = np.square(Y[TEST] - ridge.predict(X[TEST])).sum()
    assert found.share == pytest.approx(1 - error / np.square(Y[TEST]).sum(), abs=1e-5)
    theirs = r2_score(Y[TEST], ridge.predict(X[TEST]), multioutput="variance_weighted")
    assert found.share == pytest.approx(theirs, abs=0.02)


def test_other_images_and_unreadable_ones_are_an_error_that_says_so() -> None:
    with pytest.raises(ImagesNotUsable, match="300 vectors before and 299 after"):
        neighbour_overlap(BEFORE, NOISE[1:], clusters=CLASSES)
    with pytest.raises(ImagesNotUsable, match="400 neighbours were asked for among 300"):
        neighbour_overlap(BEFORE, NOISE, 400, clusters=CLASSES)
    holed = NOISE.copy()
    holed[TEST[3]] = np.nan
    with pytest.raises(ImagesNotUsable, match="not finite"):
        reconstruction(BEFORE, holed, TRAIN, TEST, **HOW)
