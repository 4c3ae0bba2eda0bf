"""Multiple choice, asked of those whose answers are known: who knows, who does not, and who likes a place."""

from typing import Any

import numpy as np
import pytest
from fgdiag_probes.asking import Question, Reply
from fgdiag_probes.choices import chosen_in
from fgdiag_probes.labels import Labels
from fgdiag_probes.multiple_choice import MultipleChoice, multiple_choice

from tests.probes.respondents import Pictures, Scripted, letter, options_in


@pytest.fixture
def run(planted):
    return planted(kinds=4, per_kind=3, train=4, test=3, answer_kept=None)


def ask(run, answer, **how) -> Any:
    respondent = answer if isinstance(answer, Scripted) else Scripted(answer)
    return multiple_choice(run, respondent, Pictures(), **{"distractors": "random", **how})  # pyright: ignore[reportArgumentType]


def truth(run, question: Question, row: int) -> str:
    shown = options_in(question)
    return next(name for name in (run.images["fine"][row], run.images["coarse"][row]) if name in shown)


def knows(run):
    return lambda question, row: letter(question, options_in(question)[truth(run, question, row)])


def test_one_that_knows_is_right_everywhere(run):
    found = ask(run, knows(run))
    table = found.frame()
    assert (table["accuracy"] == 1).all()
    assert table["low"].min() > 0.8
    chances = dict(zip(table["level"], table["chance"], strict=True))
    assert chances == pytest.approx({"fine|coarse": 1 / 3, "fine": 1 / 5, "coarse": 1 / 4})
    places = found.positions()
    for _, rows in places.groupby(["level", "by"]):
        np.testing.assert_allclose(rows["chosen"], 1 / len(rows))
        np.testing.assert_allclose(rows["difference"], 0)
    assert (found.differences()["difference"] == 0).all()
    assert (table["between_orders"].dropna() == 0).all()


def test_one_that_always_says_b_is_at_chance_and_found_out(run):
    found = ask(run, lambda question, _: letter(question, "B"))
    for row in found.frame().to_dict("records"):
        if row["by"] != "rotated":
            assert row["accuracy"] == pytest.approx(row["chance"])
    places = found.positions().set_index(["level", "by", "position"])
    assert places.loc[("fine", "letters", "B"), "chosen"] == 1
    assert places.loc[("fine", "text", "B"), "accuracy"] == 1
    assert places.loc[("fine", "text", "A"), "accuracy"] == 0
    assert places.loc[("fine", "text", "B"), "difference"] == pytest.approx(80)
    assert places.loc[("fine", "text", "B"), "p_value"] < 0.001
    prior = np.exp(2) / (np.exp(2) + 4)
    assert places.loc[("fine", "letters", "B"), "prior"] == pytest.approx(prior)


def test_orders_together_undo_a_liking_for_a_place(run):
    """It likes A by 3 nats, and knows the class, but only by 1."""

    def likes_a(question: Question, row: int) -> Reply:
        known = options_in(question)[truth(run, question, row)]
        logs = tuple(3.0 * (one == "A") + 1.0 * (one == known) for one in question.letters)
        return Reply("A", logs)

    found = ask(run, likes_a)
    accuracy = found.frame().set_index(["level", "by"])["accuracy"]
    assert accuracy["fine", "letters"] == pytest.approx(1 / 5)
    assert accuracy["fine", "rotated"] == 1
    differences = found.differences().set_index(["level", "of"])
    assert differences.loc[("fine", "rotated"), "difference"] == pytest.approx(80)
    assert differences.loc[("fine", "rotated"), "low"] > 60
    assert found.frame().set_index(["level", "by"])["between_orders"]["fine", "letters"] >= 0


def test_the_right_one_stands_at_each_place_once(run):
    table = ask(run, knows(run)).table
    for (_, level), rows in table.groupby(["row", "level"]):
        assert sorted(rows["right"]) == list(range(len(rows)))
        for options, right, fine, coarse in zip(
            rows["options"], rows["right"], rows["fine"], rows["coarse"], strict=True
        ):
            assert options[right] == (coarse if level == "coarse" else fine)
            assert len(set(options)) == len(options)


def test_options_of_look_alikes_are_siblings_and_k_is_kept(run):
    table = ask(run, knows(run), options=2).table
    assert set(table["options"].map(len)) == {2}
    kind_of = dict(zip(run.images["fine"], run.images["coarse"], strict=True))
    alike = table[table["level"] == "fine|coarse"]
    for options, coarse in zip(alike["options"], alike["coarse"], strict=True):
        assert {kind_of[name] for name in options} == {coarse}


def test_texts_without_a_letter(run):
    def speaks(question: Question, row: int) -> Reply:
        return Reply(f"It is a {truth(run, question, row)}.")

    found = ask(run, speaks)
    assert found.ways == ["text"]
    assert (found.frame()["accuracy"] == 1).all()
    mute = ask(run, Scripted(lambda *_: Reply("I cannot say."), name="mute"))
    assert (mute.frame()["undecided"] == 1).all()
    assert (mute.frame()["accuracy"] == 0).all()


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("B", 1),
        (" b.", 1),
        ("(C)", 2),
        ("**A**", 0),
        ("B) eagle owl", 1),
        ("The answer is C", 2),
        ("The correct answer is: (B)", 1),
        ("Option A", 0),
        ("A tit", 2),
        ("Eagle-owls", 1),
        ("barn owl or tit", -1),
        ("E", -1),
        ("", -1),
        ("A bird", -1),
        ("A.\n\nB.\n\nC.", -1),
        ("B.\nEagle owl", 1),
        ("Answer: B", 1),
        ("**Answer:** B", 1),
        ("Answer: (B)", 1),
        ("Choice B", 1),
        ("It is B", 1),
        ("It's B.", 1),
        ("I would say B.", 1),
        ("It is A bird", -1),
        ("It is a tit", 2),
    ],
)
def test_which_option_a_text_chooses(text: str, position: int):
    assert chosen_in(text, ["Barn-Owl", "eagle owl", "Tit"]) == position


