"""Free text of those whose words are known: exact, only coarse, wrong, refusing; and what raw substrings make of it."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from fgdiag_probes.asking import Question, Reply
from fgdiag_probes.free_text import FreeText, free_text, matched
from fgdiag_probes.labels import Labels
from fgdiag_probes.naming import ClassNames

from tests.probes.respondents import Pictures, Scripted


@pytest.fixture
def run(planted):
    run = planted(kinds=3, per_kind=2, train=4, test=3, answer_kept=None)
    names = ["anjou pear", "kaiser pear", "grape", "grapefruit", "bell pepper", "chili pepper"]
    kinds = ["pear", "pear", "berry", "berry", "pepper", "pepper"]
    number = run.images["fine"].str[-2:].astype(int)
    run.images["fine"], run.images["coarse"] = (number.map(dict(enumerate(of))) for of in (names, kinds))
    return run


def ask(run, answer, **how) -> Any:
    respondent = answer if isinstance(answer, Scripted) else Scripted(answer)
    return free_text(run, respondent, Pictures(), **how)  # pyright: ignore[reportArgumentType]


def says(run, column: str, form: str = "It is a {}."):
    return lambda _, row: Reply(form.format(run.images[column][row]))


def test_one_that_knows(run):
    found = ask(run, says(run, "fine", "Some {}s!"))
    assert (found.frame().query("by == 'words'")["accuracy"] == 1).all()
    assert (found.grain()["fine"] == 1).all()


def test_one_that_knows_only_the_kind(run):
    found = ask(run, says(run, "coarse"))
    accuracy = found.frame().query("by == 'words'").set_index("level")["accuracy"]
    assert accuracy.to_dict() == {"fine|coarse": 0, "fine": 0, "coarse": 1}
    assert found.grain().set_index("level")["coarse"]["fine"] == 1


def grain_of(text: str, fine: str = "anjou pear", coarse: str = "pear") -> Any:
    kinds = {"anjou pear": "pear", "kaiser pear": "pear", "bell pepper": "pepper", "grape": "berry"}
    table = pd.DataFrame([{"fine": fine, "coarse": coarse, "level": "fine"}])
    return matched(table, [Reply(text)], ClassNames.of(kinds))["grain"][0]


@pytest.mark.parametrize(
    ("text", "grain"),
    [
        ("An Anjou pear", "fine"),
        ("Two anjou pears, or kaiser pears", "fine"),
        ("kaiser pears, or anjou pears", "wrong fine"),
        ("a pear", "coarse"),
        ("a kaiser pear", "wrong fine"),
        ("a pepper", "wrong kind"),
        ("a bell pepper", "wrong kind"),
        ("I'm sorry, I can't tell.", "refusal"),
        ("Sorry if I am wrong: an anjou pear", "fine"),
        ("It appears to be fruit", "none"),
        ("", "none"),
    ],
)
def test_how_exact_an_answer_is(text: str, grain: str):
    assert grain_of(text) == grain


def test_the_substring_rule_finds_what_nobody_said(run):
    """It says "appears" of pears, and "grapefruit" of grapes."""

    def misleads(_: Question, row: int) -> Reply:
        coarse, fine = run.images["coarse"][row], run.images["fine"][row]
        return Reply(
            "It appears so" if coarse == "pear" else "A grapefruit" if fine == "grape" else "Nothing"
        )

    found = ask(run, misleads)
    table = found.frame().set_index(["level", "by"])
    assert table.loc[("fine", "substring"), "accuracy"] == pytest.approx(1 / 6)
    assert table.loc[("fine", "words"), "accuracy"] == 0
    assert table.loc[("fine", "substring"), "false_positives"] == 3
    assert table.loc[("coarse", "substring"), "false_positives"] == 6
    names = found.substrings().set_index("level")
    assert names.loc["fine", "found"] == 6  # grape and grapefruit, in three answers
    assert names.loc["fine", "false"] == 3
    assert names.loc["coarse", "false"] == 6


def test_the_substring_rule_misses_plurals_and_hyphens(run):
    found = ask(run, lambda *_: Reply("Bell-Peppers"))
    table = found.frame().set_index(["level", "by"])
    assert table.loc[("fine", "words"), "accuracy"] == pytest.approx(1 / 6)
    assert table.loc[("fine", "substring"), "accuracy"] == 0
    assert table.loc[("fine", "substring"), "false_negatives"] == 3


def test_a_kind_may_be_named_by_any_class_of_it(run):
    other = {"anjou pear": "kaiser pear", "kaiser pear": "anjou pear"}
    found = ask(run, lambda _, row: Reply(other.get(run.images["fine"][row], "?")))
    accuracy = found.frame().query("by == 'words'").set_index("level")["accuracy"]
    assert accuracy["coarse"] == pytest.approx(1 / 3)
    assert accuracy["fine"] == 0


def test_the_kind_is_told_where_look_alikes_are_asked(run):
    prompts = ask(run, says(run, "fine")).table.set_index("level")["prompt"]
    assert set(prompts["fine|coarse"]) == {
        f"Which {kind} exactly is this?" for kind in ("pear", "berry", "pepper")
    }
    assert set(prompts["fine"]) == {"What is this?"}


def test_the_users_synonyms_count(run):
    found = ask(run, lambda *_: Reply("a paprika"), synonyms={"bell pepper": ["paprika"]})
    assert found.frame().query("by == 'words'").set_index("level")["accuracy"]["fine"] == pytest.approx(1 / 6)


def test_wordings_are_swept_and_their_spread_is_told(run):
    def knows_one(question: Question, row: int) -> Reply:
        return Reply(run.images["fine"][row] if question.text == "What is this?" else "no idea")

    found = ask(run, knows_one, wordings=2)
    table = found.frame().set_index(["level", "by"])
    assert table.loc[("fine", "words"), "accuracy"] == 0.5
    assert table.loc[("fine", "words"), "between_wordings"] == pytest.approx(np.std([0, 1], ddof=1))
    assert found.sweep().query("level == 'fine' and by == 'words'")["accuracy"].tolist() == [1, 0]


def test_it_is_read_back_and_lies_along_the_test_images(run):
    found = ask(run, says(run, "fine"), sample=6)
    assert FreeText.read(run).json() == found.json()
    labels = Labels.of(run)
    right = found.correct(labels.test, "fine|coarse")
    assert np.isnan(right).sum() == len(labels.test) - 6
    assert np.nansum(right) == 6


def test_examples_name_the_class(run):
    def checks(question: Question, row: int) -> Reply:
        (example,) = question.examples
        shown = run.images.iloc[example.picture().width - 1]
        assert example.answer in (shown["fine"], shown["coarse"])
        assert shown["split"] == "train"
        return Reply(run.images["fine"][row])

    assert (ask(run, checks, examples=1).grain()["fine"] == 1).all()


def test_figures_draw_what_there_is(run):
    found = ask(run, says(run, "coarse"))
    assert len(found.figure().data) == 6
    assert len(found.accuracy_figure().data) == 2
