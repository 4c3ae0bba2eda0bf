import numpy as np
import pytest
from fgdiag_probes.intervals import clustered_means, holm
from scipy.stats import norm


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


def test_no_difference_seen_leaves_room_for_one_image() -> None:
    """With 200 images of 40 classes, about the rule of three: 3 / 200, here to both sides."""
    clusters = np.repeat(np.arange(40), 5)
    found = clustered_means(np.zeros((1, 200)), clusters, step=100)
    assert found.p_value[0] == 1.0
    assert -found.low[0] == found.high[0] == pytest.approx(1.2, abs=0.1)
    all_right = clustered_means(np.ones((1, 200)), clusters)
    assert all_right.low[0] == pytest.approx(0.988, abs=0.001)
    assert all_right.p_value[0] < 1e-6


def test_one_class_says_nothing_about_others() -> None:
    found = clustered_means(np.array([[1.0, 1.0, 0.0, 1.0]]), np.zeros(4))
    assert (found.mean[0], found.p_value[0]) == (0.75, 1.0)
    assert (found.low[0], found.high[0]) == (-np.inf, np.inf)


def test_two_classes_by_hand() -> None:
    """Class means 1 and 3 on images of one class each: 2 +- 12.7 standard errors of 1, Student's t with one degree."""
    found = clustered_means(np.array([[1.0, 3.0]]), np.array([0, 1]), step=0)
    assert found.high[0] - found.low[0] == pytest.approx(2 * 12.7062)
    assert found.p_value[0] == pytest.approx(2 * np.arctan(1 / 2) / np.pi)


def test_interval_reaches_further_towards_the_long_tail() -> None:
    """Johnson's term by hand: skewness -0.923 over the root of 20 classes, quantile 2.093, reach 3.60."""
    found = clustered_means(np.array([[1.0] * 19 + [0.2]]), np.arange(20), step=0)
    assert (found.mean[0] - found.low[0]) / (found.high[0] - found.mean[0]) == pytest.approx(
        3.596 / 2.093, rel=1e-3
    )


def test_p_value_is_below_5_percent_just_where_the_interval_leaves_out_zero() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(12), rng.integers(1, 9, 12))
    values = rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.75, 0.2], size=(2000, len(clusters)))
    found = clustered_means(values, clusters)
    outside = (found.low > 0) | (found.high < 0)
    assert 200 < outside.sum() < 1800
    np.testing.assert_array_equal(outside, found.p_value < 0.05)


@pytest.mark.parametrize("classes", [10, 40])
@pytest.mark.parametrize(("before", "after"), [(0.6, 0.6), (0.6, 0.5), (0.9, 0.5), (0.97, 0.9)])
def test_intervals_cover_a_known_drop(classes: int, before: float, after: float) -> None:
    """Right is what is above a threshold; a third of the variance is of the class, a third shared by both depths."""
    rng = np.random.default_rng(classes)
    clusters = np.repeat(np.arange(classes), np.tile([5, 15, 8, 30, 12], classes // 5))
    of_class = rng.standard_normal((2000, 2, classes))[:, :, clusters]
    shared, own = rng.standard_normal((2000, 1, len(clusters))), rng.standard_normal(of_class.shape)
    right = (of_class + shared + own) / np.sqrt(3) < norm.ppf([before, after])[:, None]
    found = clustered_means(right[:, 0].astype(float) - right[:, 1], clusters)
    covered = np.mean((found.low <= before - after) & (before - after <= found.high))
    assert 0.93 < covered < 0.975


def test_null_p_values_are_about_uniform() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 8)
    values = 0.5 * rng.standard_normal((400, 20))[:, clusters] + rng.standard_normal((400, 160))
    assert 0.03 < np.mean(clustered_means(values, clusters).p_value < 0.05) < 0.07


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03])), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1.0, 1.0])
