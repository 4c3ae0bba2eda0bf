"""What each command does and prints, from the first to the last step."""

import json
import shutil
from html import unescape
from pathlib import Path

import pytest
import typer
from fgdiag_cli import diagnose as steps
from fgdiag_cli.main import app
from fgdiag_probes.curves import key_of
from fgdiag_probes.style import percent

import fgdiag as library
from tests.apps.conftest import Ended, Fgdiag

STAGES = {"vision encoder", "projector", "language model", "answer", "none"}
COMMANDS = typer.main.get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]


def verdict(run: Path) -> dict:
    return json.loads((run / "results" / "verdict.json").read_text(encoding="utf-8"))


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a model fails."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was opened")

    monkeypatch.setattr(steps, "open_model", refuse)


def test_diagnose_writes_verdict_and_report(bench: Path):
    run = bench / "runs" / "birds"
    found = verdict(run)
    assert found["stage"] in STAGES
    assert found["sentence"].endswith(".")
    for step in found["budget"]:
        assert {"from", "to", "level", "drop", "low", "high", "significant"} <= set(step)
        assert step["low"] <= step["drop"] <= step["high"]
    assert {step["level"] for step in found["budget"]} == {"fine|coarse", "fine", "coarse"}
    report = unescape((run / "report.html").read_text(encoding="utf-8"))
    assert found["sentence"].replace(" %", "\N{NO-BREAK SPACE}%") in report
    assert "fgdiag diagnose tiny-llava birds -o runs/birds" in report


def test_a_second_diagnose_gives_the_same_verdict_without_a_model(fgdiag: Fgdiag, bench: Path, no_model):
    before = verdict(bench / "runs" / "birds")
    ended = fgdiag("diagnose", str(bench / "tiny-llava"), str(bench / "birds"), "-o", "runs/birds")
    assert ended.code == 0
    assert ended.out == f"{before['sentence']}\n\nreport: runs/birds/report.html\n"
    assert verdict(bench / "runs" / "birds") == before


def test_diagnose_can_print_json(fgdiag: Fgdiag, bench: Path, no_model):
    printed = fgdiag("diagnose", "tiny-llava", "birds", "-o", "runs/birds", "--json").json()
    assert printed["verdict"]["stage"] == verdict(bench / "runs" / "birds")["stage"]
    assert (bench / printed["report"]).is_file()
    assert printed["run"] == "runs/birds"


