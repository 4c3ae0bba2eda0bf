"""The command `fgdiag lens`: what the image tokens mean in words, layer by layer."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    from collections.abc import Iterator

    import plotly.graph_objects as go
    from fgdiag_probes.token_lens import TokenLenses

    from fgdiag.store import Run

NUMBERS = ("best", "rank", "best_among", "rank_among")
LISTED = 8
"""Sites in the printed table, the last one apart; --json has all."""

Count = Annotated[int, typer.Option("--images", "-n", min=1, metavar="N", help="How many test images.")]
Asked = Annotated[
    list[str] | None,
    typer.Option(
        "--image",
        metavar="ID",
        help="Read this image instead: its number, its id or its file, as `images.parquet` of the run has them; may be "
        "given several times.",
    ),
]
Figures = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write every lens as HTML figures into this folder.")
]


def lens(
    run: options.RunFolder,
    count: Count = 12,
    image: Asked = None,
    figures: Figures = None,
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    trust_remote_code: options.TrustRemoteCode = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Read image tokens as words, at every layer of the language model.

    The logit lens puts the model's own final norm and head on the residual
    stream behind every block; beside it stands the word whose input vector is
    nearest. Tells how far up the vocabulary the names of the image's classes
    stand. Kept in RUN/results/lens; `fgdiag app RUN` shows them on the image.

    For example:
      fgdiag lens runs/flowers -n 50
      fgdiag lens runs/demo --image 14 --figures lens/
    """
    from fgdiag_probes.lens import token_lenses

    from fgdiag.reopening import open_run, reopen_images, reopen_model
    from fgdiag_cli.screen import print_json, write_folder

    recorded = open_run(run)
    rows = [_row(recorded, one) for one in image] if image else None
    images = reopen_images(recorded)
    opening = {"device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
    vlm = reopen_model(recorded, exact=True, **opening)
    with recorded.lock():
        found = token_lenses(recorded, vlm, images, count=count, rows=rows, seed=seed)
    if figures is not None:
        write_folder(figures, _drawn(found))
    if as_json:
        return print_json(found.json())
    _print(found)


def _row(run: "Run", asked: str) -> int:
    """Return the row of an image that is named by its number, its id or its file."""
    from fgdiag.errors import RunIncomplete

    if asked.isdecimal() and int(asked) < len(run.images):
        return int(asked)
    for column in ("id", "source"):
        rows = (run.images[column] == asked).to_numpy().nonzero()[0]
        if len(rows):
            return int(rows[0])
    raise RunIncomplete(
        f"The run {run.path} has no image {asked!r}; give its number, 0 to {len(run.images) - 1}, or its id or file."
    )


def _drawn(found: "TokenLenses") -> "Iterator[tuple[str, go.Figure]]":
    """Two figures of each image and way of reading, named."""
    from fgdiag_probes.token_lens import WAYS

    for one in found.lenses:
        for way in WAYS:
            yield f"{one.row:07d}.{way}.words", one.figure(way=way)
            yield f"{one.row:07d}.{way}.ranks", one.curve(way)


def _print(found: "TokenLenses") -> None:
    from fgdiag_probes.token_lens import WAYS

    from fgdiag_cli.screen import print_table

    table, sites = found.frame(), found.lenses[0].sites
    shown = {*sites[:: -(-len(sites) // LISTED)], sites[-1]}
    count = len(found.lenses)
    of = f"median over {count} images" if count > 1 else f"image {found.lenses[0].row}"
    for way, words in WAYS.items():
        records = table.to_dict("records")
        rows = [row for row in records if row["way"] == way and row["site"] in shown]
        chance = ", ".join(f"{row['level']} {row['chance']:,.0f}" for row in rows if row["site"] == sites[0])
        print_table(
            f"{words.capitalize()}: rank of the class name's first token in the vocabulary, {of}; "
            f"of a token that knows nothing: {chance}",
            ["site", "name", "best token", "middle token", "best among names", "middle among names"],
            [[row["site"], row["level"], *(f"{row[name]:,.0f}" for name in NUMBERS)] for row in rows],
        )
