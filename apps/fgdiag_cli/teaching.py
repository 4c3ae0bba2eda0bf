"""What `fgdiag train` is told: a plan from a file or from options, and images with or without their own question."""

from pathlib import Path

import typer

from fgdiag.progress import say
from fgdiag.training import Plan, Stage, Teaching


def plan_of(file: Path | None, *, epochs: int | None, views: int | None, seed: int) -> Plan:
    """Read the plan in a file, or make one that trains the projector."""
    if file is None:
        return Plan((Stage(epochs=epochs or 6),), views=views or 1, seed=seed)
    if epochs or views or seed:
        raise typer.BadParameter(
            "got --plan together with --epochs, --views or --seed: write those into the plan."
        )
    return Plan.read(file)


def teaching_of(source: str) -> Teaching:
    """Open what is learnt from; say on stderr what there is to know about it."""
    teaching = Teaching.open(source)
    for line in repr(teaching.images).splitlines():
        say(line)
    return teaching
