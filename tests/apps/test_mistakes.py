"""What people mistype or lack: one line that says what was got, what was expected and what to do."""

import json
import shutil
from pathlib import Path

import pytest
from fgdiag_cli import diagnose as steps
from transformers import LlamaConfig, LlamaForCausalLM

from fgdiag.store import locked
from tests.apps.conftest import Ended, Fgdiag
from tests.fgdiag import tiny

PROCESSOR_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


@pytest.fixture(scope="module")
def desk(bench: Path) -> Path:
    """Puts what people get wrong beside the model, the images and the run."""
    words = tiny.tokenizer()
    LlamaForCausalLM(LlamaConfig(**tiny.text_sizes(words))).save_pretrained(bench / "text-only")
    words.save_pretrained(bench / "text-only")
    shutil.copytree(bench / "tiny-llava", bench / "no-processor")
    for name in PROCESSOR_FILES:
        (bench / "no-processor" / name).unlink()
    shutil.copytree(bench / "tiny-llava", bench / "cut-off")
    weights = bench / "cut-off" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    (bench / "empty").mkdir()
    (bench / "letters").mkdir()
    (bench / "letters" / "dear.txt").write_text("Dear")
    (bench / "notes.txt").write_text("birds")
    (bench / "labels.csv").write_text("file,label\n1.png,owl\n")
    (bench / "gone.csv").write_text("path,fine\n1.png,barn owl\n2.png,eagle-owl\n")
    shutil.copytree(bench / "birds" / "owl" / "barn owl", bench / "one-class" / "barn owl")
    newer = shutil.copytree(bench / "runs" / "birds", bench / "runs" / "newer")
    manifest = json.loads((newer / "run.json").read_text())
    manifest |= {"format": 99, "versions": {"fgdiag": "7.0"}}
    (newer / "run.json").write_text(json.dumps(manifest))
    return bench


def refused(ended: Ended, words: str) -> None:
    assert ended.code == 1
    assert ended.out == ""
    assert ended.told.startswith("fgdiag: ")
    assert words in ended.told
    assert ended.err.count("fgdiag: ") == 1


@pytest.mark.parametrize(
    ("model", "images", "words"),
    [
        ("tiny-llava", "brids", "There is no 'brids'; did you mean birds?"),
        ("tiny-llava", "empty", "No image in empty; expected <fine>/*.jpg or <coarse>/<fine>/*.jpg"),
        ("tiny-llava", "one-class", "one-class has 1 usable class (barn owl); expected at least two."),
        ("tiny-llava", "labels.csv", "labels.csv has the columns file, label; expected `path` and `fine`"),
        ("tiny-llava", "gone.csv", "None of the 2 files named in gone.csv exists, such as 1.png"),
        ("tiny-llava", "notes.txt", "notes.txt is no folder and no table; expected a folder"),
        ("birds", "tiny-llava", "No image in tiny-llava"),
        ("birds", "birds", "birds has no config.json: give a folder that `save_pretrained` has written"),
        ("text-only", "birds", "text-only is a 'llama' model, which does not take an image and text"),
        ("no-processor", "birds", "no-processor has a model but no processor"),
        ("notes.txt", "birds", "notes.txt is a file: give a folder that `save_pretrained` has written"),
        (
            "tiny-lava",
            "birds",
            "There is no folder tiny-lava that `save_pretrained` has written; did you mean",
        ),
        ("cut-off", "birds", "cut-off cannot be loaded: "),
    ],
)
def test_no_such_model_or_images(fgdiag: Fgdiag, desk: Path, model: str, images: str, words: str):
    refused(fgdiag("diagnose", model, images, "-o", "runs/new"), words)
    assert not (desk / "runs" / "new").exists()


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("notes.txt", "notes.txt is a file, or lies below one; give a folder that can be written."),
        ("notes.txt/run", "notes.txt/run is a file, or lies below one"),
        ("letters", "letters is no run of fgdiag and not empty (it holds dear.txt); give a new"),
        (
            "runs/newer",
            "runs/newer was written by fgdiag 7.0 in format 99; this fgdiag reads up to format 1.",
        ),
    ],
)
def test_no_place_for_a_run_is_said_before_anything_is_opened(
    fgdiag: Fgdiag, desk: Path, monkeypatch: pytest.MonkeyPatch, out: str, words: str
):
    monkeypatch.setattr(steps, "labelled_images", None)
    refused(fgdiag("diagnose", "tiny-llava", "birds", "-o", out), words)


