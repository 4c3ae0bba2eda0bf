"""What is lost in words is known beforehand: they are made from the likelihoods, and spoilt for a known share."""

import numpy as np
import pandas as pd
import pytest
from fgdiag_probes.answered import read_answers
from fgdiag_probes.answers import METHOD
from fgdiag_probes.labels import Labels
from fgdiag_probes.words import _linked, steps_to_words

from fgdiag.store import Run

OPTIONS = 4


@pytest.fixture
def asked(planted):
    """A run whose model chooses by its likelihood, but for a share of the images says the next option or class."""

    def ask(spoilt: float) -> tuple[Run, Labels]:
        run = planted(sites=("vision", "llm.norm"), readouts=("image",), answer_kept=0.6)
        labels = Labels.of(run)
        test, names = labels.test, labels.fine_names
        rng = np.random.default_rng(0)
        scores = rng.normal(size=(len(test), len(names)))
        right = labels.fine[test]
        scores[np.arange(len(test)), right] += 2.0
        kept = pd.DataFrame(scores, columns=[f"fine: {name}" for name in names])
        kept.insert(0, "row", test)
        kept.to_parquet(run.result_path(f"answers/{METHOD}/test-000000.parquet"))
        answers = run.read_table("answers").set_index("row").loc[test].reset_index()
        answers["said_fine"] = names[scores.argmax(1)]
        run.write_table("answers", answers)
        spoil = rng.permutation(len(test)) < spoilt * len(test)
        _write_choices(run, labels, scores, spoil)
        _write_text(run, labels, np.where(spoil, (scores.argmax(1) + 1) % len(names), scores.argmax(1)))
        return run, labels

    return ask


def _write_choices(run: Run, labels: Labels, scores: np.ndarray, spoil: np.ndarray) -> None:
    rows = []
    for at, row in enumerate(labels.test):
        truth = labels.fine[row]
        offered = (truth + np.arange(OPTIONS)) % len(labels.fine_names)
        logs = scores[at, offered]
        logs = np.roll(logs, 1) if spoil[at] else logs
        names = [str(labels.fine_names[code]) for code in offered]
        about = {"row": row, "fine": labels.fine_names[truth], "level": "fine", "wording": 0, "order": 0}
        said = int(logs.argmax())
        rows.append(
            {
                **about,
                "options": names,
                "right": 0,
                "letters": list(logs),
                "by_letters": said,
                "by_text": said,
            }
        )
    run.write_table("choices", pd.DataFrame(rows))
    run.write_json("choices", {"asked": {"respondent": "it", "distractors": "next", "tested": len(rows)}})


def _write_text(run: Run, labels: Labels, said: np.ndarray) -> None:
    rows = labels.test
    words = said == labels.fine[rows]
    fine = labels.fine_names[labels.fine[rows]]
    table = pd.DataFrame(
        {"row": rows, "fine": fine, "level": "fine", "wording": 0, "words": words, "substring": words}
    )
    run.write_table("free_text", table)
    run.write_json("free_text", {"asked": {"respondent": "it", "tested": len(rows)}})


def steps(run: Run, labels: Labels) -> pd.DataFrame:
    answers = read_answers(run, labels)
    assert answers
    return steps_to_words(run, labels, answers).set_index("way")


def test_words_that_follow_the_likelihood_lose_nothing(asked) -> None:
    table = steps(*asked(0.0))
    assert list(table.index) == ["multiple choice", "free text"]
    assert list(table["drop"]) == [0.0, 0.0]
    assert not any(table["significant"])
    assert table.loc["multiple choice", "drop_bits"] == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(table["linked"].to_numpy(float), table.loc["free text", "accuracy"])


def test_the_loss_is_that_of_the_same_question(asked) -> None:
    run, labels = asked(0.5)
    table = steps(run, labels)
    choice = table.loc["multiple choice"]
    chosen = run.read_table("choices")
    likeliest = [np.argmax(np.roll(logs, 0)) == 0 for logs in chosen["letters"]]
    assert choice["accuracy"] == pytest.approx(np.mean(likeliest))
    assert choice["drop"] == pytest.approx(100 * (choice["by_likelihood"] - choice["accuracy"]))
    assert choice["chance"] == 1 / OPTIONS
    assert all(table["significant"])
    assert all(table["low"].to_numpy(float) > 0)
    text = table.loc["free text"]
    assert text["linked"] == pytest.approx(text["accuracy"])
    assert text["accuracy"] == pytest.approx(text["by_likelihood"] / 2, abs=0.05)


def test_a_share_that_is_kept_beyond_chance_is_kept_on_the_scale() -> None:
    assert _linked(0.6, 0.8, 0.2, 0.45, 0.05) == pytest.approx(0.05 + (2 / 3) * 0.4)
    assert _linked(0.1, 0.8, 0.2, 0.45, 0.05) == pytest.approx(0.05)
    assert np.isnan(_linked(0.2, 0.2, 0.2, 0.45, 0.05))


def test_nothing_asked_is_no_step(planted) -> None:
    run = planted(sites=("vision", "llm.norm"), readouts=("image",))
    assert len(steps(run, Labels.of(run))) == 0
