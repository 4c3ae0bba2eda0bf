"""`fgdiag attribute` on a tiny diagnosed run."""

from pathlib import Path

from tests.apps.conftest import Fgdiag

PAIR = ("--pair", "Barn_Owl", "eagle owl")


def test_maps_are_made_checked_and_written(fgdiag: Fgdiag, tmp_path: Path):
    asked = ("attribute", "runs/birds", *PAIR, "-n", "2", "--method", "ixg", "--method", "gradcam@projector")
    ended = fgdiag(*asked, "--figures", str(tmp_path / "maps"))
    assert ended.code == 0, ended.err
    assert "ixg@pixels" in ended.out
    assert len(list((tmp_path / "maps").glob("*.html"))) == 4
    found = fgdiag(*asked, "--json").json()
    assert [row["method"] for row in found["methods"]] == ["ixg@pixels", "gradcam@projector"]
    assert len(found["maps"]) == 4
    assert all(one["faithfulness"]["moved_deletion"] for one in found["maps"])


def test_an_unknown_method_is_told_before_the_model_is_opened(fgdiag: Fgdiag):
    ended = fgdiag("attribute", "runs/birds", *PAIR, "--method", "lime")
    assert ended.code == 1
    assert ended.told == (
        "fgdiag: No method 'lime'; expected one of ig, ixg, gradcam, occlusion, shapley, kernelshap, rollout."
    )


def test_an_unknown_class_is_told_before_the_model_is_opened(fgdiag: Fgdiag, monkeypatch):
    monkeypatch.setattr("fgdiag.reopening.reopen_model", None)
    ended = fgdiag("attribute", "runs/birds", "--pair", "barn owl", "snowy owl")
    assert ended.code == 1
    assert "No class 'snowy owl'" in ended.told