@pytest.mark.parametrize("command", ["probe", "answer", "report"])
@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("runs/brids", "There is no run runs/brids; did you mean runs/birds?"),
        ("other", "There is no run other; `fgdiag extract MODEL IMAGES -o other` makes one."),
        ("birds", "birds is no run of fgdiag; expected a folder with a run.json in it."),
        ("notes.txt", "notes.txt is no run of fgdiag"),
        ("runs/newer", "Update with `pip install -U fgdiag`."),
    ],
)
def test_no_such_run(fgdiag: Fgdiag, desk: Path, command: str, run: str, words: str):
    refused(fgdiag(command, run), words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--prompt", "Which bird?"], "recorded with prompt 'What exactly is this?', not 'Which bird?'. Ask"),
        (["--limit", "3"], "recorded with images birds (40, digest "),
        (["--seed", "1"], "recorded with seed 0, not 1; images birds (40"),
        (["--readouts", "last"], "recorded with readouts ['image', 'last', 'pre', 'cls'], not ['last']. Ask"),
    ],
)
def test_another_question_to_a_finished_run_is_refused_without_a_model(
    fgdiag: Fgdiag, monkeypatch: pytest.MonkeyPatch, options: list[str], words: str
):
    monkeypatch.setattr(steps, "open_model", None)
    refused(fgdiag("diagnose", "tiny-llava", "birds", "-o", "runs/birds", *options), words)


def test_another_site_or_dtype_is_refused(fgdiag: Fgdiag):
    again = ("diagnose", "tiny-llava", "birds", "-o", "runs/birds")
    other_site = fgdiag(*again, "--sites", "vision.1")
    refused(other_site, "recorded with sites vision (32: image+cls+16 tokens), ")
    refused(other_site, ", not vision.1 (32: image+cls). Ask for the same")
    refused(fgdiag(*again, "--dtype", "bfloat16"), "dtype 'float32', not 'bfloat16'")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        ("none", "vision (32: image+cls), projector (48: image)"),
        ("llm.0", "llm.0 (48: image+last+pre+16 tokens)"),
    ],
)
def test_other_tokens_are_refused(fgdiag: Fgdiag, tokens: str, words: str):
    ended = fgdiag("diagnose", "tiny-llava", "birds", "-o", "runs/birds", "--tokens", tokens)
    refused(ended, "recorded with sites vision (32: image+cls+16 tokens), ")
    assert words in ended.told.partition(", not ")[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sites", "llm.99"], "No site 'llm.99' here. Did you mean 'llm."),
        (["--device", "gpu"], "No device 'gpu' on this machine: choose from auto, cpu"),
        (["--device-map", "sideways"], "but found sideways."),
    ],
)
def test_what_only_the_model_or_the_machine_can_tell(fgdiag: Fgdiag, options: list[str], words: str):
    refused(fgdiag("extract", "tiny-llava", "birds", "-o", "runs/new", *options), words)


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("dianose", "No such command 'dianose'. Did you mean 'diagnose'"),
        ("diagnose", "Missing argument 'MODEL'"),
        ("diagnose m i", "Missing option '--out' / '-o'"),
        ("diagnose m i -o r --promt x", "No such option: --promt"),
        ("diagnose m i -o r --limit 0", "greater than or equal to 1"),
        ("diagnose m i -o r --test-share 1", "less than or equal to 0.99"),
        ("diagnose m i -o r --dtype float8", "'float8' is not one of 'auto'"),
        ("diagnose m i -o r --batch-size many", "got 'many', expected `auto` or a number"),
        ("diagnose m i -o r --readouts nonsense", "got 'nonsense', expected some of image, last, pre, cls"),
        ("diagnose m i -o r --sites nonsense", "'nonsense' is not the name of a site"),
    ],
)
def test_usage_is_checked_before_anything_is_opened(fgdiag: Fgdiag, typed: str, words: str):
    ended = fgdiag(*typed.split())
    assert (ended.code, ended.out) == (2, "")
    assert words in " ".join(ended.err.replace("│", " ").split())


