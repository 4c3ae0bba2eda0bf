import numpy as np
import pytest
from fgdiag_probes.few_images import FEW_PENALTY, few_shot, fit_few
from fgdiag_probes.linear import ChosenProbe
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from tests.probes.labelled import clouds, labelled

KINDS = np.array([0, 0, 1, 1])


def test_more_images_name_more_and_none_are_taken_twice() -> None:
    features, fine, test = clouds(4, 60, 12, apart=0.6)
    table = few_shot(features, labelled(fine, test, kind_of=KINDS), draws=2).frame()
    for level, classes in (("fine", 4), ("coarse", 2), ("fine|coarse", 4)):
        rows = table.query(f"level == '{level}'")
        assert rows["images"].tolist() == [classes, 5 * classes, 20 * classes]
        assert rows["short"].tolist() == [0, 0, 0]
        accuracy = rows["accuracy"].tolist()
        assert accuracy[2] > accuracy[0] + 0.1
        assert len(rows.query("low <= accuracy <= high")) == 3
        assert max(rows["spread"]) > 0


def test_what_features_do_not_know_stays_at_chance() -> None:
    features, fine, test = clouds(4, 90, 12, apart=0.0)
    table = few_shot(features, labelled(fine, test), draws=4).frame()
    np.testing.assert_allclose(table["accuracy"], 0.25, atol=0.09)
    np.testing.assert_allclose(table["chance"], 0.25)


def test_small_classes_give_all_they_have_and_are_counted() -> None:
    features, fine, test = clouds(4, 60, 8, apart=2.0)
    few = (fine == 0) & ~test
    few[np.flatnonzero(few)[:3]] = False
    kept = ~few
    found = few_shot(features[kept], labelled(fine[kept], test[kept]), draws=2)
    assert found.frame()["images"].tolist() == [4, 3 + 15, 3 + 60]
    assert found.frame()["short"].tolist() == [0, 1, 1]
    assert found.json()["few_shot"][1]["short"] == 1


def test_one_image_a_class_is_fitted_at_the_fixed_penalty() -> None:
    features, fine, _ = clouds(6, 1, 10, apart=1.0)
    probe = fit_few(features, fine, fine)
    assert probe.penalty == FEW_PENALTY
    standard = (features - features.mean(0)) / features.std(0)
    theirs = LogisticRegression(C=1 / (6 * FEW_PENALTY), tol=1e-8).fit(standard, fine)
    odds = softmax(probe.logits(features), axis=1)
    np.testing.assert_allclose(odds, theirs.predict_proba(standard), atol=2e-3)


def test_a_penalty_is_chosen_where_classes_have_two_groups() -> None:
    features, fine, _ = clouds(4, 2, 10, apart=1.0)
    assert isinstance(fit_few(features, fine, np.arange(8)), ChosenProbe)
    assert not isinstance(fit_few(features, fine, fine), ChosenProbe)


def test_the_seed_decides() -> None:
    features, fine, test = clouds(4, 30, 8, apart=0.7)
    labels = labelled(fine, test)
    one, same, other = (few_shot(features, labels, shots=[2], draws=2, seed=seed).table for seed in (0, 0, 1))
    assert one.equals(same)
    assert one["accuracy"].iloc[0] != pytest.approx(other["accuracy"].iloc[0], abs=1e-9)
