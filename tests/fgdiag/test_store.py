"""A run on disk keeps its promises: what goes in comes out, by its own reader and by raw bytes."""

import errno
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fgdiag.errors import NoSpace, RunBusy, RunIncomplete, RunMismatch, SiteNotFound
from fgdiag.recording import Block, Recording
from fgdiag.sites import Site
from fgdiag.store import Run, locked, write_bytes
from tests.fgdiag.recorded import chunks, everything

ROWS, BLOCK, WIDTHS = 10, 4, {"vision": 3, "llm.0": 5}
HOLDS_THE_LOCK = "import sys, time\nfrom fgdiag.store import locked\nfrom pathlib import Path\n" + (
    "with locked(Path(sys.argv[1])):\n print('held', flush=True)\n time.sleep(60)"
)


def asked(**changed) -> dict:
    return {
        "model": "tiny",
        "fingerprint": "f1",
        "dtype": "float32",
        "prompt": "What?",
        "text": "user: What?",
        "readouts": ["image"],
        "seed": 0,
        "batch_size": 2,
        "block": BLOCK,
        "images": {"name": "flowers", "source": "flowers", "digest": "d1", "count": ROWS, "levels": ["fine"]},
        "sites": [{"site": site, "width": width, "readouts": ["image"]} for site, width in WIDTHS.items()],
    } | changed


def table() -> pd.DataFrame:
    ids = [f"{row:02d}" for row in range(ROWS)]
    return pd.DataFrame({"id": ids, "fine": "rose", "split": "train", "status": "ok"})


def values(site: str) -> np.ndarray:
    return np.arange(ROWS * WIDTHS[site], dtype=np.float32).reshape(ROWS, -1)


def write_block(recording: Recording, index: int, failures: dict[int, str] | None = None) -> None:
    rows = recording.blocks[index]
    found = {(site, "image"): values(site)[rows.start : rows.stop] for site in WIDTHS}
    recording.write(Block(index, rows, found, {rows.start: b"jpeg"}, failures or {}))


def record(path: Path, *, finish: bool = True) -> Recording:
    path.mkdir(exist_ok=True)
    recording = Recording.start(path, asked(), table())
    for index in recording.missing():
        write_block(recording, index, {5: "an empty file"} if index == 1 else None)
    if finish:
        recording.finish()
    return recording


@pytest.fixture
def run(tmp_path: Path) -> Run:
    record(tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.mark.parametrize("site", WIDTHS)
def test_what_goes_in_comes_out_by_the_reader_and_by_raw_bytes(run: Run, site: str):
    np.testing.assert_array_equal(run.activations(site, "image"), values(site))
    np.testing.assert_array_equal(np.concatenate(chunks(run.path, site, "image", BLOCK))[:ROWS], values(site))


def test_a_chunk_is_a_block(run: Run):
    assert [len(chunk) for chunk in chunks(run.path, "vision", "image", BLOCK)] == [4, 4, 4]


def test_sites_and_readouts_are_those_recorded(run: Run):
    assert run.sites == (Site("vision"), Site("llm", 0))
    assert run.readouts("llm.0") == run.readouts(Site("llm", 0)) == ("image",)
    with pytest.raises(SiteNotFound, match=r"No site 'llm\.1' here\. Did you mean 'llm\.0'\?"):
        run.activations("llm.1", "image")
    with pytest.raises(SiteNotFound, match="No readout 'last' at vision; this run has image there"):
        run.activations("vision", "last")


def test_failures_end_in_the_table(run: Run):
    assert list(run.images["status"]) == ["ok"] * 5 + ["an empty file"] + ["ok"] * 4
    assert run.manifest["unreadable"] == 1


def test_print_answers_what_how_many_how_big_from_which_model(run: Run):
    text = str(run)
    for part in (
        "10 images of flowers",
        "tiny",
        "2 sites, 2 readouts",
        "MB",
        "What?",
        "could not be read: 1",
    ):
        assert part in text


def test_a_run_that_is_not_finished_opens_and_says_so(tmp_path: Path):
    record(tmp_path / "run", finish=False)
    run = Run.open(tmp_path / "run")
    assert not run.finished
    assert "not finished" in str(run)
    with pytest.raises(RunIncomplete, match="is not finished"):
        run.activations("vision", "image")


def test_results_are_kept_and_their_absence_is_named(run: Run):
    run.write_json("verdict", {"stage": "none", "name": "é"})
    run.write_table("probes", pd.DataFrame({"score": [0.5]}))
    assert run.read_json("verdict") == {"stage": "none", "name": "é"}
    assert run.read_table("probes")["score"].tolist() == [0.5]
    with pytest.raises(RunIncomplete, match=r"no results/answers\.parquet yet"):
        run.read_table("answers")
    with pytest.raises(RunIncomplete, match=r"no results/budget\.json yet"):
        run.read_json("budget")
    with pytest.raises(ValueError, match="JSON"):
        run.write_json("broken", {"drop": float("nan")})


@pytest.mark.parametrize("name", ["answers.json", "answers.parquet"])
def test_a_result_that_was_cut_is_one_line(run: Run, name: str):
    run.write_json("answers", {"right": 3})
    run.write_table("answers", pd.DataFrame({"right": [3]}))
    file = run.result_path(name)
    file.write_bytes(file.read_bytes()[:9])
    read = run.read_json if name.endswith("json") else run.read_table
    with pytest.raises(RunMismatch, match=f"{name} is damaged; delete it and run the command that makes it"):
        read("answers")


def test_nothing_and_something_else_are_no_runs(tmp_path: Path):
    with pytest.raises(RunIncomplete, match="There is no run"):
        Run.open(tmp_path / "nowhere")
    for content in (None, "not json", "[]", '{"model": "x"}'):
        if content is not None:
            (tmp_path / "run.json").write_text(content)
        with pytest.raises(RunMismatch, match="is no run of fgdiag"):
            Run.open(tmp_path)


def test_a_run_of_a_newer_version_asks_for_an_update(run: Run):
    newer = run.manifest | {"format": 99, "versions": {"fgdiag": "7.0"}}
    (run.path / "run.json").write_text(json.dumps(newer))
    with pytest.raises(RunMismatch, match=r"written by fgdiag 7\.0 in format 99.*pip install -U fgdiag"):
        Run.open(run.path)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunMismatch, match=r"not empty \(it holds thesis\.tex\)"):
        Recording.resume(tmp_path, asked(), table())
    assert os.listdir(tmp_path) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "other", "fingerprint": "f2"}, "model tiny, not other"),
        ({"fingerprint": "f2"}, "model fingerprint 'f1', not 'f2'"),
        ({"prompt": "Which?"}, r"prompt 'What\?', not 'Which\?'"),
        ({"dtype": "bfloat16"}, "dtype 'float32', not 'bfloat16'"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"readouts": ["last"]}, r"readouts \['image'\], not \['last'\]"),
        ({"sites": asked()["sites"][:1]}, r"sites llm\.0 \(5: image\), not nothing more"),
        (
            {"images": asked()["images"] | {"digest": "d2", "count": 3}},
            r"images flowers \(10, digest d1\), not flowers \(3, digest d2\)",
        ),
    ],
)
def test_going_on_with_something_else_is_refused_with_the_difference(run: Run, changed: dict, words: str):
    before = everything(run.path)
    with pytest.raises(RunMismatch, match=words):
        Recording.resume(run.path, asked(**changed), table())
    assert everything(run.path) == before


