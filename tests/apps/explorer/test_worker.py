"""Work in the background: one thing after the other, made once for all who ask for it, stopped when asked to."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fgdiag_explorer import worker as working
from fgdiag_explorer.tasks import LensTask, MapTask
from fgdiag_explorer.worker import Opened, TooMuch, Worker

from fgdiag.errors import FgdiagError
from fgdiag.store import Run

PATIENCE = 60.0


@dataclass(frozen=True)
class Held:
    """A task that goes on, a step at a time, until it is let go."""

    name: str
    run: Any = field(compare=False)
    go: threading.Event = field(default_factory=threading.Event, compare=False)
    steps: list[int] = field(default_factory=list, compare=False)
    fails: Exception | None = field(default=None, compare=False)
    command = "fgdiag held"

    def make(self, opened: Opened, told: Callable[[int, int], None]) -> None:
        while not self.go.wait(0.01):
            told(len(self.steps), 100)
            self.steps.append(len(self.steps))
        if self.fails:
            raise self.fails


@pytest.fixture
def run(runs: list[Path]) -> Run:
    return Run.open(runs[0])


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker that opens no model."""
    made = Worker("cpu")
    nothing: Any = type(
        "Nothing", (), {"register_forward_pre_hook": lambda *_: type("Handle", (), {"remove": int})()}
    )
    model: Any = type("Model", (), {"base_model": nothing()})
    vlm: Any = type("NoModel", (), {"model": model()})
    monkeypatch.setattr(made, "_open", lambda job: Opened(job.task.run, vlm(), None))  # pyright: ignore[reportArgumentType]
    return made


def until(met: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not met():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def state(worker: Worker, who: str, task: Any) -> str | None:
    found = worker.progress(who, task)
    return found and found.state


def test_one_thing_after_the_other(worker: Worker, run: Run) -> None:
    first, second = Held("first", run), Held("second", run)
    worker.ask("ann", first)
    worker.ask("bob", second)
    until(lambda: first.steps)
    waits = worker.progress("bob", second)
    assert waits is not None
    assert (waits.state, waits.ahead) == ("waiting", 1)
    assert not second.steps
    first.go.set()
    until(lambda: second.steps)
    assert state(worker, "ann", first) == "done"
    second.go.set()
    until(lambda: state(worker, "bob", second) == "done")


def test_nobody_sees_what_others_asked_for(worker: Worker, run: Run) -> None:
    task = Held("one", run)
    worker.ask("ann", task)
    until(lambda: task.steps)
    assert worker.progress("bob", task) is None
    worker.cancel("bob", task)
    assert state(worker, "ann", task) == "working"
    task.go.set()


def test_work_stops_when_the_last_who_asked_takes_it_back(worker: Worker, run: Run) -> None:
    task = Held("one", run)
    worker.ask("ann", task)
    worker.ask("bob", Held("one", run))  # the same, so it is made once
    until(lambda: task.steps)
    worker.cancel("ann", task)
    steps = len(task.steps)
    until(lambda: len(task.steps) > steps + 3)
    assert state(worker, "bob", task) == "working"
    worker.cancel("bob", task)
    until(lambda: not worker._jobs)
    steps = len(task.steps)
    time.sleep(0.1)
    assert len(task.steps) == steps
    after = Held("after", run)
    worker.ask("ann", after)
    until(lambda: after.steps)
    after.go.set()


def test_what_waits_is_taken_back_at_once(worker: Worker, run: Run) -> None:
    first, second = Held("first", run), Held("second", run)
    worker.ask("ann", first)
    worker.ask("ann", second)
    worker.cancel("ann", second)
    assert worker.progress("ann", second) is None
    first.go.set()
    until(lambda: state(worker, "ann", first) == "done")
    assert not second.steps


def test_a_failure_is_one_line_and_does_not_end_the_worker(
    worker: Worker, run: Run, capsys: pytest.CaptureFixture
) -> None:
    wrong = Held("wrong", run, fails=ZeroDivisionError("one\ntwo"))
    told = Held("told", run, fails=FgdiagError("No such class; choose another."))
    for task, error in ((wrong, "ZeroDivisionError: one two"), (told, "No such class; choose another.")):
        task.go.set()
        worker.ask("ann", task)
        until(lambda task=task: state(worker, "ann", task) == "failed")
        found = worker.progress("ann", task)
        assert found is not None
        assert found.error == error
    assert "Traceback" in capsys.readouterr().err


def test_not_everything_may_wait(worker: Worker, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(working, "WAITING", 2)
    first = Held("first", run)
    worker.ask("ann", first)
    until(lambda: first.steps)
    for name in ("second", "third"):
        worker.ask("ann", Held(name, run))
    with pytest.raises(TooMuch, match=r"2 others are waiting\. Try again later, or run `fgdiag held`"):
        worker.ask("ann", Held("fourth", run))
    for name in ("second", "third"):
        worker.cancel("ann", Held(name, run))
    first.go.set()


def test_the_model_is_opened_when_asked_for_and_let_go_when_idle(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(working, "IDLE", 0.2)
    worker = Worker("cpu")
    assert not worker.has_open(run)
    task = LensTask(str(run.path), 1, run)
    worker.ask("ann", task)
    until(lambda: state(worker, "ann", task) == "done")
    assert list((run.path / "results" / "lens").glob("0000001.*.npz"))
    until(lambda: not worker.has_open(run))


def test_a_real_map_is_stopped_between_batches(run: Run) -> None:
    """Of some 300 versions of the picture that occlusion scores, only those of a few batches have been scored."""
    worker = Worker("cpu")
    task = MapTask(str(run.path), 2, "barn owl", "eagle-owl", "occlusion", "name", run)
    scored: list[int] = []
    make = MapTask.make

    def slow(self: MapTask, opened: Opened, told: Callable[[int, int], None]) -> None:
        def told_slowly(done: int, total: int) -> None:
            told(done, total)
            scored.append(done)
            if len(scored) == 2:
                worker.cancel("ann", task)

        make(self, opened, told_slowly)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MapTask, "make", slow)
        worker.ask("ann", task)
        until(lambda: len(scored) >= 2 and not worker._jobs)
    assert len(scored) == 2
    assert not list((run.path / "results" / "attribution").glob("0000002.*.npz"))


def test_a_model_that_is_gone_is_told_in_one_line(runs: list[Path]) -> None:
    silent = Run.open(runs[1])
    worker, task = Worker("cpu"), LensTask(str(silent.path), 0, silent)
    worker.ask("ann", task)
    until(lambda: state(worker, "ann", task) == "failed")
    found = worker.progress("ann", task)
    assert found is not None
    assert "There is no folder /nowhere/tiny-llava" in found.error
    assert "\n" not in found.error
    assert task.command == f"fgdiag lens {silent.path} --image 0"
