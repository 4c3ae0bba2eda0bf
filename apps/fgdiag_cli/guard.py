"""What stands around every command: quiet libraries, errors in one line, and honest exit codes.

0 done, 1 something the user can mend (one line on stderr), 2 usage, 130 interrupted. Anything else is a slip
of ours and keeps its traceback.
"""

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from fgdiag.errors import FgdiagError
from fgdiag.progress import say

INTERRUPTED = 130
FULL = {errno.ENOSPC, errno.EDQUOT}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}

KEPT = {
    "demo": "what is recorded in runs/demo is kept",
    "extract": "what is already recorded is kept",
    "probe": "the readouts already probed are kept",
    "answer": "the answers already written are kept",
    "lens": "the images already read are kept",
    "attribute": "the maps already made are kept",
    "diagnose": "what is already recorded is kept",
    "compare": "the readouts already probed are kept",
    "calibrate": "finished cases are kept",
    "recipe": "replies and fits already made are kept",
    "train": "the last checkpoint is kept",
}
"""What an interrupted command leaves behind; the others leave nothing."""


def quieten() -> None:
    """Keep libraries from talking on stderr and stdout, errors apart. Call before they are imported."""
    for name, value in {
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")


class Guarded(TyperGroup):
    """A group of commands that end as the module says."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Remember what was typed, to say how to resume it."""
        ctx.meta["typed"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with guard(ctx.meta["typed"]):
            return super().invoke(ctx)


@contextmanager
def guard(typed: list[str]) -> Iterator[None]:
    """Turn what the user can mend into one line and an exit code.

    Parameters
    ----------
    typed
        The command line after `fgdiag`.
    """
    try:
        yield
    except KeyboardInterrupt:
        say(f"fgdiag: {_interrupted(typed)}")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        line = in_one_line(error)
        if line is None:
            raise
        say(f"fgdiag: {line}")
        raise typer.Exit(1) from None


def in_one_line(error: BaseException) -> str | None:
    """What to tell the user about an error; None where only a traceback helps."""
    if isinstance(error, FgdiagError):
        return " ".join(str(error).split())
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in FULL:
            where = f" at {cause.filename}" if cause.filename else ""
            return (
                f"No space left on the disk{where}. Free some and run the same command again: "
                "what is written is kept."
            )
        if isinstance(cause, OSError) and cause.errno in FORBIDDEN and cause.filename:
            return f"{cause.strerror}: {cause.filename}. Choose another folder, or change its permissions."
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _interrupted(typed: list[str]) -> str:
    command = next((word for word in typed if not word.startswith("-")), "")
    if command not in KEPT:
        return "interrupted; nothing is left half written."
    return f"interrupted; {KEPT[command]}. Go on with: {shlex.join(['fgdiag', *typed])}"
