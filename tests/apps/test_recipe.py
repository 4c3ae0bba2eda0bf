"""`fgdiag recipe`: the two papers and the bridge between them, from the command line."""

from functools import partial
from pathlib import Path

import pytest
from fgdiag_probes import recipe_fits
from fgdiag_probes.trained_linear import train_linear

from tests.apps.conftest import Fgdiag


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_fits, "train_linear", partial(train_linear, epochs=20))


def test_recipes_name_their_flaws_and_the_bridge_its_shares(fgdiag: Fgdiag, bench: Path, monkeypatch) -> None:
    ended = fgdiag("recipe", "vlmclassifier", "runs/birds")
    assert ended.code == 0, ended.err
    assert "last llm layer" in ended.out
    assert (
        "Flaws of VLMClassifier:\n- the epoch is the one with the best accuracy on the test images"
        in ended.out
    )
    monkeypatch.setattr("fgdiag.reopening.reopen_model", None)  # the replies are there
    shut = fgdiag("recipe", "response-wide-shut", "runs/birds", "--images-a-class", "3", "--json").json()
    assert shut["recipe"]["images_a_class"] == 3
    assert [row["what"] for row in shut["scores"][:3]] == ["encoder", "projector", "last llm layer"]
    words = ("recipe", "bridge", "runs/birds", "--images-a-class", "3", "--figure", "bridge.html")
    ended = fgdiag(*words)
    assert ended.code == 0, ended.err
    assert "whole difference" in ended.out
    assert "plotly" in (bench / "bridge.html").read_text(encoding="utf-8")
    bridged = fgdiag(*words, "--json").json()
    parts = [row for row in bridged["contributions"] if row["depth"] == "last llm layer"]
    assert sum(row["points"] for row in parts[:-1]) == pytest.approx(parts[-1]["points"])
