"""Arguments and options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated

import typer


def _batch_size(text: str) -> str:
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(f"got {text!r}, expected `auto` or a number of images above 0")
    return text


def batch_size(text: str) -> int | str:
    """`auto`, or the number that was typed."""
    return text if text == "auto" else int(text)


def names(text: str | None) -> tuple[str, ...] | None:
    """Split `llm.3,llm.7` into its names; None stays None."""
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else None


Model = Annotated[str, typer.Argument(metavar="MODEL", help="Hub id, local folder, or `demo`.")]
Images = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="Folder `[<coarse>/]<fine>/*.jpg`, CSV or Parquet table, or Hugging Face dataset.",
    ),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a recorded run.")]
Out = Annotated[
    Path, typer.Option("--out", "-o", metavar="RUN", help="Folder of the run to write or resume.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
Prompt = Annotated[str | None, typer.Option(help="The question put beside every image.")]
BatchSize = Annotated[
    str, typer.Option(metavar="N|auto", callback=_batch_size, help="Images a forward pass; auto: what fits.")
]
Readouts = Annotated[
    str | None, typer.Option(metavar="NAMES", help="Readouts to record, such as `image,last`. Default: all.")
]
Sites = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Sites to record, such as `vision,llm.3`. Default: see inspect."),
]
TestShare = Annotated[
    float,
    typer.Option(min=0.01, max=0.99, help="Share held out of each class where IMAGES has no test split."),
]
Limit = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="At most N images of each class in each split.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of whatever is drawn at random.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps...")]
DeviceMap = Annotated[
    str | None, typer.Option(help="How to spread the model over devices (accelerate), such as `auto`.")
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")]
TrustRemoteCode = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run the code a model brings along. Read it first.")
]
