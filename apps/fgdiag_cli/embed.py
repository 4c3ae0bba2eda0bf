"""The command `fgdiag embed`: maps of the images, site by site."""

from typing import Annotated

import typer

from fgdiag_cli import options


def embed(
    run: options.RunFolder,
    sites: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Sites, such as vision,projector,llm.14. Default: vision, projector and four LLM layers.",
        ),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Lay the images out as points, near where a site takes them to be alike.

    The maps of neighbouring sites are aligned (AlignedUMAP), so images move
    from one to the next rather than jump. `fgdiag app RUN` shows them.

    For example:
      fgdiag embed runs/flowers
      fgdiag embed runs/flowers --sites vision,llm.norm
    """
    from fgdiag_probes.embedding import embed as lay_out

    from fgdiag.reopening import open_run
    from fgdiag_cli.screen import print_json

    recorded = open_run(run)
    with recorded.lock():
        found = lay_out(recorded, options.names(sites or "") or None, seed=seed)
    if as_json:
        return print_json(found.json())
    for site, trust in found.trust.items():
        print(f"{site}: trustworthiness {trust:.2f} of 1")