@pytest.mark.parametrize("command", ["probe", "answer", "report"])
def test_a_run_that_is_not_finished_is_not_judged(fgdiag: Fgdiag, bench: Path, tmp_path: Path, command: str):
    run = shutil.copytree(bench / "runs" / "birds", tmp_path / "run")
    manifest = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**manifest, "finished": None}))
    refused(fgdiag(command, str(run)), "is not finished; run the command that started it once more.")


@pytest.mark.parametrize(
    "typed",
    [
        "extract tiny-llava birds -o {new}",
        "diagnose tiny-llava birds -o {run}",
        "probe {run}",
        "answer {run}",
        "report {run}",
    ],
)
def test_two_processes_do_not_write_one_run(fgdiag: Fgdiag, bench: Path, tmp_path: Path, typed: str):
    place = {"new": tmp_path / "new", "run": bench / "runs" / "birds"}
    with locked(place["new"]), locked(place["run"]):
        refused(fgdiag(*typed.format(**place).split()), "is being written by another process; wait until")


def test_images_or_weights_that_are_no_longer_there(fgdiag: Fgdiag, bench: Path, tmp_path: Path):
    shutil.copytree(bench / "birds", tmp_path / "birds")
    shutil.copytree(bench / "tiny-llava", tmp_path / "model")
    run = tmp_path / "run"
    sites = ("--sites", "llm.norm")
    assert (
        fgdiag("extract", str(tmp_path / "model"), str(tmp_path / "birds"), "-o", str(run), *sites).code == 0
    )
    (tmp_path / "birds" / "owl" / "barn owl" / "0.png").unlink()
    refused(fgdiag("answer", str(run)), "1 images of the run ")
    shutil.rmtree(tmp_path / "birds")
    refused(fgdiag("answer", str(run)), "There is no '")
    shutil.copytree(bench / "birds", tmp_path / "birds")
    model, _ = tiny.llava(layer=-1)
    model.save_pretrained(tmp_path / "model")
    refused(fgdiag("answer", str(run)), "are not those the run ")


def test_a_wrong_encoder_leaves_nothing_behind(fgdiag: Fgdiag, desk: Path):
    typed = ("assemble", "--llm", "text-only", "-o", "joined")
    refused(fgdiag(*typed, "--encoder", "birds"), "birds cannot be loaded: ")
    assert not (desk / "joined").exists()


def test_a_model_that_is_there_is_not_written_over(fgdiag: Fgdiag, desk: Path):
    before = (desk / "tiny-llava" / "config.json").read_bytes()
    typed = ("assemble", "--encoder", "birds", "--llm", "text-only", "-o", "tiny-llava")
    refused(fgdiag(*typed), "tiny-llava holds a model already; ")
    refused(
        fgdiag("train", "tiny-llava", "birds", "-o", "tiny-llava"), "holds a model that was not trained there"
    )
    assert (desk / "tiny-llava" / "config.json").read_bytes() == before
    assert not (desk / "tiny-llava" / "training").exists()


def test_what_cannot_be_trained(fgdiag: Fgdiag, desk: Path):
    (desk / "plan.toml").write_text("[[stage]]\nepoch = 1\n")
    typed = ("train", "tiny-llava", "birds", "-o", "taught")
    refused(fgdiag(*typed, "--plan", "plan.toml"), "A stage has no 'epoch'; ")
    refused(fgdiag("train", "text-only", "birds", "-o", "taught"), "text-only cannot be loaded")
    both = fgdiag(*typed, "--plan", "plan.toml", "--epochs", "3")
    assert both.code == 2
    assert "write those into the plan" in both.err
