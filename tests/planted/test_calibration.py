"""Planted damage is named, harmless changes are not, and the model's own bottleneck does not disturb."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fgdiag_cli import calibrate as command
from fgdiag_cli.calibrate import print_calibration
from fgdiag_cli.main import app
from fgdiag_probes import bench as bench_room
from fgdiag_probes.calibration import Calibration, calibrate, draw
from fgdiag_probes.extra_loss import STAGES, judge_extra
from typer.testing import CliRunner

from fgdiag.extraction import extract
from tests.planted.conftest import Bench

CLASSES, A_CLASS = 30, 10


def answers(*accuracies: float) -> np.ndarray:
    """(stages, images): an image is right up to some depth, so that drops are paired as in a real model."""
    luck = np.random.default_rng(0).permutation(CLASSES * A_CLASS) / (CLASSES * A_CLASS)
    return np.stack([(luck < accuracy).astype(float) for accuracy in accuracies])


CLUSTERS = np.repeat(np.arange(CLASSES), A_CLASS)
OWN_BOTTLENECK = (0.9, 0.5, 0.45, 0.4)


@pytest.mark.parametrize(
    ("damaged", "stage"),
    [
        ((0.6, 0.4, 0.35, 0.3), "vision encoder"),
        ((0.9, 0.25, 0.25, 0.22), "projector"),
        ((0.9, 0.5, 0.2, 0.2), "language model"),
        ((0.9, 0.5, 0.45, 0.2), "answer"),
        ((0.9, 0.5, 0.45, 0.4), "none"),
        ((0.9, 0.5, 0.5, 0.5), "none"),
    ],
)
def test_the_extra_loss_is_named_whatever_the_models_own_bottleneck(damaged: tuple[float, ...], stage: str):
    named, extra = judge_extra(answers(*OWN_BOTTLENECK), answers(*damaged), CLUSTERS)
    assert named == stage
    if stage != "none":
        planted = STAGES.index(named)  # pyright: ignore[reportArgumentType]
        fallen = [a - b for a, b in zip(OWN_BOTTLENECK, damaged, strict=True)]
        expected = 100 * (fallen[planted] - (fallen[planted - 1] if planted else 0))
        assert extra.mean[planted] == pytest.approx(expected, abs=0.5)
        assert extra.low[planted] < expected < extra.high[planted]


def test_luck_is_seldom_named():
    """Two runs that differ by chance alone: at most 5 % are named, up to the luck of 200 draws."""
    rng, alarms = np.random.default_rng(1), 0
    for _ in range(200):
        one, other = rng.random((2, 4, len(CLUSTERS))) < 0.5
        named, _ = judge_extra(one.astype(float), other.astype(float), CLUSTERS)
        alarms += named != "none"
    assert alarms <= 17  # the 97.5 % point of a binomial of 200 at 5 %


def test_a_sample_is_drawn_by_its_seed(bench: Bench):
    one, again, other = (draw(bench.images, classes=5, per_class=3, seed=seed).table for seed in (1, 1, 2))
    assert one.equals(again)
    assert list(one["source"]) != list(other["source"])
    assert set(one.groupby(["fine", "split"]).size()) == {3}
    assert len(set(one["fine"])) == 5
    assert len(set(one["coarse"])) == 2  # whole kinds of four classes while they fit
    assert len(draw(bench.images, classes=99, per_class=99, seed=0)) == len(bench.images)


def test_training_images_can_be_drawn_anew(bench: Bench):
    one, other = (
        draw(bench.images, classes=9, per_class=3, seed=1, redrawn=redrawn).table for redrawn in (0, 1)
    )
    assert list(one[one["split"] == "test"]["source"]) == list(other[other["split"] == "test"]["source"])
    assert list(one[one["split"] == "train"]["source"]) != list(other[other["split"] == "train"]["source"])


@pytest.fixture(scope="module")
def found(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Calibration]:
    out = tmp_path_factory.mktemp("calibration")
    return out, calibrate(bench.vlm, bench.images, out, seeds=1, per_class=5, quick=True)


def test_planted_damage_is_named(found: tuple[Path, Calibration]):
    rows = {row.fault: row for row in found[1].rows}
    for fault in ("encoder blinded", "projector cut to rank", "noise", "classes erased from"):
        assert rows[fault].counts, rows[fault]
        assert rows[fault].right, rows[fault]
    for fault in ("noise", "classes erased from"):
        assert rows[fault].near, rows[fault]


def test_nothing_harmless_is_named(found: tuple[Path, Calibration]):
    harmless = [row for row in found[1].rows if row.stage == "none"]
    assert len(harmless) == 6
    assert [row.named for row in harmless] == ["none"] * 6


def test_a_random_model_has_no_answers_to_lose(found: tuple[Path, Calibration]):
    """Its answers are at chance, so damage there costs too little to count."""
    answering = [row for row in found[1].rows if row.stage == "answer"]
    assert len(answering) == 2
    assert not any(row.counts for row in answering)


def test_the_counts_are_those_of_the_rows(
    found: tuple[Path, Calibration], capsys: pytest.CaptureFixture[str]
):
    out, result = found
    counts = result.json()
    assert json.loads((out / "calibration.json").read_text()) == json.loads(json.dumps(counts))
    assert (counts["cases"], counts["named"]) == (4, 4)
    assert (counts["harmless"], counts["false_alarms"]) == (6, 0)
    assert counts["named_interval"] == pytest.approx([0.025 ** (1 / 4), 1.0])
    table = result.frame()
    assert sum(table["runs"]) == len(result.rows) == len(counts["rows"])
    print_calibration(result)
    assert "Named rightly: 4 of 4" in capsys.readouterr().out


def test_a_finished_case_is_not_done_again(
    bench: Bench, found: tuple[Path, Calibration], monkeypatch: pytest.MonkeyPatch
):
    out, before = found
    monkeypatch.setattr(bench_room, "name_likelihood", None)
    marks = {path: path.stat().st_mtime_ns for path in out.rglob("blocks/*.json")}
    again = calibrate(bench.vlm, bench.images, out, seeds=1, per_class=5, quick=True)
    assert again == before
    assert {path: path.stat().st_mtime_ns for path in out.rglob("blocks/*.json")} == marks


def test_the_model_is_as_it_was(bench: Bench, found: tuple[Path, Calibration]):
    again = extract(bench.vlm, bench.images, found[0] / "again", readouts=("last",), sites=["llm.norm"])
    np.testing.assert_array_equal(
        again.activations("llm.norm", "last"), bench.run.activations("llm.norm", "last")
    )


def test_the_command_hands_its_options_on_and_prints(
    found: tuple[Path, Calibration], monkeypatch: pytest.MonkeyPatch
):
    asked: dict[str, Any] = {}

    def calibrated(model: str, images: str, out: Path, **options: Any) -> Calibration:
        asked.update(options, model=model, images=images, out=out)
        return found[1]

    monkeypatch.setattr(command, "calibrate", calibrated)
    words = ["calibrate", "MODEL", "IMAGES", "-o", "OUT", "--classes", "9", "--per-class", "5"]
    words += ["--seeds", "2", "--quick"]
    printed = CliRunner().invoke(app, [*words, "--json"])
    assert printed.exit_code == 0, printed.stderr
    assert json.loads(printed.stdout) == json.loads(json.dumps(found[1].json()))
    asked.pop("opening")
    assert asked == {
        "model": "MODEL",
        "images": "IMAGES",
        "out": Path("OUT"),
        "classes": 9,
        "per_class": 5,
        "seeds": 2,
        "quick": True,
    }
    assert "False alarms: 0 of 6" in CliRunner().invoke(app, words).stdout
