import numpy as np
import pytest
from fgdiag_probes.intervals import clustered_means, holm


def test_mean_is_over_images_not_classes() -> None:
    found = clustered_means(np.array([[1.0, 1.0, 1.0, 0.0]]), np.array([0, 0, 0, 1]))
    assert found.mean[0] == 0.75


def test_interval_has_the_width_that_theory_gives() -> None:
    """For classes of one size the standard error is that of the class means."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), 10)
    values = rng.standard_normal(40)[clusters] + 0.1 * rng.standard_normal(400)
    found = clustered_means(values[None], clusters)
    class_means = values.reshape(40, 10).mean(1)
    expected = 2 * 1.96 * class_means.std(ddof=1) / np.sqrt(40)
    assert found.high[0] - found.low[0] == pytest.approx(expected, rel=0.08)


def test_paired_drop_is_surer_than_its_ends() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(20), 10)
    before = (rng.random(200) < 0.7).astype(float)
    after = before * (rng.random(200) < 0.9)
    found = clustered_means(np.stack([before, after, before - after]), clusters)
    width = found.high - found.low
    assert width[2] < 0.8 * min(width[0], width[1])
    assert found.p_value[2] < 0.01


def test_no_difference_is_never_significant() -> None:
    found = clustered_means(np.zeros((1, 30)), np.repeat(np.arange(3), 10))
    assert found.p_value[0] == 1.0
    assert found.low[0] == found.high[0] == 0.0


def test_null_p_values_are_about_uniform() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 8)
    values = 0.5 * rng.standard_normal((400, 20))[:, clusters] + rng.standard_normal((400, 160))
    assert np.mean(clustered_means(values, clusters).p_value < 0.05) < 0.09


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1.0, 1.0])
