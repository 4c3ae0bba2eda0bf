import numpy as np
import pandas as pd
import pytest
import torch
from fgdiag_probes.linear import PENALTIES, STRONGER, WEAKER, Basis, fit_probe, fits_in_words
from fgdiag_probes.solver import minimise
from sklearn.linear_model import LogisticRegression


def _drawn(
    rows: int, width: int, classes: int, *, apart: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features, class means `apart` (in units of the noise), unbalanced classes."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(classes, 3.0))
    y = np.concatenate([np.repeat(np.arange(classes), 2), rng.choice(classes, rows - 2 * classes, p=shares)])
    spectrum = np.arange(1, width + 1) ** -0.5
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    means = apart * rng.standard_normal((classes, width))
    return ((means[y] + rng.standard_normal((rows, width))) * spectrum) @ turn + 3.0, y


def _loss(logits: np.ndarray, y: np.ndarray, weights: np.ndarray, penalty: float) -> float:
    surprise = torch.nn.functional.cross_entropy(torch.from_numpy(logits).double(), torch.from_numpy(y))
    return float(surprise) + 0.5 * penalty * float(np.square(weights).sum())


CASES = {
    "ordinary": _drawn(300, 20, 6, apart=0.5),
    "fewer rows than features": _drawn(80, 150, 5, apart=0.3),
    "separable": _drawn(200, 40, 4, apart=4.0),
    "two classes": _drawn(150, 12, 2, apart=0.6),
    "no signal": _drawn(2000, 100, 10, apart=0.0),
    "many classes": _drawn(1200, 60, 300, apart=1.0),
}


@pytest.mark.parametrize("penalty", [1.0, 0.01, 0.0001])
@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn(case: str, penalty: float) -> None:
    X, y = CASES[case]
    X = np.column_stack([X, np.full(len(X), 7.0)])  # a constant feature must do no harm
    probe = fit_probe(X, y, folds=np.arange(len(y)) % 3, penalties=[penalty])
    standard = (X - X.mean(0)) / np.where(X.std(0) > 1e-9, X.std(0), np.inf)
    theirs = LogisticRegression(C=1 / (len(y) * penalty), tol=1e-8, max_iter=5000).fit(standard, y)
    coef, bias = theirs.coef_, theirs.intercept_
    if len(coef) == 1:  # two classes: scikit-learn's sigmoid is a softmax of +-w/2
        theirs = LogisticRegression(C=2 / (len(y) * penalty), tol=1e-8, max_iter=5000).fit(standard, y)
        coef, bias = np.vstack([-theirs.coef_, theirs.coef_]) / 2, np.r_[-1, 1] * theirs.intercept_ / 2
    expected = _loss(standard @ coef.T + bias, y, coef, penalty)
    got = _loss(probe.logits(X).astype(float), y, probe.weights[:, :-1].numpy(), penalty)
    assert got == pytest.approx(expected, rel=1e-4)
    assert np.mean(probe.predict(X) == theirs.predict(standard)) > 0.995
    assert probe.converged


def test_held_out_logits_come_from_the_fold_that_did_not_see_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgdiag_probes.linear.TOLERANCE", 1e-6)
    X, y = CASES["ordinary"]
    folds = np.arange(len(y)) % 3
    probe = fit_probe(X, y, folds=folds, penalties=[0.1])
    basis, seen = Basis.of(X), torch.from_numpy(folds != 1).float()
    alone = minimise(
        basis.design,
        torch.from_numpy(y),
        (seen / seen.sum()).unsqueeze(0),
        0.1,
        torch.zeros(1, 6, basis.design.shape[1]),
    )
    expected = (basis.design @ alone.weights[0].T).numpy()[folds == 1]
    expected_probabilities = torch.from_numpy(expected).softmax(1)
    got = torch.from_numpy(probe.cv_logits[folds == 1]).softmax(1)
    torch.testing.assert_close(got, expected_probabilities, atol=5e-3, rtol=0)


def test_penalty_has_the_lowest_log_loss_on_held_out_rows() -> None:
    X, y = _drawn(250, 60, 5, apart=0.35)
    probe = fit_probe(X, y, folds=np.arange(len(y)) % 3)
    assert probe.penalty == probe.tried[int(np.argmin(probe.cv_bits))]
    assert 0.0001 < probe.penalty < 1.0
    assert not probe.at_edge


def test_noise_widens_the_grid_to_stronger_penalties() -> None:
    X, y = _drawn(200, 100, 5, apart=0.0)
    probe = fit_probe(X, y, folds=np.arange(len(y)) % 3)
    assert probe.tried[:2] == STRONGER
    assert probe.penalty > max(PENALTIES)


def test_classes_far_apart_widen_the_grid_to_weaker_penalties() -> None:
    X, y = _drawn(400, 20, 4, apart=6.0)
    probe = fit_probe(X, y, folds=np.arange(len(y)) % 3)
    assert probe.tried[-1] in WEAKER
    assert probe.penalty < min(PENALTIES)


def test_a_grid_of_ones_own_is_kept_to() -> None:
    X, y = CASES["separable"]
    probe = fit_probe(X, y, folds=np.arange(len(y)) % 3, penalties=[0.1, 0.01])
    assert probe.tried == (0.1, 0.01)
    assert probe.at_edge


def test_planted_signal_is_found_and_shuffled_labels_are_not() -> None:
    X, y = _drawn(600, 40, 8, apart=1.5)
    rng = np.random.default_rng(1)
    train = np.arange(400)
    folds = train % 3
    right = fit_probe(X[:400], y[:400], folds=folds).predict(X[400:]) == y[400:]
    shuffled = rng.permutation(y[:400])
    wrong = fit_probe(X[:400], shuffled, folds=folds).predict(X[400:]) == y[400:]
    assert right.mean() > 0.9
    assert wrong.mean() < np.bincount(y[400:]).max() / 200 + 0.05


def test_rounding_noise_reads_as_nothing() -> None:
    """A readout that is constant but for the rounding of each batch must not be read."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(4), 50)
    constant = rng.standard_normal(64) * 10
    batch = rng.standard_normal((4, 64)) * np.abs(constant) * 2e-7
    X = (constant + batch[y]).astype(np.float32)
    folds = np.arange(len(y)) % 3
    assert np.mean(fit_probe(X, y, folds=folds).predict(X) == y) > 0.9
    blind = fit_probe(X, y, folds=folds, resolution=1e-5)
    assert blind.basis.design.shape[1] == 1
    assert len(np.unique(blind.predict(X))) == 1


def test_a_class_missing_from_a_fold_leaves_the_score_finite() -> None:
    X, y = CASES["ordinary"]
    folds = np.arange(len(y)) % 3
    folds[y == 2] = 0
    probe = fit_probe(X, y, folds=folds)
    assert max(probe.cv_bits) < 2 * np.log2(6)


def test_separable_classes_and_a_weak_penalty_stay_finite() -> None:
    """Where rounding leaves no curvature to learn from, L-BFGS must not divide by it."""
    for seed in range(10):
        rng, y = np.random.default_rng(seed), np.repeat(np.arange(3), 12)
        X = 0.2 * rng.normal(size=(36, 768)) + rng.normal(size=(3, 768))[y]
        probe = fit_probe(X, y, folds=np.tile(np.arange(3), 12))
        assert np.isfinite(probe.gradient_norm)
        assert np.mean(probe.predict(X) == y) == 1.0


def test_the_words_on_fits_count_linear_probes_only() -> None:
    table = pd.DataFrame(
        {
            "readout": ["image", "last", "last", "attn", "attn"],
            "penalty": [1.0, 0.0001, 0.01, 100.0, 0.01],
            "at_edge": [True, True, False, True, True],
            "converged": [True, True, False, False, True],
        }
    )
    words = fits_in_words(table)
    assert words.startswith("3 probes; 1 did not converge, 1 chose the weakest")
    assert "1 the strongest" in words
