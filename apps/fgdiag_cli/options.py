"""Arguments and options that several commands share, each written once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from fgdiag.errors import SiteNotFound
from fgdiag.prompts import FINE_QUESTION
from fgdiag.sites import READOUTS, Site

DEFAULT_PROMPT = FINE_QUESTION
DEFAULT_READOUTS = ",".join(READOUTS)

RECORDING, LABELLING, OPENING = "What is recorded", "Which images", "How the model is opened"
"""Panels of the help."""


def names(text: str) -> tuple[str, ...]:
    """Split `llm.3,llm.7` into its names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def batch_size(text: str) -> int | str:
    """`auto`, or the number that was typed."""
    return text if text == "auto" else int(text)


def tokens(text: str) -> tuple[str, ...] | str:
    """`auto`, or the sites that were typed; none for `none`."""
    return text if text == "auto" else names(text if text != "none" else "")


def _check_batch_size(text: str) -> str:
    if text != "auto" and not (text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(f"got {text!r}, expected `auto` or a number of images above 0")
    return text


def _check_readouts(text: str) -> str:
    if not names(text) or not set(names(text)) <= set(READOUTS):
        raise typer.BadParameter(f"got {text!r}, expected some of {', '.join(READOUTS)}")
    return text


def _check_sites(text: str | None) -> str | None:
    for name in names(text or ""):
        try:
            Site.parse(name)
        except SiteNotFound as error:
            raise typer.BadParameter(str(error)) from None
    return text


def _check_tokens(text: str) -> str:
    if text not in ("auto", "none"):
        _check_sites(text)
    return text


Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A vision-language model: a hub id (llava-hf/llava-1.5-7b-hf), a folder written by "
        "`save_pretrained`, or `demo`.",
    ),
]
Images = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES",
        help="Labelled images: a folder <fine>/*.jpg or <coarse>/<fine>/*.jpg, perhaps with train/ and test/ "
        "above; a .csv or .parquet table with the columns path and fine, perhaps coarse, split and group; or a "
        "Hugging Face dataset (a hub id, or a `save_to_disk` folder); or a published set (flowers-102, or "
        "flowers-102:FOLDER for a copy of your own; `fgdiag sets` lists them). Fine labels are what is hard to tell "
        "apart (species), coarse ones their kinds (genera).",
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder that `fgdiag extract` or `fgdiag diagnose` wrote.")
]
Out = Annotated[
    Path,
    typer.Option(
        "--out", "-o", metavar="RUN", help="Folder of the run: a new one, or one to go on with after a stop."
    ),
]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print JSON on stdout, for programs to read.")]
Figure = Annotated[
    Path | None, typer.Option(metavar="FILE.html", help="Write what can be drawn of it to this file.")
]

Prompt = Annotated[
    str, typer.Option(metavar="TEXT", help="What is asked about every image.", rich_help_panel=RECORDING)
]
Sites = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        callback=_check_sites,
        help="Sites: the places in the model to record, such as vision,projector,llm.3; `fgdiag inspect MODEL` "
        "lists them. Default: all but the single blocks of the vision encoder.",
        rich_help_panel=RECORDING,
    ),
]
Readouts = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        callback=_check_readouts,
        help="Readouts: the tokens averaged at each site. image: those of the image; last: the last of the "
        "prompt; pre: those before the image, which cannot know it (a control); cls: the encoder's class token.",
        rich_help_panel=RECORDING,
    ),
]
Tokens = Annotated[
    str,
    typer.Option(
        metavar="auto|none|NAMES",
        callback=_check_tokens,
        help="Sites at which every image token is kept too, for probes that learn which tokens to look at. auto: "
        "what the projector is fed and gives, the last and the middle LLM block, at most 4 GB of disk.",
        rich_help_panel=RECORDING,
    ),
]
BatchSize = Annotated[
    str,
    typer.Option(
        metavar="N|auto",
        callback=_check_batch_size,
        help="Images that go through the model at once; auto: as many as fit.",
        rich_help_panel=RECORDING,
    ),
]

TestShare = Annotated[
    float,
    typer.Option(
        metavar="SHARE",
        min=0.01,
        max=0.99,
        help="Share of each class held out for testing, where IMAGES has no test split.",
        rich_help_panel=LABELLING,
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="At most N images of each class in each split, for a quick look.",
        rich_help_panel=LABELLING,
    ),
]
GroupDuplicates = Annotated[
    bool,
    typer.Option(
        "--group-duplicates",
        metavar="",
        help="Keep near-duplicate images on one side of the split. Where IMAGES has a split of its own, training "
        "images that are near-duplicates of test images are excluded.",
        rich_help_panel=LABELLING,
    ),
]
Seed = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, metavar="N", help="Seed of all that is drawn at random.")
]

Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    typer.Option(
        metavar="NAME",
        help="Number format to compute in: float32, bfloat16, float16; auto: the model's own on a GPU, one that "
        "is fast on a CPU.",
        rich_help_panel=OPENING,
    ),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Where to compute: cpu, cuda, cuda:1, mps; auto: a GPU where there is one.",
        rich_help_panel=OPENING,
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="How to spread a large model over several GPUs, such as auto or balanced; instead of --device.",
        rich_help_panel=OPENING,
    ),
]
Revision = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Branch, tag or commit of a model on the hub.", rich_help_panel=OPENING
    ),
]
TrustRemoteCode = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code",
        metavar="",
        help="Run the code that a model on the hub brings along. Read it first.",
        rich_help_panel=OPENING,
    ),
]
RandomWeights = Annotated[
    bool,
    typer.Option(
        "--random-weights",
        metavar="",
        help="The same model untrained, as a control: its weights are drawn at random by --seed.",
        rich_help_panel=OPENING,
    ),
]
