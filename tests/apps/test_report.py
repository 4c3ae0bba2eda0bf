"""What the report says of the evidence, and how it heads the verdict."""

import json
import re
from html import unescape
from pathlib import Path

import pandas as pd
import pytest
from fgdiag_probes import LossBudget, Verdict
from fgdiag_probes.style import percent, read_from

from tests.apps.conftest import Fgdiag

FOLDS = (
    "Other readers, and less data",
    "Selectivity",
    "Other deals of the images",
    "What the projector keeps",
    "The model's answers, without the image and corrected for it",
    "Free text",
    "Free text: how exact the answers are",
    "Image-only baselines",
    "Where the model stays furthest behind an image-only baseline",
)


def page(run: Path) -> str:
    return unescape((run / "report.html").read_text(encoding="utf-8"))


def folds(run: Path) -> dict[str, str]:
    """What folds out of the section with the evidence, by its title."""
    section = page(run).partition("<h2>A closer look</h2>")[2].partition("</section>")[0]
    return dict(re.findall(r"<summary>(.*?)</summary>(.*?)</details>", section, re.DOTALL))


def rows(fold: str) -> list[list[str]]:
    """Cells of the rows of a table."""
    lines = re.findall(r"<tr>(<td.*?)</tr>", fold)
    return [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in lines]


def results(run: Path, name: str) -> dict:
    return json.loads((run / "results" / f"{name}.json").read_text())


@pytest.fixture
def run(bench: Path) -> Path:
    return bench / "runs" / "birds"


def test_all_that_folds_out_is_explained_and_scrolls(run: Path):
    found = folds(run)
    assert tuple(found) == FOLDS
    for fold in found.values():
        assert re.search(r'<p class="lead">.{40,}</p>', fold)
        assert '<div class="scroll">' in fold
        width = len(re.findall(r"<th(?: class=\"number\")?>", fold))
        assert {len(row) for row in rows(fold)} == {width}


def test_other_readers_are_those_of_the_results(run: Path):
    levels = ("fine|coarse", "fine", "coarse")
    readers = sorted(results(run, "evidence")["readers"], key=lambda row: levels.index(row["level"]))
    shown = rows(folds(run)[FOLDS[0]])
    ways = ("linear", "network", "nearest", "matched", "few_1", "few_5", "few_20")
    assert [row[1:9] for row in shown] == [
        [f"{row['site']}: {read_from(row['site'], row['readout'])}", *(percent(row[way]) for way in ways)]
        for row in readers
    ]
    assert [row[10] for row in shown] == [f"{row['compression']:.1f}" for row in readers]


def test_deals_projector_and_controls_are_those_of_the_results(run: Path):
    evidence, stages = results(run, "evidence"), results(run, "stability")["stages"]
    found = folds(run)
    for stage in set(stages):
        assert f"{stage} {stages.count(stage)}" in found[FOLDS[2]]
    assert [row[1] for row in rows(found[FOLDS[3]])] == [
        percent(evidence["overlap"]["overlap"]),
        percent(evidence["reconstruction"]["share"]),
    ]
    assert f"<dt>Shuffled labels</dt><dd>{evidence['shuffled']['sentence']}</dd>" in page(run)


def test_answers_are_shown_blind_and_corrected(fgdiag: Fgdiag, run: Path):
    printed = fgdiag("answer", "runs/birds", "--json").json()
    shown = {row[0]: row[1:] for row in rows(folds(run)[FOLDS[4]])}
    for level, words in (("fine", "fine class among all"), ("coarse", "coarse class")):
        assert shown[words] == [percent(printed[way][level]) for way in ("accuracy", "blind", "corrected")]


def test_every_step_is_also_told_with_a_small_network(run: Path):
    steps = page(run).partition("Every step in numbers")[2].partition("</details>")[0]
    for drop in results(run, "verdict")["budget"]:
        shown = f"{drop['drop_nonlinear']:+.1f}".replace("-", "\N{MINUS SIGN}")
        assert f'<td class="number">{shown}</td>' in steps


def budget(stage: str, agreeing: int = 10, **drop: bool) -> LossBudget:
    row = {
        "level": "fine",
        "from": "vision",
        "stage": stage,
        "drop": 20.0,
        "significant": True,
        "made_good": False,
        "lost": True,
    }
    depths = pd.DataFrame({"level": ["fine"], "depth": ["projector"]})
    return LossBudget(pd.DataFrame([row | drop]), depths, Verdict("none", "", (), (), (agreeing, 10)))


@pytest.mark.parametrize(
    ("stage", "drop", "words"),
    [
        ("projector", {}, "Lost in the projector"),
        ("language model", {"lost": False}, "Harder to read after the language model"),
        ("answer", {}, "Lost in the answer"),
        ("answer", {"lost": False}, "Not said in the answer"),
        ("none", {"significant": False}, "No significant loss"),
    ],
)
def test_the_heading_claims_no_more_than_the_verdict(stage: str, drop: dict, words: str):
    assert budget(stage, **drop).heading == words
    unstable = budget(stage, agreeing=4, **drop).heading
    assert unstable == f"{words} \N{MIDDLE DOT} not stable: 4 of 10 other deals agree"


def test_an_encoder_that_never_had_it_did_not_lose_it():
    blind = {"depth": "vision", "accuracy": 0.2, "chance": 0.2, "gain_high": 0.02}
    depths = pd.DataFrame([{"level": "fine", "above_chance": False, "above_pixels": False, **blind}])
    found = LossBudget(budget("projector").drops, depths, Verdict("vision encoder", "", (), ()))
    assert found.heading == "Not readable after the vision encoder"
