"""`fgdiag fieldguide` and `fgdiag scenes`: labelled drawings whose truth is known."""

from pathlib import Path
from typing import Annotated

import typer

from fgdiag_cli import options

Made = Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")]


def fieldguide(
    out: Made,
    per_class: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Training images of each species; half as many for testing, and at least 2.",
        ),
    ] = 20,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Draw labelled birds: 40 species in 8 genera, with a mask for every part.

    The species of a genus differ in small parts, so they need fine detail.

    For example:
      fgdiag fieldguide birds/ --per-class 50
    """
    from fgdiag.fieldguide import SPECIES, write_fieldguide
    from fgdiag_cli.screen import print_json

    path = write_fieldguide(out, per_class=per_class, seed=seed)
    print_json({"images": str(path), "species": len(SPECIES)}) if as_json else print(path)


def scenes(
    out: Made,
    per_answer: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            help="Training scenes for each answer; half as many for testing, and at least 2.",
        ),
    ] = 20,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Draw scenes with a question each: what can a model do in general?

    How many birds, which is on the left, what colour is the crown, is there an
    eye ring, what kind of bird. Each topic is a folder of labelled images whose
    labels answer its question, as `fgdiag train` and `fgdiag ablate` take them.

    For example:
      fgdiag scenes scenes/ --per-answer 50
    """
    from fgdiag.fieldguide import TOPICS, write_scenes
    from fgdiag_cli.screen import print_json

    path = write_scenes(out, per_answer=per_answer, seed=seed)
    sources = [f"{path / name}?{topic.question}" for name, topic in TOPICS.items()]
    print_json({"images": sources}) if as_json else print("\n".join(sources))
