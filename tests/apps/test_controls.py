"""Near-duplicates, the randomly initialised twin and the blind answer, as they are typed and printed."""

import json
from pathlib import Path

import pytest
from fgdiag_cli import diagnose as steps

from tests.apps.conftest import Fgdiag
from tests.fgdiag.test_duplicates import brightened, save, scene


def manifest(run: Path) -> dict:
    return json.loads((run / "run.json").read_text())


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a model fails, and so does comparing images."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("done again")

    monkeypatch.setattr(steps, "open_model", refuse)
    monkeypatch.setattr(steps, "near_duplicates", refuse)


@pytest.fixture
def leaking(tmp_path: Path) -> Path:
    """Splits of their own; one test image is a training image, brightened."""
    folder = tmp_path / "trees"
    for place, (split, fine) in enumerate((s, f) for s in ("train", "test") for f in ("ash", "oak")):
        for index in range(4):
            save(scene(10 * place + index), folder / split / fine / f"{index}.jpg")
    save(brightened(scene(1)), folder / "test" / "ash" / "again.jpg")
    return folder


def test_a_leak_is_named_and_can_be_closed(fgdiag: Fgdiag, leaking: Path, tmp_path: Path):
    asked = ["extract", "tiny-llava", str(leaking), "--device", "cpu"]
    told = (
        "  note: near-duplicates in training and test (1), such as test/ash/again.jpg and train/ash/1.jpg\n"
        "  --group-duplicates keeps them on one side, in a new run\n"
    )
    leaky, closed = str(tmp_path / "leaky"), str(tmp_path / "closed")
    assert told in fgdiag(*asked, "-o", leaky).err

    other = fgdiag(*asked, "-o", leaky, "--group-duplicates")
    assert other.code == 1
    assert "was recorded with images trees (17, digest " in other.told

    ended = fgdiag(*asked, "-o", closed, "--group-duplicates")
    assert ended.code == 0
    assert "in training and test" not in ended.err
    assert (
        "  note: training images excluded as near-duplicates of test images (1), such as train/ash/1.jpg "
        "(of test/ash/again.jpg)"
    ) in ended.err
    assert fgdiag("answer", closed).code == 0


def test_a_finished_run_names_its_leak_again_from_what_it_kept(
    fgdiag: Fgdiag, leaking: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    asked = ["extract", "tiny-llava", str(leaking), "-o", str(tmp_path / "run"), "--device", "cpu"]
    first = fgdiag(*asked).err
    request.getfixturevalue("no_model")
    again = fgdiag(*asked)
    assert again.code == 0
    for words in ("near-duplicates in training and test (1)", "--group-duplicates"):
        assert first.count(words) == again.err.count(words) == 1


def test_the_twin_is_recorded_and_answered_as_itself(
    fgdiag: Fgdiag, tmp_path: Path, request: pytest.FixtureRequest
):
    run = tmp_path / "twin"
    asked = ["extract", "tiny-llava", "birds", "-o", str(run), "--seed", "5", "--device", "cpu"]
    assert fgdiag(*asked, "--random-weights").code == 0
    assert manifest(run)["model"] == "tiny-llava with random weights (seed 5)"
    assert fgdiag("answer", str(run)).code == 0
    taken = fgdiag(*asked)
    assert taken.code == 1
    assert "with model tiny-llava with random weights (seed 5), not tiny-llava." in taken.told
    request.getfixturevalue("no_model")
    assert fgdiag(*asked, "--random-weights").code == 0


def test_a_run_of_the_model_is_not_taken_for_one_of_its_twin(fgdiag: Fgdiag):
    ended = fgdiag("extract", "tiny-llava", "birds", "-o", "runs/birds", "--random-weights")
    assert ended.code == 1
    assert "with model tiny-llava, not tiny-llava with random weights (seed 0)." in ended.told


def test_answer_prints_the_controls(fgdiag: Fgdiag, bench: Path):
    shown = fgdiag("answer", "runs/birds").out.splitlines()
    assert " ".join(shown[2].split()) == "level accuracy mean per token prior-corrected without the image"
    printed = fgdiag("answer", "runs/birds", "--json").json()
    assert set(printed) >= {"images", "accuracy", "mean", "corrected", "blind", "weights"}
    assert set(printed["blind"]) == set(printed["accuracy"])
    assert set(json.loads((bench / "runs/birds/results/blind.json").read_text())) == {"scores", "skipped"}
