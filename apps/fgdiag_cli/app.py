"""The command `fgdiag app`: runs in a browser."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from fgdiag_cli import options

LOOPBACK = "127.0.0.1"


def explore(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Folders that `fgdiag diagnose` wrote; several can be compared."
        ),
    ],
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="N", help="Default: the first free one from 8050 on."),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Where to listen. Any but this machine alone (127.0.0.1) asks for a token.",
        ),
    ] = LOOPBACK,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="FGDIAG_TOKEN",
            metavar="TEXT",
            help="What a browser must show. Default: a new one where other machines can reach the address.",
        ),
    ] = None,
    prefix: Annotated[
        str, typer.Option(metavar="/PATH/", help="Path below which a proxy shows the explorer.")
    ] = "/",
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Look at runs in a browser: where detail is lost, in which classes, in which images.

    Prints the address, and serves it until it is interrupted (Ctrl-C). Pages
    only read what is in the runs; what has not been made yet is said, with
    the command that makes it. Attribution maps and token lenses of single
    images can be made from the page: the model is opened when somebody
    presses the button for that, not before.

    For example:
      fgdiag app runs/flowers
      fgdiag app runs/flowers runs/birds --port 9000
    """
    from fgdiag_explorer import serve

    from fgdiag.progress import say
    from fgdiag_cli.screen import print_json

    def told(address: str) -> None:
        print_json({"address": address, "runs": [str(run) for run in runs]}) if as_json else print(address)
        sys.stdout.flush()  # whoever reads this waits for it, not for the end
        say("Ctrl-C ends it.")

    serve(runs, host=host, port=port, prefix=prefix, token=token, device=device, told=told)
