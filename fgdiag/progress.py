"""What a person sees while long work runs: a bar on a terminal, a line now and then in a log. Always on stderr."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")

LOG_EVERY_SECONDS = 15.0


def say(text: str) -> None:
    """Print one line on stderr, where results are never printed."""
    print(text, file=sys.stderr, flush=True)


def track(
    items: Iterable[Item], *, description: str, total: int, unit: str = "images", done: int = 0, size: int = 1
) -> Iterator[Item]:
    """Yield `items`, showing how far, how fast and how long still.

    Parameters
    ----------
    items
        What is worked through.
    description
        What is being done, as the reader would say it: `reading activations`.
    total
        How many units there are in all, those already `done` included.
    unit
        What is counted.
    done
        How many units an earlier, interrupted run had finished. They do not count towards the rate.
    size
        How many units one item stands for (a block of 256 images). The last item may hold fewer.
    """
    if done >= total:  # nothing left to show
        yield from items
        return
    show = _bar if sys.stderr.isatty() else _log
    yield from show(items, description, total, unit, done, size)


def _bar(
    items: Iterable[Item], description: str, total: int, unit: str, done: int, size: int
) -> Iterator[Item]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    rate = TextColumn("{task.fields[rate]}")
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        rate,
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(description, total=total, completed=done, rate="")
        started, now_done = time.monotonic(), done
        for item in items:
            yield item
            now_done = min(total, now_done + size)
            speed = (now_done - done) / max(1e-9, time.monotonic() - started)
            progress.update(task, completed=now_done, rate=f"{speed:.1f} {unit}/s")


def _log(
    items: Iterable[Item], description: str, total: int, unit: str, done: int, size: int
) -> Iterator[Item]:
    started = last_said = time.monotonic()
    now_done = done
    for item in items:
        yield item
        now_done = min(total, now_done + size)
        now = time.monotonic()
        if now - last_said >= LOG_EVERY_SECONDS or now_done == total:
            last_said = now
            speed = (now_done - done) / max(1e-9, now - started)
            left = (total - now_done) / max(1e-9, speed)
            say(f"{description}: {now_done}/{total} {unit}, {speed:.1f}/s, {left:.0f} s left")
