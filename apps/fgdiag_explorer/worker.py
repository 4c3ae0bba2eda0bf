"""What takes a model is made in the background, one thing after the other, for everyone who looks at this server.

A model is opened only for work that somebody asked for, and let go when nobody has asked for a while. Whoever asked can
take it back: what nobody waits for any more is stopped before the model's next forward pass.
"""

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from fgdiag.errors import FgdiagError
from fgdiag.memory import no_memory
from fgdiag.progress import say
from fgdiag.reopening import reopen_images, reopen_model
from fgdiag.store import Run

if TYPE_CHECKING:
    from fgdiag.images import ImageSet
    from fgdiag.vlm import VLM

WAITING = 30
"""Pieces of work that may wait at once."""
REMEMBERED = 300
"""Ended pieces of work of which it is still known how they ended."""
IDLE = 900.0
"""Seconds without work after which the model is let go."""

State = Literal["waiting", "opening", "working", "done", "failed"]
ACTIVE = ("waiting", "opening", "working")


class Stopped(Exception):
    """Nobody waits for the work any more."""


class TooMuch(FgdiagError):
    """More work is waiting than is good for anyone."""


@dataclass(frozen=True)
class Opened:
    """A run with its model and its images."""

    run: Run
    vlm: "VLM"
    images: "ImageSet"


class Task(Protocol):
    """Something to be made; equal tasks make the same thing, and are made once."""

    @property
    def run(self) -> Run:
        """The run it is about; what is made is kept there."""
        ...

    @property
    def command(self) -> str:
        """What makes it without the explorer."""
        ...

    def make(self, opened: Opened, told: Callable[[int, int], None]) -> None:
        """Make it and keep it; `told` is called with how much has been done, of about how much."""
        ...


@dataclass(frozen=True)
class Progress:
    """How far a piece of work is.

    Attributes
    ----------
    ahead
        How many others come first, while it waits.
    done, total
        Steps, while it is being made.
    seconds
        Since it was begun.
    error
        Why it failed.
    """

    state: State
    ahead: int = 0
    done: int = 0
    total: int = 0
    seconds: float = 0.0
    error: str = ""

    @property
    def active(self) -> bool:
        """Whether it will change by itself."""
        return self.state in ACTIVE


@dataclass
class _Job:
    task: Task
    askers: set[str] = field(default_factory=set)
    state: State = "waiting"
    done: int = 0
    total: int = 0
    begun: float = 0.0
    error: str = ""


class Worker:
    """Makes what is asked for, one piece after the other, in a thread of its own.

    Parameters
    ----------
    device
        Where models are opened, as `fgdiag.open_vlm` takes it.
    """

    def __init__(self, device: str = "auto") -> None:
        self._device = device
        self._jobs: dict[Any, _Job] = {}
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._opened: Opened | None = None

    def has_open(self, run: Run) -> bool:
        """Whether the model of a run is open."""
        opened = self._opened
        return opened is not None and (opened.run.path, opened.run.manifest) == (run.path, run.manifest)

    def ask(self, who: str, task: Task) -> None:
        """Have something made, or wait for it too where it is being made already.

        Raises
        ------
        TooMuch
            Too many others wait.
        """
        with self._changed:
            job = self._jobs.get(task)
            if job is None or job.state not in ACTIVE:
                if sum(job.state == "waiting" for job in self._jobs.values()) >= WAITING:
                    raise TooMuch(f"{WAITING} others are waiting. Try again later, or run `{task.command}`.")
                self._jobs.pop(task, None)
                job = self._jobs[task] = _Job(task)
            job.askers.add(who)
            self._begin()
            self._changed.notify_all()

    def cancel(self, who: str, task: Task) -> None:
        """Take back what one has asked for; it goes on for those others who have asked for it too."""
        with self._changed:
            job = self._jobs.get(task)
            if job is None or who not in job.askers:
                return
            job.askers.discard(who)
            if job.state == "waiting" and not job.askers:
                del self._jobs[task]

    def progress(self, who: str, task: Task) -> Progress | None:
        """Return how far something is that one has asked for; None where one has not."""
        with self._changed:
            job = self._jobs.get(task)
            if job is None or who not in job.askers:
                return None
            jobs = list(self._jobs.values())
            ahead = (
                sum(one.state in ACTIVE for one in jobs[: jobs.index(job)]) if job.state == "waiting" else 0
            )
            seconds = time.monotonic() - job.begun if job.begun else 0.0
            return Progress(job.state, ahead, job.done, job.total, seconds, job.error)

    # --- the thread -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="fgdiag worker", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        while True:
            with self._changed:
                job = self._next()
                while job is None:
                    if not self._changed.wait(IDLE):
                        self._opened = None
                    job = self._next()
                job.state, job.begun = "opening", time.monotonic()
            self._do(job)
            with self._changed:
                self._forget()

    def _next(self) -> _Job | None:
        return next((job for job in self._jobs.values() if job.state == "waiting"), None)

    def _do(self, job: _Job) -> None:
        try:
            opened = self._open(job)
            self._told(job, 0, 0)
            job.state = "working"
            with _stoppable(opened.vlm, lambda: self._told(job, job.done, job.total)), job.task.run.lock():
                job.task.make(opened, lambda done, total: self._told(job, done, total))
            job.state = "done"
        except Stopped:
            with self._changed:
                self._jobs.pop(job.task, None)
        except Exception as error:
            if not isinstance(error, FgdiagError):
                say("".join(traceback.format_exception(error)))
            if no_memory(error):
                self._opened = None
            job.error, job.state = _in_one_line(error), "failed"

    def _open(self, job: _Job) -> Opened:
        run = job.task.run
        if not self.has_open(run):
            self._opened = None  # two models might not fit
            images = reopen_images(run)
            self._opened = Opened(run, reopen_model(run, exact=True, device=self._device), images)
        return cast(Opened, self._opened)

    def _told(self, job: _Job, done: int, total: int) -> None:
        if not job.askers:
            raise Stopped
        job.done, job.total = done, total

    def _forget(self) -> None:
        ended = [task for task, job in self._jobs.items() if job.state not in ACTIVE]
        for task in ended[:-REMEMBERED]:
            del self._jobs[task]


@contextmanager
def _stoppable(vlm: "VLM", look: Callable[[], None]) -> Iterator[None]:
    """Call `look` before every forward pass; what it raises stops the work there."""
    handle = vlm.model.base_model.register_forward_pre_hook(lambda *_: look())
    try:
        yield
    finally:
        handle.remove()


def _in_one_line(error: Exception) -> str:
    told = " ".join(str(error).split())
    return told if isinstance(error, FgdiagError) else f"{type(error).__name__}: {told[:200]}"
