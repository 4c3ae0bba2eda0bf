"""The command `fgdiag baselines`: what the images alone give away, beside what the model answers."""

from typing import TYPE_CHECKING, Annotated

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from fgdiag_probes.baselines import Baselines

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="An image model to compare with, be it a transformer, a CNN, or one that reads texts too (CLIP, SigLIP): "
        "a hub id, a folder, or efficientnet-lite0, efficientnet-lite2, dinov2-small, which need no hub. May be given "
        "several times; those given once are compared from then on.",
    ),
]
Templates = Annotated[
    list[str] | None,
    typer.Option(
        "--template",
        metavar="TEXT",
        help="How a class is put into words for a model that reads texts, {} being its name. May be given several "
        "times; their embeddings are averaged. Default: seven phrasings of CLIP.",
    ),
]


def baselines(
    run: options.RunFolder,
    model: Models = None,
    template: Templates = None,
    figure: options.Figure = None,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Read the images without the language model, and compare with its answers.

    A linear probe, nearest neighbours and class means on the model's own
    vision encoder, on the pixels, and on every image model you name; and
    zero-shot names where that one reads texts. The gap is how many more
    images they name right than the model does in its answers.

    For example:
      fgdiag baselines runs/flowers
      fgdiag baselines runs/flowers --model efficientnet-lite0
      fgdiag baselines runs/flowers --model openai/clip-vit-base-patch16
    """
    from fgdiag_probes.baselines import compare_baselines
    from fgdiag_probes.said_folds import baseline_folds

    from fgdiag.image_models import open_image_model
    from fgdiag.progress import say
    from fgdiag.reopening import open_run, reopen_images
    from fgdiag_cli.screen import print_folds, print_json, write_figures

    recorded = open_run(run)
    opening = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    with recorded.lock():
        opened = []
        for name in model or []:
            say(f"opening {name}")
            opened.append(open_image_model(name, **opening))
        images = reopen_images(recorded) if opened else None
        seed = recorded.manifest["seed"]
        found = compare_baselines(recorded, opened, images, templates=template, seed=seed)
    if figure:
        write_figures(figure, *_figures(found))
    print_json(found.json()) if as_json else print_folds(baseline_folds(found))


def _figures(found: "Baselines") -> "list[go.Figure]":
    """Accuracy at every level, then the classes with the largest gaps."""
    gaps = [found.gap_figure()] if len(found.gaps) else []
    return [*(found.figure(level) for level in found.labels.levels), *gaps]
