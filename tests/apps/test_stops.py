"""Ctrl-C and a full disk in each step: one line, nothing lost, and the same command goes on."""

import errno
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fgdiag_probes.answers
import fgdiag_probes.bottleneck
import fgdiag_probes.evidence
import fgdiag_probes.free_text
import fgdiag_probes.reading
import pytest
from fgdiag_cli import report

from fgdiag import images, recording, vlm
from fgdiag.fieldguide import write
from tests.apps.conftest import Fgdiag
from tests.apps.test_commands import verdict

STEPS = {
    "listing": (images, "_look", 20),
    "opening": (vlm, "find_anatomy", 1),
    "laying out": (recording.Recording, "missing", 1),
    "extracting": (recording.Recording, "_write_thumbnails", 1),
    "finishing": (recording.Recording, "finish", 1),
    "probing": (fgdiag_probes.reading, "save", 7),
    "looking closer": (fgdiag_probes.evidence, "_look", 2),
    "asking": (fgdiag_probes.answers._Asked, "_ask", 2),
    "asking in free text": (fgdiag_probes.free_text, "replies_of", 1),
    "dealing anew": (fgdiag_probes.bottleneck, "deal_anew", 1),
    "judging": (fgdiag_probes.bottleneck, "judge", 1),
    "reporting": (report, "_template", 1),
}
"""The function in which each step is interrupted, and at which call."""

WRITTEN = (
    "images.parquet",
    "run.json",
    "0000007.jpg",
    "00000.json",
    "command.json",
    "llm.1.last.npz",
    "probes.parquet",
    "evidence.json",
    "training-000000.parquet",
    "test-000000.parquet",
    "prior.json",
    "answers.parquet",
    "free_text.parquet",
    "stability.json",
    "verdict.json",
    "report.html",
)
"""Files of a run in the order in which they appear."""


def interrupting(function: Callable[..., Any], at: int) -> Callable[..., Any]:
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return function(*args, **kwargs)

    return interrupted


def finishes(fgdiag: Fgdiag, typed: list[str], run: Path, bench: Path) -> None:
    ended = fgdiag(*typed)
    assert ended.code == 0, ended.err
    assert verdict(run) == verdict(bench / "runs" / "birds")
    assert not list(run.rglob("*.partial"))


def test_ctrl_c_in_each_step(fgdiag: Fgdiag, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = tmp_path / "my run"
    typed = ["diagnose", "tiny-llava", "birds", "-o", str(run)]
    for step, (room, name, at) in STEPS.items():
        with monkeypatch.context() as patch:
            patch.setattr(room, name, interrupting(getattr(room, name), at))
            ended = fgdiag(*typed)
        assert (ended.code, ended.out) == (130, ""), step
        kept, _, again = ended.told.partition(" Go on with: ")
        assert kept == "fgdiag: interrupted; what is already recorded is kept."
        assert shlex.split(again) == ["fgdiag", *typed]
    assert len(list(run.glob("results/probes/*.npz"))) == 23
    finishes(fgdiag, typed, run, bench)


def test_a_full_disk_at_each_file(
    fgdiag: Fgdiag, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = tmp_path / "run"
    typed = ["diagnose", "tiny-llava", "birds", "-o", str(run)]
    replace = os.replace
    for name in WRITTEN:

        def full(source: Path, target: Path, name: str = name) -> None:
            if Path(target).name == name:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr("fgdiag.store.os.replace", full)
            ended = fgdiag(*typed)
        assert (ended.code, ended.out) == (1, ""), name
        assert ended.told.startswith("fgdiag: The disk is full, so ")
        assert ended.told.endswith("make room and start the same command again.")
        assert not list(run.rglob("*.partial")), name
    finishes(fgdiag, typed, run, bench)


def test_ctrl_c_while_birds_are_drawn_leaves_nothing(
    fgdiag: Fgdiag, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(write, "_draw_all", interrupting(write._draw_all, 1))
    ended = fgdiag("fieldguide", str(tmp_path / "birds"), "--per-class", "1")
    assert (ended.code, ended.out) == (130, "")
    assert ended.told == "fgdiag: interrupted; nothing is left half written."
    assert not list(tmp_path.iterdir())


def test_a_real_process_is_quiet_and_ends_at_once(bench: Path, tmp_path: Path):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "fgdiag_cli.main", "diagnose", "tiny-llava", "birds", "-o", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    opened = {"cwd": bench, "env": environment, "text": True, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, stderr=subprocess.PIPE, **opened) as process:
        said = [process.stderr.readline() for _ in range(3)]  # pyright: ignore[reportOptionalMemberAccess]
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said == [
        "birds: 40 images of 5 classes in 2 coarse classes\n",
        "  train 30, test 10\n",
        "opening tiny-llava\n",
    ]
    typed = shlex.join(["diagnose", "tiny-llava", "birds", "-o", str(run)])
    kept = "interrupted; what is already recorded is kept. Go on with:"
    assert err == f"fgdiag: {kept} fgdiag {typed}\n"
    ended = subprocess.run(command, stderr=subprocess.PIPE, check=True, **opened)
    assert ended.stdout.endswith(f"\n\nreport: {run}/report.html\n")
    starts = dict.fromkeys(line.split(":")[0] for line in ended.stderr.splitlines()[3:])
    assert list(starts) == [
        "keeping every image token at vision, projector, llm.3, llm.1",
        "extracting",
        "probing the layers",
        "looking closer",
        "asking the model about training images",
        "asking the model",
        "asking in free text",
        "reading the baselines",
        "dealing the images anew",
        "telling pairs apart",
    ]
    assert verdict(run) == verdict(bench / "runs" / "birds")
