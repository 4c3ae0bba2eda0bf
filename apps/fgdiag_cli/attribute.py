"""The command `fgdiag attribute`: what in a picture tells two classes apart for the model, with checks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    from fgdiag_probes.maps import AttributionMaps

Pair = Annotated[
    tuple[str, str],
    typer.Option(
        metavar="CLASS CLASS", help="Two classes, as they are called on disk or as they are spoken."
    ),
]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        metavar="NAME",
        help="ig (integrated gradients), ixg (input times gradient), gradcam, occlusion, shapley, kernelshap, or "
        "rollout (a baseline, blind to the question); may be given several times. Where it looks goes behind an @: "
        "ig@pixels, gradcam@vision (the encoder's tokens), shapley@projector (the image tokens). Default: ig.",
    ),
]
Target = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="What is explained. name: the log-odds of one class name against the other; letter: of their letters in a "
        "question with these two options; probe:SITE, such as probe:llm.12: the linear probe there.",
    ),
]
Count = Annotated[
    int, typer.Option("--images", "-n", min=1, metavar="N", help="How many test images of the pair.")
]
Budget = Annotated[
    int, typer.Option(min=16, metavar="N", help="Forward passes a map that shapley and kernelshap may take.")
]
Figures = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Write every map as an HTML figure into this folder.")
]


def attribute(
    run: options.RunFolder,
    pair: Pair,
    method: Methods = None,
    target: Target = "name",
    count: Count = 20,
    budget: Budget = 256,
    figures: Figures = None,
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    trust_remote_code: options.TrustRemoteCode = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Show what in a picture tells two classes apart for the model.

    Makes maps of test images and checks them: does the score fall when what
    is marked is blurred, more than for the same map moved elsewhere and for
    the centre; does the map change when the model's weights are shuffled;
    and on drawn birds, does it lie on the marks that truly differ. Maps are
    kept in RUN/results/attribution.

    For example:
      fgdiag attribute runs/grocery --pair "Granny Smith" "Golden Delicious"
      fgdiag attribute runs/demo --pair "Ruby Barkpecker" "Golden Barkpecker" --method gradcam --target probe:vision
    """
    from fgdiag_probes.attribution import attribute as make_maps
    from fgdiag_probes.attribution import contrasts
    from fgdiag_probes.map_methods import method_named

    from fgdiag.reopening import open_run, reopen_images, reopen_model
    from fgdiag_cli.screen import print_json, write_folder

    names = method or ["ig"]
    for name in names:
        method_named(name)
    recorded = open_run(run)
    contrasts(recorded, [pair])  # a wrong pair is told before the model is loaded
    images = reopen_images(recorded)
    opening = {"device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
    vlm = reopen_model(recorded, exact=True, **opening)
    with recorded.lock():
        found = make_maps(
            recorded, vlm, images, [pair], methods=names, target=target, count=count, budget=budget, seed=seed
        )
    if figures is not None:
        write_folder(figures, ((f"{one.row:07d}.{one.name}", one.figure()) for one in found.maps))
    if as_json:
        return print_json(found.json())
    _print(found)


MARKS = ("on_marks", "marks_of_bird", "on_worn", "worn_of_bird", "on_bird")


def _print(found: "AttributionMaps") -> None:
    from fgdiag_cli.screen import print_table

    rows = found.frame().to_dict("records")
    print_table(
        f"{found.maps[0].target}. Insertion minus deletion, against the same maps moved elsewhere and the centre: "
        "95 % intervals",
        [
            "method",
            "images",
            "over moved maps",
            "interval",
            "over the centre",
            "interval",
            "like a ruined model's",
        ],
        [
            [
                row["method"],
                row["images"],
                *(text for name in ("over_moved", "over_centre") for text in _interval(row, name)),
                f"{row['ruined']:.2f}",
            ]
            for row in rows
        ],
    )
    if any(row["on_marks"] == row["on_marks"] for row in rows):
        print_table(
            "Share of the map on the parts that truly differ, and on those of them that are marked on the bird shown; "
            "their shares of the bird's area are what a map of the bird and no more has there",
            ["method", "on the parts", "their area", "on the bird's own marks", "their area", "on the bird"],
            [[row["method"], *(f"{100 * row[name]:.1f} %" for name in MARKS)] for row in rows],
        )
    for sentence in found.sentences():
        print(sentence)


def _interval(row: dict, name: str) -> tuple[str, str]:
    from fgdiag_probes.style import minus

    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return minus(f"{row[name]:+.2f}"), minus(f"{low:+.2f} to {high:+.2f}")
