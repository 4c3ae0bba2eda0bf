"""A training spread over processes: each has its share of every batch, and one of them writes."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fgdiag.image_set import ImageSet
from fgdiag.training import Plan, Teaching, history, train
from fgdiag.training.checkpoint import Progress
from fgdiag.training.loss import Batch

PLAN = """
batch_size = 5    # 3 images for one process, 2 for the other
accumulate = 3

[[stage]]
epochs = 2

[[stage]]
train = ["projector", "encoder"]
epochs = 2
"""
COMMAND = """
import sys
from importlib import import_module

from accelerate import PartialState

from fgdiag_cli.main import main

loop = import_module("fgdiag.training.train")
same_settings = loop.same_settings


def told(*args):
    print("the plan is written", file=sys.stderr)
    same_settings(*args)


loop.same_settings = told
try:
    main()
finally:
    print(f"process {PartialState().process_index} of {PartialState().num_processes}", file=sys.stderr)
"""


def on_two_processes(
    joined: Path, colours: ImageSet, folder: Path, plan: str
) -> "subprocess.CompletedProcess[str]":
    """Run `fgdiag train` on two, which say that they are two, and who writes the plan."""
    (folder / "plan.toml").write_text(plan)
    (folder / "command.py").write_text(COMMAND)
    launched = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        str(folder / "command.py"),
    ]
    typed = [
        "train",
        str(joined),
        colours.source,
        "-o",
        str(folder / "two"),
        "--plan",
        str(folder / "plan.toml"),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*launched, *typed], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def test_two_processes_learn_what_one_does(joined: Path, colours: ImageSet, tmp_path: Path):
    """The gradient of a batch is the same over two devices; only sums are rounded in another order."""
    done = on_two_processes(joined, colours, tmp_path, PLAN)
    assert done.returncode == 0, done.stderr[-2000:]
    assert {f"process {index} of 2" in done.stderr for index in (0, 1)} == {True}
    assert done.stderr.count("the plan is written") == 1
    alone = train(joined, [Teaching(colours)], tmp_path / "alone", Plan.read(tmp_path / "plan.toml"))
    expected, found = (load_file(folder / "model.safetensors") for folder in (alone, tmp_path / "two"))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=3e-2, rtol=3e-2)


def test_a_batch_that_not_all_processes_have_a_share_of_is_refused(
    joined: Path, colours: ImageSet, tmp_path: Path
):
    done = on_two_processes(joined, colours, tmp_path, "batch_size = 1")
    assert done.returncode != 0
    assert "A batch of 1 images cannot be shared by 2 processes" in done.stderr


@pytest.mark.parametrize(("images", "count"), [(11, 8), (10, 8), (5, 5), (6, 4), (7, 1)])
def test_a_batch_is_cut_into_as_many_parts_as_asked(images: int, count: int):
    batch = Batch(torch.arange(images), range(images))  # pyright: ignore[reportArgumentType]
    parts = batch.parts(count)
    sizes = [len(part.lessons) for part in parts]
    assert len(parts) == count
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(torch.cat([part.seen for part in parts]), batch.seen)
    assert [lesson for part in parts for lesson in part.lessons] == list(batch.lessons)


def test_only_who_notes_something_opens_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[str] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            opened.append(folder)

        def add_scalar(self, *_args: Any) -> None: ...

        def flush(self) -> None: ...

    monkeypatch.setattr(history, "find_spec", lambda _name: True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    curves = history.History(tmp_path)
    assert opened == []
    for step in (1, 2):
        curves.note(Progress(0, step), 1.0, 1e-3, 1.0)
    assert opened == [str(tmp_path / "tensorboard")]
