"""The command `fgdiag recipe`: what two papers did, on a recorded run, and the bridge between them."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    from fgdiag_probes.bridge import Bridge
    from fgdiag_probes.recipes import Outcome, Recipe

    from fgdiag.store import Run

Name = Annotated[
    Literal["vlmclassifier", "response-wide-shut", "bridge"],
    typer.Argument(
        metavar="NAME",
        help="vlmclassifier: Zhang et al., NeurIPS 2024, who find the class still readable at the last layer of the "
        "LLM. response-wide-shut: Chandhok et al., ACL 2025, who find it lost there. bridge: from the first to the "
        "second, one ingredient at a time.",
    ),
]
ImagesAClass = Annotated[
    int,
    typer.Option(
        min=2, metavar="N", help="Training images a class of response-wide-shut, which does not tell."
    ),
]


def recipe(
    name: Name,
    run: options.RunFolder,
    images_a_class: ImagesAClass = 10,
    figure: options.Figure = None,
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    trust_remote_code: options.TrustRemoteCode = False,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Probe a run as two papers that contradict each other did, flaws included.

    The flaws are named below the table. The bridge says how much of the
    difference each ingredient makes: the tokens that are read, final norm,
    standardisation, optimiser, selection on test images, training images.
    The model is opened once, to write its replies. Fits are kept in the run.

    For example:
      fgdiag recipe vlmclassifier runs/flowers
      fgdiag recipe bridge runs/flowers --figure bridge.html
    """
    from dataclasses import replace

    from fgdiag_probes.bridge import bridge
    from fgdiag_probes.recipes import RESPONSE_WIDE_SHUT, VLMCLASSIFIER, apply_recipe

    from fgdiag.reopening import open_run
    from fgdiag_cli.screen import write_figures

    if figure and name != "bridge":
        raise typer.BadParameter(f"--figure draws the bridge; {name} has no figure.")
    recorded = open_run(run)
    shut = replace(RESPONSE_WIDE_SHUT, images_a_class=images_a_class)
    opening = {"device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
    with recorded.lock():
        _let_reply(recorded, opening)
        if name == "bridge":
            bridged = bridge(recorded, VLMCLASSIFIER, shut, seed=seed)
            _show(bridged, _print_bridge, as_json)
            if figure:
                write_figures(figure, bridged.figure())
        else:
            chosen = shut if name == shut.name else VLMCLASSIFIER
            _show(apply_recipe(recorded, chosen, seed=seed), _print_outcome, as_json)


def _show(found: Any, as_table: Any, as_json: bool) -> None:
    from fgdiag_cli.screen import print_json

    print_json(found.json()) if as_json else as_table(found)


def _let_reply(run: "Run", opening: dict[str, Any]) -> None:
    """Let the model reply to every image, unless it has."""
    from fgdiag_probes.response_tokens import has_responses, record_responses

    from fgdiag.reopening import reopen_images, reopen_model

    if not has_responses(run):
        images = reopen_images(run)
        record_responses(run, reopen_model(run, **opening), images)


def _print_outcome(outcome: "Outcome") -> None:
    from fgdiag_probes.style import percent

    from fgdiag_cli.screen import print_table

    rows = []
    for row in outcome.table.to_dict("records"):
        probed = isinstance(row["site"], str)  # answers are read from no site
        read = f"{row['site']}, {row['readout']}" if probed else ""
        sound = percent(row["sound"]) if probed else ""
        rows.append([row["what"], read, percent(row["accuracy"]), _span(row), sound])
    train, test = outcome.images
    print_table(
        f"{outcome.recipe.title} ({outcome.recipe.source}): {train} training images, {test} test images, "
        f"chance {percent(outcome.chance)}",
        ["", "read from", "accuracy", "95 % interval", "without choosing on test"],
        rows,
    )
    _print_flaws(outcome.recipe)


def _print_bridge(bridge: "Bridge") -> None:
    from fgdiag_probes.style import percent

    from fgdiag_cli.screen import print_table

    contributions = bridge.contributions
    depths = list(dict.fromkeys(contributions["depth"]))
    cells: dict[str, dict[str, str]] = {}
    for row in contributions.to_dict("records"):
        ingredient = row["ingredient"] + " *" * row["assumed"]
        cells.setdefault(ingredient, {})[row["depth"]] = _points(row)
    rows = [[ingredient, *(of.get(depth, "") for depth in depths)] for ingredient, of in cells.items()]
    print_table(
        f"From {bridge.start.title} to {bridge.end.title}: contributions to the change of accuracy, in points, "
        f"on the mean over all orders, 95 % intervals; {bridge.images} test images",
        ["ingredient", *depths],
        rows,
    )
    print("* not told by the paper: assumed\n")
    answers = [
        [row["scoring"], percent(row["accuracy"]), _span(row)] for row in bridge.answers.to_dict("records")
    ]
    print_table("The model's answers, scored", ["right where", "accuracy", "95 % interval"], answers)
    for recipe in (bridge.start, bridge.end):
        _print_flaws(recipe)


def _print_flaws(recipe: "Recipe") -> None:
    print(f"Flaws of {recipe.title}:")
    for flaw in recipe.flaws:
        print(f"- {flaw}")


def _span(row: dict[Any, Any]) -> str:
    return f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %"


def _points(cell: dict[Any, Any]) -> str:
    return f"{cell['points']:+.1f} ({cell['low']:+.1f} to {cell['high']:+.1f})"
