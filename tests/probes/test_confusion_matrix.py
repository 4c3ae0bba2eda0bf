import numpy as np
import pytest
from fgdiag_probes.confusion_matrix import ConfusionMatrix, confusion_matrix, side_by_side

from fgdiag.errors import RunIncomplete, SiteNotFound

SMALL = {"sites": ("vision", "llm.norm"), "readouts": ("image",), "train": 8, "test": 6}


def test_a_planted_confusion_is_one_cell(planted) -> None:
    run = planted(**SMALL)
    answers = run.read_table("answers")
    answers["said_fine"] = answers["fine"].replace("species 05", "species 06")
    run.write_table("answers", answers)
    found = confusion_matrix(run)
    counts = found.frame()
    assert counts.loc["species 05", "species 06"] == 6
    assert counts.to_numpy().sum() == 20 * 6
    assert np.trace(found.counts) == 19 * 6
    assert found.shares.sum(1) == pytest.approx(1)
    assert [len(set(found.classes[start:end])) for _, start, end in found.blocks] == [4] * 5
    assert {name for name, _, _ in found.blocks} == {f"genus {i}" for i in range(5)}


def test_sites_depths_and_answers_share_one_order(planted) -> None:
    run = planted(**SMALL)
    places = ["vision", "last llm layer", "llm.norm", "answer"]
    found = [confusion_matrix(run, at=at, level="fine|coarse") for at in places]
    assert all((one.classes == found[0].classes).all() for one in found)
    assert (found[1].counts == found[2].counts).all()
    within = np.zeros_like(found[0].counts, dtype=bool)
    for _, start, end in found[0].blocks:
        within[start:end, start:end] = True
    assert not found[3].counts[~within].any()
    assert side_by_side(*found[:2]).to_dict()["layout"]["height"] > 300


def test_what_is_not_there_is_named(planted) -> None:
    run = planted(**SMALL, answer_kept=None)
    with pytest.raises(RunIncomplete, match="fgdiag answer"):
        confusion_matrix(run)
    with pytest.raises(SiteNotFound, match=r"'llm\.7'"):
        confusion_matrix(run, at="llm.7")
    with pytest.raises(SiteNotFound, match="'cls'"):
        confusion_matrix(run, at="vision", readout="cls")


def test_two_hundred_classes_are_named_by_kind() -> None:
    blocks = tuple((f"kind {i}", 8 * i, 8 * i + 8) for i in range(25))
    names = np.array([f"class {i}" for i in range(200)])
    found = ConfusionMatrix(np.eye(200, dtype=int), names, blocks, "vision", "image", "fine")
    assert found.figure().to_dict()["layout"]["yaxis"]["ticktext"] == [f"kind {i}" for i in range(25)]