def test_wordings_are_swept_and_their_spread_is_told(run):
    def knows_one(question: Question, row: int) -> Reply:
        known = options_in(question)[truth(run, question, row)]
        return letter(question, known if question.text.startswith("What is this?") else "?")

    found = ask(run, knows_one, wordings=2)
    table = found.frame().set_index(["level", "by"])
    assert table.loc[("fine", "text"), "accuracy"] == pytest.approx(0.5)
    assert table.loc[("fine", "text"), "between_wordings"] == pytest.approx(np.std([0, 1], ddof=1))
    sweep = (
        found.sweep().query("by == 'text'").set_index(["level", "wording", "order"])["accuracy"].sort_index()
    )
    assert (sweep.loc["fine", 0] == 1).all()
    assert (sweep.loc["fine", 1] == 0).all()
    assert len(sweep.loc["fine"]) == 10


def test_examples_are_training_images_with_their_right_letter(run):
    fine = run.images["fine"]

    def checks(question: Question, row: int) -> Reply:
        assert len(question.examples) == 2
        for example in question.examples:
            shown = example.picture().width - 1
            assert run.images["split"][shown] == "train"
            of_letter = {
                mark: name for name, mark in options_in(Question(example.picture, example.text)).items()
            }
            assert of_letter[example.answer] in (fine[shown], run.images["coarse"][shown])
        return knows(run)(question, row)

    assert (ask(run, checks, examples=2).frame()["accuracy"] == 1).all()


def test_a_stop_costs_one_part_and_what_was_asked_is_not_asked_again(run, monkeypatch):
    monkeypatch.setattr("fgdiag_probes.kept_replies.QUESTIONS_A_PART", 40)
    stopped = Scripted(knows(run), stop_after=100)
    with pytest.raises(KeyboardInterrupt):
        ask(run, stopped)
    again = Scripted(knows(run))
    found = ask(run, again)
    assert again.asked == len(found.table) - 80
    idle = Scripted(knows(run))
    assert ask(run, idle).table.equals(found.table)
    assert idle.asked == 0
    other = Scripted(knows(run), name="another")
    ask(run, other)
    assert other.asked == len(found.table)


def test_one_who_keeps_replies_is_asked_again_for_what_it_did_not_keep(run):
    for _ in range(2):
        server = Scripted(knows(run), keeps_replies=True)
        found = ask(run, server)
        assert server.asked == len(found.table)
    assert not run.result_path("replies").exists()


def test_it_is_read_back_as_it_was_written(run):
    found = ask(run, knows(run))
    back = MultipleChoice.read(run)
    assert back.json() == found.json()
    assert back.json()["asked"]["distractors"] == "any classes, at random"


def test_a_sample_is_even_over_classes_and_part_of_a_larger_one(run):
    labels = Labels.of(run)
    few, more = Scripted(knows(run)), Scripted(knows(run))
    small = ask(run, few, sample=12)
    large = ask(run, more, sample=24)
    rows = set(small.table["row"])
    assert sorted(run.images["fine"][sorted(rows)]) == sorted(labels.fine_names)
    assert rows < set(large.table["row"])
    assert more.asked == len(large.table) - len(small.table)
    right = small.correct(labels.test, "fine")
    assert np.isnan(right).sum() == len(labels.test) - 12
    assert (right[~np.isnan(right)] == 1).all()


def test_it_is_deterministic(run, planted):
    twin = planted(kinds=4, per_kind=3, train=4, test=3, answer_kept=None)
    one, other = (ask(which, knows(which), distractors="text").table for which in (run, twin))
    assert one.equals(other)
    assert not ask(run, knows(run), distractors="text", seed=1).table["prompt"].equals(one["prompt"])


def test_image_distractors_default_to_raw_pixels(run):
    assert ask(run, knows(run), distractors="image").distractors.endswith("in raw pixels")


def test_figures_draw_what_there_is(run):
    found = ask(run, knows(run))
    assert [trace.name for trace in found.figure().data][-1] == "chance"
    assert len(found.position_figure().data) == 3


def test_kinds_of_different_size_have_their_own_chance_and_no_spread_of_orders(planted):
    """Kinds of two and of five: one who always chooses the second option of the alphabet has no liking for an order."""
    run = planted(kinds=2, per_kind=5, train=4, test=4, answer_kept=None)
    fine, coarse = (run.images[level].to_numpy(str) for level in ("fine", "coarse"))
    first = np.unique(coarse)[0]
    kept = (coarse != first) | np.isin(fine, np.unique(fine[coarse == first])[:2])
    run.images = run.images[kept].reset_index(drop=True)
    found = ask(run, lambda question, row: letter(question, sorted(options_in(question).items())[1][1]))
    table = found.frame().set_index(["level", "by"])
    images = found.per_image("fine|coarse", "text")
    assert table.loc[("fine|coarse", "text"), "chance"] == pytest.approx((8 / 2 + 20 / 5) / len(images))
    assert table.loc[("fine|coarse", "text"), "between_orders"] == 0
