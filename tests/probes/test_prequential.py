import numpy as np
import pytest
from fgdiag_probes.few_images import fit_few
from fgdiag_probes.prequential import SHARES, Codelength, _with_escape, blocks, codelength
from sklearn.linear_model import LogisticRegression

from tests.probes.labelled import clouds, labelled

KINDS = np.array([0, 0, 0, 1, 1, 2])


def total(found: Codelength, level: str) -> dict[str, float]:
    return found.totals.set_index("level").loc[level].to_dict()


def test_labels_that_features_do_not_know_cost_even_odds() -> None:
    features, fine, test = clouds(6, 90, 10, apart=0.0)
    found = codelength(features, labelled(fine, test, kind_of=KINDS))
    for level in ("fine", "coarse", "fine|coarse"):
        row = total(found, level)
        assert row["bits"] == pytest.approx(row["frequency_bits"], rel=0.04)
    assert total(found, "fine")["uniform_bits"] == pytest.approx(360 * np.log2(6))
    assert total(found, "fine")["bits"] == pytest.approx(360 * np.log2(6), rel=0.04)


def test_unbalanced_labels_that_features_do_not_know_cost_their_entropy() -> None:
    features, _, test = clouds(6, 150, 10, apart=0.0)
    fine = (np.random.default_rng(1).random(len(test)) < 0.1).astype(int)
    row = total(codelength(features, labelled(fine, test)), "fine")
    share = fine[~test].mean()
    entropy = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    assert row["bits"] == pytest.approx(row["images"] * entropy, rel=0.2)
    assert row["bits"] < 0.65 * row["uniform_bits"]


def test_separable_classes_cost_little_more_than_the_first_blocks() -> None:
    features, fine, test = clouds(6, 90, 10, apart=6.0)
    found = codelength(features, labelled(fine, test))
    curve = found.curve
    assert (curve["bits_an_image"].to_numpy()[3:] < 0.1).all()
    assert total(found, "fine")["bits"] < curve["uniform_bits"].iloc[:3].sum()
    assert total(found, "fine")["compression"] > 8
    assert curve["accuracy"].iloc[-1] == 1.0


def test_more_signal_costs_fewer_bits() -> None:
    bits = []
    for apart in (0.2, 0.5, 1.0):
        features, fine, test = clouds(6, 60, 10, apart=apart)
        bits.append(total(codelength(features, labelled(fine, test)), "fine")["bits"])
    assert bits[0] > 1.1 * bits[1] > 1.3 * bits[2]


def test_equals_a_slow_version_by_hand() -> None:
    features, fine, test = clouds(6, 24, 5, apart=0.8)
    labels = labelled(fine, test, kind_of=KINDS)
    shares = (0.1, 0.4, 1.0)
    found = codelength(features, labels, shares=shares, seed=3)
    block = blocks(fine[labels.train], labels.groups[labels.train], shares, seed=3)
    for level in labels.levels:
        codes, bits = labels.codes(level), 0.0
        for number in range(3):
            before, now = labels.train[block < number], labels.train[block == number]
            odds = _odds(features, codes, labels.groups, before, now) if number else [{}] * len(now)
            for row, shown in zip(now, odds, strict=True):
                among = np.flatnonzero(labels.candidates(level, np.array([row]))[0])
                if len(among) > 1:
                    bits -= np.log2(_price(shown, codes[before].tolist(), int(codes[row]), among.tolist()))
        assert total(found, level)["bits"] == pytest.approx(bits, rel=2e-3)


def _odds(
    features: np.ndarray, codes: np.ndarray, groups: np.ndarray, before: np.ndarray, now: np.ndarray
) -> list[dict[int, float]]:
    """What scikit-learn makes of each image."""
    X, y = features[before].astype(float), codes[before]
    mean, scale = X.mean(0), X.std(0)
    penalty = fit_few(features[before], y, groups[before], seed=3).penalty
    probe = LogisticRegression(C=1 / (len(y) * penalty), tol=1e-8, max_iter=5000).fit((X - mean) / scale, y)
    odds = probe.predict_proba((features[now] - mean) / scale)
    return [dict(zip(probe.classes_.tolist(), row, strict=True)) for row in odds]


def _price(shown: dict[int, float], sent: list[int], own: int, among: list[int]) -> float:
    """Probability of the image's own class."""
    counts = {one: sent.count(one) for one in among}
    new = [one for one in among if counts[one] == 0]
    escape = 0.5 * len(new) / (sum(counts.values()) + 0.5 * len(among))
    if own in new:
        return escape / len(new)
    return (1 - escape) * shown[own] / sum(shown[one] for one in among if one not in new)


def test_the_code_is_proper_and_new_classes_count_half_an_image() -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5))
    candidates = np.array([[1, 1, 1, 1, 1], [0, 0, 0, 1, 1], [1, 1, 0, 0, 0]], bool)
    odds = np.exp(_with_escape(logits, candidates, np.array([4, 3, 2, 0, 0])))
    np.testing.assert_allclose(odds.sum(1), 1.0)
    np.testing.assert_allclose(odds[0, 3:], 0.5 / (9 + 2.5))
    np.testing.assert_allclose(odds[1], [0, 0, 0, 0.5, 0.5])
    np.testing.assert_allclose(odds[2, 0], 1 / (1 + np.exp(logits[2, 1] - logits[2, 0])))


def test_images_without_look_alikes_have_nothing_to_send() -> None:
    features, fine, test = clouds(6, 30, 5, apart=1.0)
    found = codelength(features, labelled(fine, test, kind_of=KINDS))
    row = total(found, "fine|coarse")
    assert row["images"] == 5 * 20
    assert row["uniform_bits"] == pytest.approx(60 * np.log2(3) + 40)
    assert found.json()["codelength"][0]["level"] == "fine|coarse"


def test_the_test_images_are_not_touched() -> None:
    features, fine, test = clouds(4, 30, 5, apart=1.0)
    labels = labelled(fine, test)
    whole = codelength(features, labels).totals
    features[test] = np.nan
    assert codelength(features, labels).totals.equals(whole)


def test_blocks_keep_groups_whole_and_hold_their_share_of_each_class() -> None:
    codes = np.repeat(np.arange(5), [10, 20, 40, 80, 160])
    block = blocks(codes, np.arange(310), SHARES)
    for number, share in enumerate(SHARES):
        held = np.bincount(codes[block <= number], minlength=5)
        assert (np.abs(held - share * np.bincount(codes)) < 1).all()
    groups = np.arange(310) // 2
    paired = blocks(codes, groups, SHARES)
    assert (paired[::2] == paired[1::2]).all()
    assert (blocks(codes, groups, SHARES, seed=1) != paired).any()


def test_shares_that_leave_images_out_are_an_error() -> None:
    with pytest.raises(ValueError, match=r"Shares of \(0.5, 0.9\) are no blocks"):
        blocks(np.arange(4), np.arange(4), (0.5, 0.9))