def test_blocks_without_a_mark_are_written_again(tmp_path: Path):
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    record(whole)
    record(torn, finish=False)
    (torn / "blocks" / "00001.json").unlink()
    chunk = torn / "activations.zarr" / "vision" / "image" / "c" / "1" / "0"
    chunk.write_bytes(b"half")
    for written in (
        chunk,
        torn / "images.parquet",
        torn / "blocks" / "00001.json",
        torn / "results" / "a.json",
    ):
        written.parent.mkdir(exist_ok=True)
        written.with_name(f"{written.name}.0123-4.partial").write_bytes(b"left over by a kill")
    recording = Recording.resume(torn, asked(), table())
    assert recording is not None
    assert recording.missing() == [1]
    write_block(recording, 1, {5: "an empty file"})
    recording.finish()
    assert everything(torn) == everything(whole)


def test_the_second_process_is_told_and_stops(run: Run):
    holder = subprocess.Popen([sys.executable, "-c", HOLDS_THE_LOCK, str(run.path)], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunBusy, match="is being written by another process"), run.lock():
            pass
    finally:
        holder.kill()
        holder.communicate()
    with run.lock():  # let go by the system, though the holder was killed
        pass


def test_the_lock_holds_against_the_same_process_and_is_let_go(run: Run):
    with run.lock(), pytest.raises(RunBusy), locked(run.path):
        pass
    with run.lock():
        pass


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, replace = tmp_path / "kept", os.replace

    def overtaken(partial: Path, path: Path) -> None:
        monkeypatch.setattr("fgdiag.store.os.replace", replace)
        with ThreadPoolExecutor() as other:
            other.submit(write_bytes, path, b"the other's").result()
        assert path.read_bytes() == b"the other's"
        replace(partial, path)

    monkeypatch.setattr("fgdiag.store.os.replace", overtaken)
    write_bytes(file, b"the last one's")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"kept": b"the last one's"}


def test_a_full_disk_is_one_line_and_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_bytes(tmp_path / "kept", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(NoSpace, match=r"disk is full.*make room and start the same command again"):
        write_bytes(tmp_path / "kept", b"new")
    assert (tmp_path / "kept").read_bytes() == b"old"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(NoSpace, match="file"), locked(path):
            pass


def test_a_missing_thumbnail_is_named(run: Run):
    with pytest.raises(RunIncomplete, match="no thumbnail of image 1"):
        run.thumbnail(1)
