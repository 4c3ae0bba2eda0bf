import numpy as np
import pytest
from fgdiag_probes.confusion import confused_pairs

from fgdiag.errors import SiteNotFound

SMALL = {"sites": ("vision", "llm.norm"), "readouts": ("image",), "train": 8, "test": 6}


def test_a_planted_confusion_comes_first(planted) -> None:
    run = planted(**SMALL)
    answers = run.read_table("answers")
    answers.loc[answers["fine"] == "species 05", "said_fine_within_coarse"] = "species 06"
    run.write_table("answers", answers)
    found = confused_pairs(run)
    first = found.table.iloc[0]
    assert (first["truth"], first["said"], first["coarse"]) == ("species 05", "species 06", "genus 1")
    assert (first["answer"], first["images"]) == (6, 6)
    assert first["vision"] <= 1
    assert all(run.images["fine"][row] == "species 05" for row in first["rows"])
    assert found.ranked_by == "answer"


def test_without_answers_the_last_layer_ranks(planted) -> None:
    found = confused_pairs(planted(**SMALL, answer_kept=None, kept={"llm.norm": 0.4}))
    assert found.ranked_by == "last llm layer"
    assert "answer" not in found.table
    counts = found.table["last llm layer"].to_numpy()
    assert (np.diff(counts) <= 0).all()


def test_any_site_can_rank(planted) -> None:
    run = planted(**SMALL)
    assert confused_pairs(run, site="vision").ranked_by == "vision"
    with pytest.raises(SiteNotFound, match=r"'llm\.7'"):
        confused_pairs(run, site="llm.7")


def test_figure_and_json(planted) -> None:
    found = confused_pairs(planted(**SMALL, kept={"vision": 0.5}))
    drawn = found.figure(top=5).to_dict()["data"]
    assert {trace.get("name") for trace in drawn} - {None} == {"vision", "last llm layer", "answer"}
    assert found.json()["pairs"][0]["rows"]
