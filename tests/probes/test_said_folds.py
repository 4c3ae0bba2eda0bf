"""The tables say what is known of who was asked: one that always chooses B, one that names kinds only."""

from typing import Any

import pytest
from fgdiag_probes.asking import Reply
from fgdiag_probes.baselines import compare_baselines
from fgdiag_probes.free_text import free_text
from fgdiag_probes.multiple_choice import multiple_choice
from fgdiag_probes.said_folds import said_folds

from fgdiag.prompts import spoken
from tests.probes.respondents import Pictures, Scripted, letter


@pytest.fixture
def run(planted):
    shape = {"kinds": 4, "per_kind": 3, "train": 4, "test": 3}
    made = planted(**shape, sites=("pixels", "vision"), readouts=("image",), answer_kept=0.5)
    made.manifest["seed"] = 0
    return made


def test_nothing_was_asked_and_nothing_is_shown(run):
    assert said_folds(run) == []


def test_what_a_run_holds_is_shown_in_order(run):
    pictures: Any = Pictures()
    multiple_choice(run, Scripted(lambda question, _: letter(question, "B")), pictures, distractors="random")
    free_text(run, Scripted(lambda _, row: Reply(spoken(run.images["coarse"][row]))), pictures)
    compare_baselines(run)
    folds = {fold.title: fold for fold in said_folds(run)}
    assert list(folds) == [
        "Multiple choice",
        "Multiple choice: which places are liked",
        "Free text",
        "Free text: how exact the answers are",
        "Image-only baselines",
        "Where the model stays furthest behind an image-only baseline",
    ]
    for fold in folds.values():
        assert all(len(row) == len(fold.heads) for rows in fold.rows.values() for row in rows)
    fine = "Fine class among all"
    by_letter, _, by_text = folds["Multiple choice"].rows[fine]
    assert (by_letter[1], by_letter[3], by_text[1]) == ("20 %", "20 %", "20 %")
    liked = [row for row in folds["Multiple choice: which places are liked"].rows[fine] if row[1] == "B"]
    assert [row[2] for row in liked] == ["100 %", "100 %"]
    assert [row[4] for row in liked] == ["+80 *", "+80 *"]
    assert folds["Free text"].rows[fine][0][1] == "0 %"
    assert folds["Free text"].rows["Coarse class"][0][1] == "100 %"
    exact = {row[0]: row[1:] for row in folds["Free text: how exact the answers are"].rows[""]}
    assert exact["fine class among all"][1] == "100 %"
    assert "36 test images" in folds["Free text"].sentence
    assert folds["Where the model stays furthest behind an image-only baseline"].heads[0] == "kind"
    own = [row for row in folds["Image-only baselines"].rows[""] if row[0] == "own encoder"]
    assert {row[2] for row in own} == {"linear probe", "nearest neighbours", "class means"}
