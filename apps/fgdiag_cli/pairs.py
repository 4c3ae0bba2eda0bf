"""The command `fgdiag pairs`: where along the model two classes stop being told apart."""

from typing import TYPE_CHECKING, Annotated

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    from fgdiag_probes.separability import PairCurves

Pair = Annotated[
    tuple[str, str] | None,
    typer.Option(
        metavar="CLASS CLASS",
        help="Two classes, as they are called on disk or as they are spoken. Default: the most confused pairs.",
    ),
]
Top = Annotated[int, typer.Option(min=1, metavar="N", help="How many of the most confused pairs.")]


def pairs(
    run: options.RunFolder,
    pair: Pair = None,
    top: Top = 10,
    figure: options.Figure = None,
    as_json: options.Json = False,
) -> None:
    """Say where along the model two classes stop being told apart.

    At each site a linear discriminant decides between the two; 50 % is
    chance. A pair is lost where that falls significantly and no later site
    makes it good, or nowhere. Reads what is recorded, without the model.

    For example:
      fgdiag pairs runs/flowers
      fgdiag pairs runs/grocery --pair "Granny Smith" "Golden Delicious"
    """
    from fgdiag_probes.separability import pair_curves

    from fgdiag.reopening import open_run
    from fgdiag_cli.screen import print_json, write_figures

    recorded = open_run(run)
    with recorded.lock():
        found = pair_curves(recorded, [pair] if pair else None, top=top, seed=recorded.manifest["seed"])
    if figure is not None:
        write_figures(figure, found.figure())
    if as_json:
        return print_json(found.json())
    _print_places(found)
    if pair:
        _print_curve(found)


def _print_places(found: "PairCurves") -> None:
    from fgdiag_probes.pair_figure import where_lost
    from fgdiag_probes.separability import PICKED_NOTE
    from fgdiag_probes.style import minus

    from fgdiag.prompts import spoken
    from fgdiag_cli.screen import print_table

    rows = found.places.to_dict("records")
    print_table(
        "Pairs of classes and where they are lost; changes in points of test images told apart, 95 % intervals",
        ["pair", "test images", "taken for the other", "where", "from", "to", "change", "interval"],
        [
            [
                f"{spoken(row['first'])} / {spoken(row['second'])}",
                row["images"],
                row["confused"],
                where_lost({str(name): value for name, value in row.items()}),
                row["after"],
                row["by"],
                minus(f"{-row['drop']:+.0f}"),
                minus(f"{-row['high']:+.0f} to {-row['low']:+.0f}"),
            ]
            for row in rows
        ],
    )
    for row in rows:
        if row["marks"]:
            print(f"{spoken(row['first'])} / {spoken(row['second'])} differ by: {row['marks']}")
    if found.picked:
        print(PICKED_NOTE)


def _print_curve(found: "PairCurves") -> None:
    from fgdiag_probes.style import percent

    from fgdiag_cli.screen import print_table

    print_table(
        "Test images told apart at each site, 95 % intervals; chance 50 %",
        ["site", "readout", "told apart", "interval"],
        [
            [
                row["site"],
                row["readout"],
                percent(row["accuracy"]),
                f"{100 * row['low']:.0f} to {100 * row['high']:.0f}",
            ]
            for row in found.curves.to_dict("records")
        ],
    )
