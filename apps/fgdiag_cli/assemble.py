"""`fgdiag assemble`: join an encoder and a language model into one VLM folder."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fgdiag_cli import options


class Kind(StrEnum):
    """The projectors there are."""

    pixel_shuffle = "pixel-shuffle"
    mlp = "mlp"
    linear = "linear"


def assemble(
    encoder: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Vision encoder: hub id, folder, dinov2-small, efficientnet-lite0 or efficientnet-lite2.",
        ),
    ],
    llm: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Language model: hub id, folder, GGUF file, smollm2-135m or gemma3-270m."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Folder of the VLM to write.")],
    projector: Annotated[
        Kind,
        typer.Option(
            help="pixel-shuffle merges neighbouring patches into one image token; mlp and linear keep each."
        ),
    ] = Kind.pixel_shuffle,
    merge: Annotated[
        int, typer.Option(min=1, metavar="N", help="For pixel-shuffle: N x N patches become one token.")
    ] = 4,
    resolution: Annotated[
        int | None,
        typer.Option(min=1, metavar="PIXELS", help="Side at which the encoder sees images; else its own."),
    ] = None,
    llm_layers: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Keep only the first N layers of the language model."),
    ] = None,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Join a vision encoder and a language model by an untrained projector.

    The result is an ordinary VLM folder of `transformers`, which `fgdiag train`
    then teaches to see.

    For example:
      fgdiag assemble --encoder dinov2-small --llm smollm2-135m -o joined/
    """
    from fgdiag.assemble import assemble as join
    from fgdiag.assemble import write_assembled
    from fgdiag.errors import RunMismatch
    from fgdiag_cli.screen import print_json

    if (out / "config.json").exists():
        raise RunMismatch(f"{out} holds a model already; give another folder for this one.")
    sizes = {"merge": merge, "resolution": resolution, "llm_layers": llm_layers, "seed": seed}
    write_assembled(*join(encoder, llm, projector=projector.value, **sizes), out)
    print_json({"model": str(out)}) if as_json else print(out)
