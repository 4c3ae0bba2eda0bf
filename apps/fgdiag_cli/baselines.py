"""The command `fgdiag baselines`: what the images alone give away, beside what the model answers."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from fgdiag_probes.baselines import Baselines

    from fgdiag.store import Run

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
WORST = 8


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

    from fgdiag.image_models import open_image_model
    from fgdiag.progress import say
    from fgdiag.reopening import open_run, reopen_images
    from fgdiag_cli.screen import print_json, write_figures

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
    print_json(found.json()) if as_json else _print(found, recorded)


def _print(found: "Baselines", run: "Run") -> None:
    from fgdiag_probes.style import LEVEL_NAMES, percent

    from fgdiag_cli.screen import print_table

    table = found.frame()
    cells: dict[tuple[str, str, str], list[str]] = {}
    for row in table.to_dict("records"):
        cells.setdefault((row["model"], row["readout"], row["method"]), []).append(_score(row))
    chances = table.drop_duplicates("level").to_dict("records")
    heads = [f"{LEVEL_NAMES[row['level']]} (chance {percent(row['chance'])})" for row in chances]
    print_table(
        f"{len(found.labels.test)} test images of {run.path} named right, and by how many points more than by the "
        "VLM's answers, 95 % intervals",
        ["model", "readout", "method", *heads],
        [[*names, *scores] for names, scores in cells.items()],
    )
    worst = found.worst(top=WORST)
    if len(worst):
        level = worst["level"].iloc[0]
        print_table(
            f"Where the VLM stays furthest behind ({LEVEL_NAMES[level]}; against {worst['model'].iloc[0]}, "
            f"{worst['method'].iloc[0]})",
            ["coarse class", "images", "fine classes", "baseline", "VLM", "gap"],
            [
                [
                    *(row[name] for name in ("of", "images", "fine_classes")),
                    percent(row["accuracy"]),
                    percent(row["vlm_accuracy"]),
                    f"{row['gap']:.0f} ({row['low']:.0f} to {row['high']:.0f})",
                ]
                for row in worst.to_dict("records")
            ],
        )


def _score(row: dict[Any, Any]) -> str:
    """`74 % (68-80), gap 25 (16 to 34)`, the gap where there is one."""
    from fgdiag_probes.style import percent

    score = f"{percent(row['accuracy'])} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
    if row["gap"] != row["gap"]:
        return score
    return f"{score}, gap {row['gap']:.0f} ({row['gap_low']:.0f} to {row['gap_high']:.0f})"


def _figures(found: "Baselines") -> "list[go.Figure]":
    """Accuracy at every level, then the classes with the largest gaps."""
    gaps = [found.gap_figure()] if len(found.gaps) else []
    return [*(found.figure(level) for level in found.labels.levels), *gaps]