def test_the_steps_one_by_one_give_the_same_verdict(
    fgdiag: Fgdiag, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = str(tmp_path / "run")
    ended = fgdiag("extract", "tiny-llava", "birds", "-o", run)
    assert (ended.code, ended.out) == (0, f"40 images at 8 sites in {run}\n")
    monkeypatch.chdir(tmp_path)  # the run knows where its model and images are
    for step in (["probe"], ["answer", "--ask", "likelihood,text"], ["report"]):
        ended = fgdiag(*step, run)
        assert ended.code == 0, ended.err
    assert ended.out == f"{run}/report.html\n"
    assert verdict(Path(run)) == verdict(bench / "runs" / "birds")


def test_extract_can_print_json(fgdiag: Fgdiag):
    printed = fgdiag("extract", "tiny-llava", "birds", "-o", "runs/birds", "--json").json()
    assert printed["images"] == 40
    assert printed["sites"] == [
        "pixels",
        "vision",
        "projector",
        "llm.0",
        "llm.1",
        "llm.2",
        "llm.3",
        "llm.norm",
    ]


def test_probe_prints_a_row_a_readout_and_the_control(fgdiag: Fgdiag, no_model):
    ended = fgdiag("probe", "runs/birds")
    assert [line.split()[:2] for line in ended.out.splitlines() if line.startswith(" llm.3")] == [
        ["llm.3", "image"],
        ["llm.3", "last"],
        ["llm.3", "pre"],
        ["llm.3", "attn"],
    ]
    assert "fine, look-alikes (chance" in ended.out
    before_the_image, shuffled = ended.out.splitlines()[-2:]
    assert before_the_image.startswith("Control: As it must be: at llm.")
    assert shuffled.startswith("Control: As it must be: taught shuffled labels, ")


def test_probe_looks_closer_at_each_depth(fgdiag: Fgdiag, no_model):
    printed = fgdiag("probe", "runs/birds", "--json").json()
    assert set(printed) == {"curves", "control", "images", "evidence"}
    readers = printed["evidence"]["readers"]
    shown = fgdiag("probe", "runs/birds").out.partition("A closer look at the depths")[2].splitlines()
    rows = [line for line in shown if line.startswith((" fine, look-alikes ", " fine, all ", " coarse "))]
    assert len(rows) == len(readers) == 3 * 4
    selectivity = {
        (row["site"], row["readout"]): row["selectivity"]
        for row in printed["curves"]
        if row["level"] == "coarse"
    }
    for line, row in zip(rows, readers, strict=True):
        assert f" {row['site']}, {row['readout']} " in line
        assert f" {percent(row['network'])} " in line
        assert f" {row['codelength']:.2f} of {row['uniform']:.2f}" in line
        if row["level"] == "coarse":
            assert line.split()[-1] == f"{100 * selectivity[row['site'], row['readout']]:.0f}"


def test_probe_and_report_share_the_seed_of_the_run(
    fgdiag: Fgdiag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = ("extract", "tiny-llava", "birds", "-o", str(tmp_path / "run"), "--seed", "3", "--tokens", "none")
    assert fgdiag(*asked, "--sites", "vision,projector,llm.norm").code == 0
    assert fgdiag("probe", str(tmp_path / "run")).code == 0
    run = library.Run.open(tmp_path / "run")
    kept = json.loads(run.result_path("evidence/vision.image.json").read_text())["key"]
    assert kept.endswith(key_of(run, 3))
    monkeypatch.setattr("fgdiag_probes.reading.read", None)
    assert fgdiag("report", str(tmp_path / "run")).code == 0
    assert json.loads(run.result_path("evidence/vision.image.json").read_text())["key"] == kept


def test_tokens_that_are_there_are_not_recorded_again(fgdiag: Fgdiag, no_model):
    asked = ("extract", "tiny-llava", "birds", "-o", "runs/birds", "--tokens", "llm.1,vision,llm.3,projector")
    assert fgdiag(*asked).code == 0


def test_the_demo_keeps_tokens(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("fgdiag.fieldguide.write_fieldguide", lambda out, **_: out)
    monkeypatch.setattr(steps, "diagnose", lambda request: request)
    monkeypatch.setattr(steps, "_map", lambda run: None)
    monkeypatch.setattr(steps.Run, "open", lambda path: path)
    request = steps.demo("fgdiag demo")
    assert isinstance(request, steps.Request)
    assert request.recording == {"tokens": "auto"}


def test_answers_are_given_once(fgdiag: Fgdiag, no_model):
    ended = fgdiag("answer", "runs/birds", "--ask", "likelihood,text")
    assert "fine class among look-alikes" in ended.out
    assert set(fgdiag("answer", "runs/birds", "--ask", "likelihood,text", "--json").json()["accuracy"]) == {
        "fine",
        "coarse",
        "fine|coarse",
    }


def test_a_run_made_in_python_can_be_answered_on_the_command_line(
    fgdiag: Fgdiag, bench: Path, tmp_path: Path
):
    vlm = library.open_vlm(bench / "tiny-llava", device="cpu")
    run = library.extract(vlm, library.open_images(bench / "birds"), tmp_path / "run", sites=["llm.norm"])
    assert fgdiag("answer", str(run.path)).code == 0
    assert run.result_path("answers.parquet").exists()


def test_report_can_print_json(fgdiag: Fgdiag, no_model):
    assert fgdiag("report", "runs/birds", "--json").json() == {
        "report": "runs/birds/report.html",
        "run": "runs/birds",
    }


def test_inspect_shows_sites_parts_and_sizes(fgdiag: Fgdiag):
    shown = fgdiag("inspect", "tiny-llava")
    assert shown.out.startswith("tiny-llava: LLaVA (llava), float32 on ")
    for words in ("vision.2 ", "projector ", "llm.norm ", "language model ", "Image tokens: 16"):
        assert words in shown.out
    assert shown.err.startswith("opening tiny-llava\n")
    found = fgdiag("inspect", "tiny-llava", "--json").json()
    widths = {site["site"]: site["width"] for site in found["sites"]}
    assert (widths["vision"], widths["projector"], widths["llm.3"]) == (32, 48, 48)
    assert found["image_tokens"] == 16
    for part in found["parts"].values():
        assert part["bytes"] == 4 * part["parameters"] > 0


def test_families_lists_what_is_proven(fgdiag: Fgdiag):
    listed = fgdiag("families", "--json").json()
    assert {"family", "model_type", "sites", "proven_by"} <= set(listed[0])
    shown = fgdiag("families").out
    for family in listed:
        assert family["family"] in shown


def test_images_that_cannot_be_read_are_left_out_and_named(fgdiag: Fgdiag, bench: Path, tmp_path: Path):
    images = shutil.copytree(bench / "birds", tmp_path / "birds")
    (images / "owl" / "barn owl" / "0.png").write_bytes(b"no image")
    cut = images / "owl" / "eagle-owl" / "1.png"
    cut.write_bytes(cut.read_bytes()[:300])
    (images / "owl" / "only one").mkdir()
    shutil.copy(images / "warbler" / "wood warbler" / "0.png", images / "owl" / "only one" / "0.png")
    ended = fgdiag("extract", "tiny-llava", str(images), "-o", str(tmp_path / "run"))
    assert ended.code == 0
    assert "  1 unreadable, such as owl/barn owl/0.png: " in ended.err
    assert "  1 more cannot be read, such as owl/eagle-owl/1.png: truncated" in ended.err
    assert "  note: 1 class is excluded: only one (a single readable image)" in ended.err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_explains_every_option(fgdiag: Fgdiag, command: str):
    ended = fgdiag(*command.split(), "--help")
    assert ended.code == 0
    assert ended.err == ""
    assert f"Usage: fgdiag {command}".strip() in ended.out
    if command:
        assert all(option.help for option in COMMANDS[command].params)
    if command not in ("demo", "families"):
        assert f"  fgdiag {command}" in ended.out, "no example"


def test_version(fgdiag: Fgdiag):
    assert fgdiag("--version") == Ended(0, f"fgdiag {library.__version__}\n", "")


def test_shells_complete_commands_and_options(
    fgdiag: Fgdiag, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    assert {"--install-completion", "--show-completion"} <= set(fgdiag("--help").out.split())
    monkeypatch.setenv("_FGDIAG_COMPLETE", "complete_bash")
    for typed, completed in (
        ("fgdiag dia", ["diagnose"]),
        ("fgdiag diagnose m i --read", ["--readouts"]),
        ("fgdiag diagnose m i --dtype b", ["bfloat16"]),
    ):
        monkeypatch.setenv("COMP_WORDS", typed)
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
        with pytest.raises(SystemExit):
            app(prog_name="fgdiag")
        assert capsys.readouterr().out.split() == completed
