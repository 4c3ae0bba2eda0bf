"""What a piece of work has taken: minutes and memory, kept in a file and added up over interruptions."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch

from fgdiag.store import write_json

SAMPLE_SECONDS, KEEP_SECONDS = 0.5, 30.0


@contextmanager
def noted_effort(file: Path, work: str) -> Iterator[None]:
    """Note in `file`, under the name `work`, what the body takes.

    Minutes of the clock are added to those of earlier attempts. Memory is the most that this process held at once, in
    GiB, sampled twice a second; on a GPU, what PyTorch had allocated there is added. The file is brought up to date
    twice a minute, so a killed process leaves what it has spent.
    """
    spent = _Effort(file, work)
    done = threading.Event()
    watcher = threading.Thread(target=spent.watch, args=(done,), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        spent.keep()


def read_effort(file: Path) -> dict[str, dict[str, float]]:
    """Minutes and memory by piece of work; empty where nothing was noted."""
    return json.loads(file.read_text()) if file.exists() else {}


class _Effort:
    """The running count of one piece of work."""

    def __init__(self, file: Path, work: str) -> None:
        self.file, self.work = file, work
        before: dict[str, Any] = read_effort(file).get(work, {})
        self.minutes, self.memory = before.get("minutes", 0.0), before.get("GiB", 0.0)
        self.started = time.monotonic()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def watch(self, done: threading.Event) -> None:
        """Sample memory until `done`."""
        process, kept = psutil.Process(), time.monotonic()
        while not done.wait(SAMPLE_SECONDS):
            on_gpu = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
            self.memory = max(self.memory, (process.memory_info().rss + on_gpu) / 2**30)
            if time.monotonic() - kept > KEEP_SECONDS:
                kept = time.monotonic()
                self.keep()

    def keep(self) -> None:
        """Write the count so far beside those of other work."""
        minutes = self.minutes + (time.monotonic() - self.started) / 60
        count = {"minutes": round(minutes, 2), "GiB": round(self.memory, 2)}
        write_json(self.file, {**read_effort(self.file), self.work: count})
