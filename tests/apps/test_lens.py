"""The command `fgdiag lens` on a tiny random LLaVA."""

from pathlib import Path

from tests.apps.conftest import Fgdiag


def test_tokens_are_read_as_words(fgdiag: Fgdiag, bench: Path):
    ended = fgdiag("lens", "runs/birds", "-n", "2", "--figures", "lens-figures")
    assert ended.code == 0, ended.err
    assert "Logit lens" in ended.out
    assert "Nearest word vector" in ended.out
    assert len(list((bench / "lens-figures").glob("*.html"))) == 8
    found = fgdiag("lens", "runs/birds", "-n", "2", "--json").json()
    assert len(found["rows"]) == 2
    assert {row["level"] for row in found["layers"]} == {"fine", "coarse"}
    kept = {int(file.name.split(".")[0]) for file in (bench / "runs/birds/results/lens").glob("*.npz")}
    assert set(found["rows"]) <= kept


def test_one_image_is_named_by_its_number_or_its_file(fgdiag: Fgdiag):
    import pandas as pd

    source = pd.read_parquet("runs/birds/images.parquet")["source"].iloc[3]
    by_number = fgdiag("lens", "runs/birds", "--image", "3", "--json").json()
    assert by_number["rows"] == [3]
    assert fgdiag("lens", "runs/birds", "--image", str(source), "--json").json() == by_number


def test_an_unknown_image_is_told_before_the_model_is_opened(fgdiag: Fgdiag):
    ended = fgdiag("lens", "runs/birds", "--image", "no-such.png")
    assert ended.code == 1
    assert "has no image 'no-such.png'; give its number, 0 to" in ended.told
