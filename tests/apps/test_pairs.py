"""`fgdiag pairs` on a tiny diagnosed run."""

from pathlib import Path

from tests.apps.conftest import Fgdiag


def test_a_pair_is_named_as_it_is_spoken(fgdiag: Fgdiag, tmp_path: Path):
    figure = tmp_path / "pair.html"
    ended = fgdiag("pairs", "runs/birds", "--pair", "Barn_Owl", "eagle owl", "--figure", str(figure))
    assert ended.code == 0, ended.err
    assert "barn owl / eagle owl" in ended.out
    assert any(line.split()[:1] == ["answer"] for line in ended.out.splitlines())
    assert "told apart" in figure.read_text(encoding="utf-8")


def test_the_most_confused_pairs_as_json(fgdiag: Fgdiag):
    found = fgdiag("pairs", "runs/birds", "--top", "2", "--json").json()
    assert len(found["pairs"]) <= 2
    assert "picked" in found["note"]
    assert {pair["outcome"] for pair in found["pairs"]} <= {"lost", "nowhere", "never readable"}


def test_an_unknown_class_is_told_with_the_closest(fgdiag: Fgdiag):
    ended = fgdiag("pairs", "runs/birds", "--pair", "barn owls", "eagle-owl")
    assert ended.code == 1
    assert "No class 'barn owls'" in ended.told
    assert "'barn owl'" in ended.told
