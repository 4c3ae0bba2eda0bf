"""What `fgdiag train` is told: a plan from a file or from options, and images with or without their own question."""

from pathlib import Path

import typer

from fgdiag.training import Plan, Stage, Teaching
from fgdiag_cli.diagnose import labelled_images


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
    """Open images, behind a question mark with the question that their labels answer."""
    place, _, question = source.partition("?")
    return Teaching(labelled_images(place), (question.strip(),) if question else ())
