"""Effort is added up over attempts, and survives one that fails."""

import time
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace

import pytest
from fgdiag_probes import effort
from fgdiag_probes.effort import noted_effort, read_effort


def test_minutes_of_attempts_are_added_and_works_kept_apart(tmp_path: Path):
    file = tmp_path / "effort.json"
    assert read_effort(file) == {}
    for _ in range(2):
        with noted_effort(file, "training"):
            time.sleep(0.7)
    with noted_effort(file, "measuring"):
        pass
    noted = read_effort(file)
    assert noted["training"]["minutes"] == pytest.approx(1.4 / 60, abs=0.011)
    assert noted["measuring"]["minutes"] < 0.01
    assert noted["training"]["GiB"] > 0.05


def test_the_most_memory_counts_though_it_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(effort, "SAMPLE_SECONDS", 0.01)
    held = chain([1.5, 3.25], repeat(2.0))
    sample = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=next(held) * 2**30))
    monkeypatch.setattr(effort.psutil, "Process", lambda: sample)
    with noted_effort(tmp_path / "effort.json", "training"):
        time.sleep(0.3)
    assert read_effort(tmp_path / "effort.json")["training"]["GiB"] == 3.25


def test_a_failed_or_killed_attempt_leaves_what_it_has_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(effort, "SAMPLE_SECONDS", 0.02)
    monkeypatch.setattr(effort, "KEEP_SECONDS", 0.05)
    file = tmp_path / "effort.json"
    attempt = noted_effort(file, "training")
    attempt.__enter__()
    time.sleep(0.3)
    killed = read_effort(file)["training"]
    assert killed["GiB"] > 0
    assert not attempt.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert read_effort(file)["training"]["minutes"] >= killed["minutes"]
