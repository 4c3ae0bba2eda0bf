"""Two runs whose answers in words are known: one always right, one right for some classes."""

from typing import Any

import numpy as np
import pytest
from fgdiag_probes.asking import Reply
from fgdiag_probes.comparable import Side, common_tests
from fgdiag_probes.compare import compare
from fgdiag_probes.compare_words import differences_in_words
from fgdiag_probes.free_text import free_text
from fgdiag_probes.multiple_choice import multiple_choice

from fgdiag.prompts import spoken
from tests.probes.respondents import Pictures, Scripted, letter, options_in

SHAPE = {
    "kinds": 4,
    "per_kind": 3,
    "train": 4,
    "test": 3,
    "sites": ("vision", "projector"),
    "readouts": ("image",),
}
SHARE = 0.5
"""Of the classes that the weaker one knows."""


def knows(run, known) -> Scripted:
    """One who knows some classes, chooses the first option for others, and says nothing of them."""

    def answer(question, row: int) -> Reply:
        fine, coarse = run.images["fine"][row], run.images["coarse"][row]
        options = options_in(question)
        if not options:
            return Reply(spoken(fine) if fine in known else "No idea.")
        right = next(name for name in (fine, coarse) if name in options)
        return letter(question, options[right] if fine in known else "A")

    return Scripted(answer)


@pytest.fixture
def sides(planted) -> list[Side]:
    pictures: Any = Pictures()
    found = []
    for name, share in (("sure", 1.0), ("half", SHARE)):
        run = planted(**SHAPE, answer_kept=None)
        run.manifest["seed"] = 0
        names = np.unique(run.images["fine"])
        who = knows(run, set(names[: round(share * len(names))]))
        multiple_choice(run, who, pictures, distractors="random")
        free_text(run, who, pictures)
        found.append(Side.of(run, name))
    return found


def test_differences_are_those_of_the_classes_that_one_does_not_know(sides: list[Side]):
    found = differences_in_words(sides, common_tests(sides)).set_index(["level", "way"])
    said = found.loc[("fine", "free text")]
    assert (said["accuracy_first"], said["accuracy"], said["difference"]) == (1.0, 0.5, -50.0)
    assert said["low"] < -50 < said["high"] < 0
    assert said["significant"]
    assert said["images"] == 36
    chosen = found.loc[("fine", "multiple choice")]
    # The unknowing half chooses A, which is right in one of five orders.
    assert chosen["difference"] == pytest.approx(-100 * (1 - SHARE) * (1 - 1 / 5))


def test_only_questions_that_both_were_asked_count(sides: list[Side]):
    sure, half = sides
    table = half.run.read_table("free_text")
    half.run.write_table("free_text", table[table["level"] == "fine"].iloc[:10])
    found = differences_in_words(sides, common_tests(sides)).query("way == 'free text'")
    assert found["level"].tolist() == ["fine"]
    assert found["images"].tolist() == [10]
    half.run.result_path("free_text.parquet").unlink()
    ways = differences_in_words(sides, common_tests(sides))["way"]
    assert set(ways) == {"multiple choice"}
    half.run.write_table("choices", half.run.read_table("choices").assign(prompt="Something else?"))
    assert differences_in_words([sure, half], common_tests(sides)).empty


def test_it_is_part_of_a_comparison(sides: list[Side]):
    found = compare(sides)
    assert set(found.words["way"]) == {"multiple choice", "free text"}
    assert {row["run"] for row in found.json()["words"]} == {"half"}
