import numpy as np
import pytest
from fgdiag_probes.falls import Flipped, fall_for_good
from scipy.stats import binomtest


def trajectories(shares: list[float], images: int, *, seed: int = 0) -> np.ndarray:
    """(sites, images) right or wrong: an image has its place between easy and hard, and some luck at each site."""
    rng = np.random.default_rng(seed)
    ease = rng.uniform(0, 1, images)
    luck = rng.normal(0, 0.03, (len(shares), images))
    return (ease + luck < np.array(shares)[:, None]).astype(float)


def found(values: np.ndarray, *, seed: int = 0):
    last = len(values) - 1
    return fall_for_good(Flipped.of(values, np.arange(values.shape[1]), seed=seed), [0, last // 2, last])


def test_a_planted_step_is_found_where_it_is() -> None:
    for step in (1, 4, 9):
        shares = [0.9] * step + [0.5] * (10 - step)
        fall = found(trajectories(shares, 60, seed=step))
        assert fall is not None
        assert (fall.start, fall.end) == (step - 1, step)
        assert fall.size == pytest.approx(0.4, abs=0.12)


def test_a_loss_in_many_small_steps_is_found_as_a_stretch() -> None:
    fall = found(trajectories(list(np.linspace(0.95, 0.5, 30)), 60))
    assert fall is not None
    assert fall.end - fall.start > 3


def test_what_rises_again_is_not_lost() -> None:
    assert found(trajectories([0.9, 0.9, 0.5, 0.9, 0.9], 60)) is None
    assert found(trajectories([0.9, 0.9, 0.3, 0.55, 0.55], 60)) is not None


def test_a_single_stretch_is_mcnemar() -> None:
    values = np.ones((2, 20))
    values[1, :7] = 0
    values[0, 19] = 0
    flipped = Flipped.of(values, np.arange(20), seed=0)
    exact = binomtest(1, 8).pvalue
    assert flipped.between(0, 1) == pytest.approx(exact, abs=0.01)
    assert flipped.of_stretches()[0, 1] == pytest.approx(exact, abs=0.01)


def test_false_alarms_over_all_sites_are_rare() -> None:
    alarms = [found(trajectories([0.8] * 30, 40, seed=seed), seed=seed) is not None for seed in range(200)]
    assert np.mean(alarms) < 0.06


def test_pictures_of_one_object_count_once() -> None:
    values = np.ones((2, 40))
    values[1, :10] = 0
    objects = np.arange(40) // 10
    assert fall_for_good(Flipped.of(values, np.arange(40), seed=0), [0, 1]) is not None
    assert fall_for_good(Flipped.of(values, objects, seed=0), [0, 1]) is None


def test_the_p_value_is_of_the_depths_tried_first() -> None:
    flipped = Flipped.of(trajectories([0.9] * 4 + [0.76] * 6, 60, seed=3), np.arange(60), seed=3)
    depths = [0, 5, 9]
    fall = fall_for_good(flipped, depths)
    assert fall is not None
    assert (fall.start, fall.end) == (3, 4)
    assert fall.p_value == flipped.at(depths).of_stretches()[0, 1]
    assert fall.p_value != flipped.at(range(6)).of_stretches()[3, 4]
