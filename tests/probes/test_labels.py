import numpy as np
import pytest
from fgdiag_probes.labels import Labels

from fgdiag.errors import ImagesNotUsable


def test_unreadable_and_untaught_images_are_left_out(planted) -> None:
    run = planted(answer_kept=None)
    run.images.loc[0, "status"] = "truncated"
    run.images.loc[run.images["fine"] == "species 03", "split"] = "test"
    labels = Labels.of(run)
    assert 0 not in labels.train
    assert "species 03" not in labels.fine_names
    assert "species 03" not in set(run.images["fine"][labels.test])
    assert len(labels.fine_names) == 19


def test_chance_of_a_balanced_set(planted) -> None:
    chance = Labels.of(planted(answer_kept=None)).chance
    assert chance["fine"] == pytest.approx((1 / 20, np.log2(20)))
    assert chance["coarse"] == pytest.approx((1 / 5, np.log2(5)))
    assert chance["fine|coarse"] == pytest.approx((1 / 4, 2.0))


def test_chance_of_an_unbalanced_set_is_that_of_the_frequent_class(planted) -> None:
    run = planted(answer_kept=None)
    common = run.images["fine"].isin(["species 00", "species 01"])
    rare = ~common & (run.images.index % 24 >= 4) & (run.images["split"] == "train")
    rare |= ~common & (run.images.index % 24 >= 16)
    run.images.loc[rare, "split"] = "excluded"
    chance, bits = Labels.of(run).chance["fine"]
    assert chance == pytest.approx(10 / (2 * 10 + 18 * 2))
    assert bits < np.log2(20)


def test_look_alikes_need_a_sibling(planted) -> None:
    run = planted(answer_kept=None)
    run.images.loc[run.images["fine"].isin(["species 01", "species 02", "species 03"]), "split"] = "excluded"
    labels = Labels.of(run)
    asked = labels.asked("fine|coarse", labels.test)
    assert set(labels.fine_names[labels.fine[labels.test[~asked]]]) == {"species 00"}
    assert labels.chance["fine|coarse"][0] == pytest.approx(1 / 4)


def test_without_kinds_only_fine_is_asked(planted) -> None:
    run = planted(answer_kept=None)
    run.images["coarse"] = run.images["fine"]
    run.manifest["images"]["levels"] = ["fine"]
    assert Labels.of(run).levels == ("fine",)


def test_no_test_images_is_an_error_that_says_so(planted) -> None:
    run = planted(answer_kept=None)
    run.images["split"] = "train"
    with pytest.raises(ImagesNotUsable, match="0 readable test images"):
        Labels.of(run)


@pytest.mark.parametrize("seed", range(6))
def test_random_kinds_part_what_is_together(planted, seed: int) -> None:
    """Three kinds of two: an unlucky permutation would be the real kinds under other names."""
    labels = Labels.of(planted(kinds=3, per_kind=2, train=3, test=2), seed=seed)
    real = labels.siblings.argmax(0)
    random = labels.random_kinds
    assert sorted(random) == sorted(real)
    together = (real[:, None] == real) & (random[:, None] == random)
    assert together.sum() == len(real), "only each class with itself"
