"""Runs side by side: made from planted results, so every difference is known beforehand."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fgdiag_probes.agreement import agreement
from fgdiag_probes.comparable import Side, short_names
from fgdiag_probes.compare import AT_NORM, AT_VISION, Comparison, compare, relative_depth
from fgdiag_probes.paper_table import numbers, paper_table
from sklearn.metrics import cohen_kappa_score

from fgdiag.errors import NotComparable

SMALL = {"sites": ("vision", "projector", "llm.0", "llm.norm"), "readouts": ("image",)}
DEPTHS = ["vision", "projector", "best llm layer", "last llm layer", "answer"]
TESTED = 200

Planted = Callable[..., Side]


@pytest.fixture(scope="module")
def side(planted) -> Planted:
    """Plant a run and read it."""
    return lambda name="one", **how: Side.of(planted(**{**SMALL, **how}), name)


@pytest.fixture(scope="module")
def one(side: Planted) -> Side:
    return side("one")


def twin(side: Side, name: str = "two") -> Side:
    """The same run under another name, whose manifest and images can be changed."""
    run = type(side.run)(side.run.path, side.run.images.copy(), side.run._activations)  # pyright: ignore
    run.manifest = {**side.run.manifest}
    return Side(name, run, side.curves, side.answers)


def wrong_answers(side: Side, count: int) -> Side:
    """Let `count` images that were answered rightly be answered with the next class instead."""
    assert side.answers
    labels, answers = side.curves.labels, dict(side.answers)
    truth = labels.fine[labels.test]
    rows = np.flatnonzero(answers["fine"].said == truth)[:: max(1, TESTED // (2 * count))][:count]
    said = answers["fine"].said.copy()
    said[rows] = (truth[rows] + 1) % len(labels.fine_names)
    answers["fine"] = replace(answers["fine"], said=said)
    return replace(twin(side), answers=answers)


def row_of(found: Comparison, depth: str, level: str = "fine") -> dict:
    table = found.differences
    return table[(table["level"] == level) & (table["depth"] == depth)].iloc[0].to_dict()


def test_equal_runs_differ_by_exactly_nothing(one: Side) -> None:
    found = compare([one, twin(one)])
    assert found.images == TESTED
    assert set(found.differences["difference"]) == {0.0}
    assert set(found.differences["p_value"]) == {1.0}
    assert set(found.differences["outcome"]) == {"no difference"}
    assert set(found.differences["significant"]) == {False}
    assert found.differences["depth"].tolist() == DEPTHS * 3
    assert set(found.agreement["only_first"]) == set(found.agreement["only_second"]) == {0.0}
    assert set(found.agreement["kappa"].dropna()) == {1.0}
    assert set(found.agreement["same_wrong"].dropna()) == {1.0}


@pytest.mark.parametrize("count", [10, 60])
def test_a_known_number_of_wrong_answers_is_the_difference(one: Side, count: int) -> None:
    found = compare([one, wrong_answers(one, count)])
    row = row_of(found, "answer")
    assert row["difference"] == pytest.approx(-100 * count / TESTED)
    assert row["differing"] == count
    assert row["low"] < row["difference"] < row["high"] < 0
    assert row["outcome"] == "lower"
    others = found.differences.drop(
        index=found.differences.query("level == 'fine' and depth == 'answer'").index
    )
    assert set(others["outcome"]) == {"no difference"}
    agreed = found.agreement.query("level == 'fine' and depth == 'answer'").iloc[0]
    assert agreed["only_first"] == pytest.approx(count / TESTED)
    assert agreed["only_second"] == 0


def test_few_wrong_answers_are_within_luck(one: Side) -> None:
    row = row_of(compare([one, wrong_answers(one, 2)]), "answer")
    assert row["difference"] == pytest.approx(-1)
    assert row["outcome"] == "within luck"
    assert row["low"] < 0 < row["high"]


@pytest.fixture(scope="module")
def cut(one: Side, side: Planted) -> Comparison:
    """A whole run, and one whose projector loses the fine class."""
    return compare([one, side("cut", kept={"projector": 0.5})])


def test_a_planted_loss_is_a_difference_from_its_stage_on(cut: Comparison) -> None:
    outcomes = cut.differences.query("level == 'fine|coarse'").set_index("depth")["outcome"]
    assert outcomes["vision"] in ("no difference", "within luck")
    assert set(outcomes[DEPTHS[1:]]) == {"lower"}
    kind = cut.differences.query("level == 'coarse' and depth != 'answer'")
    assert set(kind["significant"]) == {False}


def test_differences_are_those_of_the_accuracies(cut: Comparison) -> None:
    for level in cut.levels:
        left = cut.depths[cut.depths["level"] == level].pivot(index="depth", columns="run", values="accuracy")
        apart = cut.differences[cut.differences["level"] == level].set_index("depth")["difference"]
        np.testing.assert_allclose(apart, 100 * (left["cut"] - left["one"])[apart.index])


def test_images_are_paired_by_what_they_are_not_by_where_they_stand(planted) -> None:
    run = planted(**SMALL)
    order = np.random.default_rng(0).permutation(len(run.images))
    images = run.images.iloc[order].reset_index(drop=True)
    moved = type(run)(
        run.path.parent / "moved", images, {place: found[order] for place, found in run._activations.items()}
    )
    answers = run.read_table("answers")
    moved.write_table("answers", answers.assign(row=np.argsort(order)[answers["row"]]))
    found = compare([Side.of(run, "run"), Side.of(moved, "moved")])
    assert row_of(found, "answer")["outcome"] == "no difference"
    assert row_of(found, "vision")["differing"] < 0.1 * TESTED


def test_three_runs_are_compared_with_the_first_and_agree_pairwise(one: Side) -> None:
    found = compare([one, wrong_answers(one, 30), replace(twin(one), name="three")])
    assert found.differences["first"].unique().tolist() == ["one"]
    assert found.differences["run"].unique().tolist() == ["two", "three"]
    pairs = found.agreement[["first", "second"]].drop_duplicates().to_numpy().tolist()
    assert pairs == [["one", "two"], ["one", "three"], ["two", "three"]]


def test_agreement_is_that_of_closed_forms_and_of_a_peer() -> None:
    truth = np.array([0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    said = np.array([[0, 0, 0, 1, 1, 1, 2, 2, 0, 2], [0, 0, 1, 1, 1, 0, 2, 0, 1, 2]])
    found = agreement(said, truth, np.full(10, 3))
    assert {name: found[name] for name in ("both_right", "only_first", "only_second", "both_wrong")} == {
        "both_right": 0.4,
        "only_first": 0.2,
        "only_second": 0.0,
        "both_wrong": 0.4,
    }
    assert found["same_wrong"] == 0.5
    assert found["same_wrong_by_luck"] == 0.5
    assert found["kappa"] == pytest.approx(cohen_kappa_score(*(said == truth)))
    always = agreement(np.stack([truth, said[1]]), truth, np.full(10, 3))
    assert always["kappa"] is None
    assert always["same_wrong"] is None


def test_independent_errors_have_no_kappa() -> None:
    rng = np.random.default_rng(0)
    truth = np.zeros(20_000, int)
    said = (rng.random((2, 20_000)) < 0.3) * rng.integers(1, 5, (2, 20_000))
    found = agreement(said, truth, np.full(20_000, 5))
    assert found["kappa"] == pytest.approx(0, abs=0.03)
    assert found["same_wrong"] == pytest.approx(found["same_wrong_by_luck"], abs=0.03)


def refused(*sides: Side) -> str:
    with pytest.raises(NotComparable) as error:
        compare(sides)
    assert "\n" not in str(error.value)
    assert "cannot be compared" in str(error.value)
    return str(error.value)


def test_another_question_is_refused(one: Side) -> None:
    other = twin(one)
    other.run.manifest["prompt"] = "Which bird is this?"
    told = refused(one, other)
    assert "'What is this?' and 'Which bird is this?'" in told
    assert "--prompt" in told


def test_other_readouts_are_refused(one: Side) -> None:
    first, other = twin(one, "first"), twin(one)
    first.run.manifest["readouts"], other.run.manifest["readouts"] = ["image", "last"], ["image"]
    assert "Other readouts: image,last and image. Record both with the same --readouts." in refused(
        first, other
    )


def test_other_class_names_are_refused_with_an_example(one: Side) -> None:
    other = twin(one)
    other.run.images["fine"] = other.run.images["fine"].replace("species 03", "Species 3")
    told = refused(one, other)
    assert "24 of 480 images" in told
    assert "'species 03' in one and 'Species 3' in two" in told


def test_other_splits_and_other_images_are_refused_with_counts(one: Side, side: Planted) -> None:
    other = side("two", train=10, test=14)
    assert "Other images: 200 of 280 training and 200 of 200 test images of one" in (
        told := refused(one, other)
    )
    assert "--test-share" in told
    elsewhere = twin(one)
    elsewhere.run.images["id"] = "x" + elsewhere.run.images["id"]
    assert "0 of 280 training and 0 of 200 test images" in refused(one, elsewhere)


def test_every_reason_is_told_at_once(one: Side) -> None:
    other = twin(one)
    other.run.manifest |= {"prompt": "?", "readouts": ["last"]}
    with pytest.raises(NotComparable) as error:
        compare([one, other])
    assert len(error.value.reasons) == 2


def test_some_unreadable_images_are_left_out_and_told(planted, one: Side) -> None:
    run = planted(**SMALL)
    run.images.loc[run.images.index[run.images["split"] == "test"][:7], "status"] = "cannot be read"
    found = compare([one, Side.of(run, "two")])
    assert found.images == TESTED - 7
    assert set(found.depths["images"]) == {TESTED - 7}
    assert any("193 test images" in note for note in found.notes)
    assert row_of(found, "answer")["outcome"] == "no difference"


def test_what_else_differs_is_noted(one: Side) -> None:
    first, other = twin(one, "first"), twin(one)
    first.run.manifest |= {"dtype": "float32", "versions": {"torch": "2.1"}}
    other.run.manifest |= {"dtype": "bfloat16", "versions": {"torch": "2.2"}, "fingerprint": "other"}
    assert compare([first, other]).notes == (
        "Computed in float32 (first), bfloat16 (two).",
        "Versions of torch: 2.1 (first), 2.2 (two).",
    )
    assert compare([one, twin(one)]).notes == ("The same weights: one, two.",)


def test_answers_count_only_where_all_have_them(one: Side) -> None:
    found = compare([one, replace(twin(one), answers=None)])
    assert found.differences["depth"].unique().tolist() == DEPTHS[:-1]
    assert any("two was not asked" in note for note in found.notes)


def test_attention_counts_only_where_all_have_it(one: Side) -> None:
    readings = one.curves.readings
    better = {**readings, ("vision", "attn"): readings["vision", "image"]}
    attended = replace(twin(one), curves=replace(one.curves, readings=better))
    found = compare([one, attended])
    assert any("without attention" in note for note in found.notes)
    assert "attn" not in set(found.depths["readout"])


def test_relative_depth_counts_blocks(one: Side) -> None:
    assert relative_depth("llm.0", 4) == 0.25
    assert relative_depth("projector.2", 4) == 0
    curves = compare([one, twin(one)]).curves.query("run == 'one' and level == 'fine'")
    assert dict(zip(curves["site"], curves["relative_depth"], strict=True)) == {
        "vision": AT_VISION,
        "projector": 0.0,
        "llm.0": 1.0,
        "llm.norm": AT_NORM,
    }
    one_of_four = twin(one)
    one_of_four.run.manifest["llm_blocks"] = 4
    found = compare([one, one_of_four])
    assert found.curves.query("run == 'two' and site == 'llm.0'")["relative_depth"].unique() == [0.25]
    assert any("two recorded 1 of 4 blocks" in note for note in found.notes)


def test_short_names_tell_runs_apart() -> None:
    assert list(short_names([Path("a/run"), Path("b/run")])) == ["a/run", "b/run"]
    assert list(short_names([Path("a/one"), Path("b/two")])) == ["one", "two"]


def test_the_paper_table_has_the_same_numbers_in_every_format(cut: Comparison) -> None:
    table = pd.read_csv(StringIO(paper_table(cut, "csv")))
    assert len(table) == 3 * 2 * 5
    np.testing.assert_allclose(table["difference"].dropna(), numbers(cut)["difference"].dropna())
    row = row_of(cut, "projector", "fine|coarse")
    written = f"{row['difference']:+.1f}*".replace("-", "\N{MINUS SIGN}")
    markdown = paper_table(cut, "markdown").splitlines()
    assert len({line.count("|") for line in markdown if line.startswith("|")}) == 1
    assert written in markdown[4]
    latex = paper_table(cut, "latex")
    assert written.replace("\N{MINUS SIGN}", "$-$").replace("*", "$^{*}$") in latex
    assert "\N{MINUS SIGN}" not in latex
    assert latex.count(r"\\") == 1 + 3 * 3


def test_names_are_escaped_in_latex(one: Side) -> None:
    latex = paper_table(compare([one, twin(one, "my_run 50%")]), "latex")
    assert r"my\_run 50\%" in latex


def test_figures_show_every_run(cut: Comparison) -> None:
    depths, along, apart = ([trace.to_plotly_json() for trace in figure.data] for figure in cut.figures())  # pyright: ignore
    assert [trace["name"] for trace in depths] == ["one", "cut"]
    assert {trace["name"] for trace in along if "name" in trace} == {"one", "cut"}
    (differences,) = apart
    np.testing.assert_allclose(
        np.asarray(differences["y"]), cut.differences.query("level == 'fine|coarse'")["difference"].to_numpy()
    )
    assert len(cut.json()["differences"]) == 15
