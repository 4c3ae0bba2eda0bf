"""`fgdiag train`: teach an assembled VLM to name what it is shown."""

from pathlib import Path
from typing import Annotated

import typer

from fgdiag_cli import options


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder that `fgdiag assemble` has written.")],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES",
            help="One or more sets of labelled images, see `fgdiag extract --help`. A set whose labels answer a "
            "question of its own is given as `FOLDER?How many birds?`.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Folder of the VLM to write.")],
    plan: Annotated[
        Path | None,
        typer.Option(
            metavar="TOML", help="What learns, for how long and how fast; else the projector, 6 passes."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Passes over the images, without a plan.")
    ] = None,
    views: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Versions of each image, without a plan: itself, then random crops; one a pass in turn.",
        ),
    ] = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Train an assembled VLM on labelled images: projector, encoder, LLM.

    While the encoder is frozen it sees each image once. The loss falls on the
    answers only. Stop it at any time; the same command goes on from its last
    checkpoint. Curves are in OUT/training/history.csv.

    For example:
      fgdiag train joined/ birds/ -o my-vlm/
      fgdiag train joined/ birds/ -o my-vlm/ --plan stages.toml
    """
    from fgdiag.training import train as teach
    from fgdiag_cli.screen import print_json
    from fgdiag_cli.teaching import plan_of, teaching_of

    asked = plan_of(plan, epochs=epochs, views=views, seed=seed)
    teach(model, [teaching_of(one) for one in images], out, asked, device=device)
    print_json({"model": str(out)}) if as_json else print(out)
