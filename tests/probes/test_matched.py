import numpy as np
import pytest
from fgdiag_probes.linear import Basis, fit_probe
from fgdiag_probes.matched import narrow, read_at_width
from fgdiag_probes.reading import read
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tests.probes.labelled import clouds, labelled

KINDS = np.array([0, 0, 0, 1, 1, 2])


@pytest.fixture(scope="module")
def wide() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """More features than a fold has rows, so that directions fitted to the held-out rows would show."""
    features, fine, test = clouds(6, 15, 80, apart=0.4)
    return features @ np.random.default_rng(1).standard_normal((80, 80)).astype(np.float32), fine, test


def test_narrow_is_the_principal_components_of_scikit_learn(wide) -> None:
    X = wide[0].astype(float)
    basis = narrow(Basis.of(X), 7)
    standard = StandardScaler().fit_transform(X)
    pca = PCA(7, svd_solver="full").fit(standard)
    ours = basis.design[:, :-1].numpy()
    np.testing.assert_allclose(np.abs(ours), np.abs(pca.transform(standard)), atol=1e-4)
    np.testing.assert_allclose(basis.project(X[:5]).numpy(), basis.design[:5].numpy(), atol=1e-4)


@pytest.mark.parametrize("width", [5, 30])
def test_equals_a_pipeline_fitted_to_the_other_folds(
    wide, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fgdiag_probes.matched.TOLERANCE", 1e-6)
    features, fine, test = wide
    labels = labelled(fine, test, kind_of=KINDS)
    folds = labels.folds(folds=3, seed=0)
    found = read_at_width(features, labels, folds, width)["fine"]
    assert found.choice is not None
    X, y = features[~test].astype(float), fine[~test]

    def pipeline(rows: np.ndarray, penalty: float):
        probe = LogisticRegression(C=1 / (rows.sum() * penalty), tol=1e-7, max_iter=5000)
        steps = make_pipeline(StandardScaler(), PCA(width, svd_solver="full"), probe)
        return steps.fit(X[rows], y[rows])

    def held_out_bits(penalty: float) -> float:
        own = np.empty(len(y))
        for fold in range(3):
            odds = pipeline(folds != fold, penalty).predict_proba(X[folds == fold])
            own[folds == fold] = odds[np.arange(len(odds)), y[folds == fold]]
        return float(-np.log2(own).mean())

    bits = {penalty: held_out_bits(penalty) for penalty in (1.0, 0.1, 0.01, 0.001, 0.0001)}
    assert found.choice.penalty == min(bits, key=lambda penalty: bits[penalty])
    assert found.choice.bits == pytest.approx(bits[found.choice.penalty], rel=5e-3)
    said = pipeline(np.full(len(y), True), found.choice.penalty).predict(features[test])
    assert np.mean(found.said == said) > 0.97


def test_directions_of_all_training_rows_would_give_another_number(wide) -> None:
    """What the test above guards against is large enough to be seen."""
    features, fine, test = wide
    labels = labelled(fine, test)
    folds = labels.folds(folds=3, seed=0)
    choice = read_at_width(features, labels, folds, 30)["fine"].choice
    assert choice is not None
    shared = fit_probe(
        narrow(Basis.of(features[~test]), 30), fine[~test], folds=folds, penalties=[choice.penalty]
    )
    assert shared.cv_bits[0] != pytest.approx(choice.bits, rel=0.02)


def test_full_width_is_the_full_probe() -> None:
    features, fine, test = clouds(6, 60, 10, apart=0.6)
    labels = labelled(fine, test, kind_of=KINDS)
    folds = labels.folds(folds=3, seed=0)
    full, cut = read(features, labels, folds, resolution=0.0), read_at_width(features, labels, folds, 10)
    for level in labels.levels:
        one, other = cut[level].choice, full[level].choice
        assert one is not None
        assert other is not None
        assert one.bits == pytest.approx(other.bits, abs=0.005)
    np.testing.assert_allclose(cut["fine"].bits, full["fine"].bits, atol=0.02)


def test_signal_outside_the_leading_directions_is_cut_off() -> None:
    rng = np.random.default_rng(0)
    fine = np.tile(np.arange(2), 150)
    common = rng.standard_normal((300, 1)) + 0.1 * rng.standard_normal((300, 8))
    signal = (2.0 * fine - 1 + 0.5 * rng.standard_normal(300))[:, None]
    features = np.hstack([common, signal]).astype(np.float32)
    labels = labelled(fine, np.arange(300) % 6 < 2)
    folds = labels.folds(folds=3, seed=0)
    accuracy = [read_at_width(features, labels, folds, width)["fine"] for width in (1, 2)]
    one, two = (found.correct(labels, "fine").mean() for found in accuracy)
    assert one < 0.65
    assert two > 0.95


def test_no_width_is_an_error() -> None:
    with pytest.raises(ValueError, match="A width of 0 leaves nothing to probe"):
        narrow(Basis.of(np.eye(4)), 0)
