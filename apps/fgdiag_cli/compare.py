"""The command `fgdiag compare`: recorded runs laid side by side, on the same images."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    from fgdiag_probes import Comparison

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN RUN...", help="Two runs or more. Others are compared with the first."),
]
Figure = Annotated[
    Path | None,
    typer.Option("--figure", "-o", metavar="FILE.html", help="Write the figures to this file."),
]
Paper = Annotated[
    Literal["markdown", "latex", "csv"] | None,
    typer.Option(
        "--format",
        metavar="NAME",
        help="Print one table to paste into a paper: markdown, latex (booktabs), or csv (all numbers).",
    ),
]


def compare(
    runs: Runs,
    figure: Figure = None,
    paper: Paper = None,
    as_json: options.Json = False,
) -> None:
    """Lay runs of several models side by side, on the same images.

    Says at each depth how many points one reads more than the other, with
    95 % intervals, and whether both fail on the same images in the same way.
    Runs of other images, splits, class names, prompts or readouts are
    refused. Reads what is recorded, without the models.

    For example:
      fgdiag compare runs/llava runs/qwen
      fgdiag compare runs/llava runs/qwen -o compared.html --format latex
    """
    from fgdiag_probes import compare_runs
    from fgdiag_probes.paper_table import paper_table

    from fgdiag.reopening import open_run
    from fgdiag_cli.screen import print_json, write_figures

    if paper and as_json:
        raise typer.BadParameter("--json and --format both print to stdout; choose one.")
    opened = [open_run(run) for run in runs]
    with ExitStack() as stack:
        for run in {run.path.resolve(): run for run in opened}.values():
            stack.enter_context(run.lock())
        found = compare_runs(opened)
    if figure is not None:
        write_figures(figure, *found.figures())
    if as_json:
        return print_json(found.json())
    print(paper_table(found, paper)) if paper else _print(found)


def _print(found: "Comparison") -> None:
    for note in found.notes:
        print(f"note: {note}")
    for level in found.levels:
        _print_depths(found, level)
    if len(found.words):
        _print_words(found)
    _print_agreement(found)


def _print_depths(found: "Comparison", level: str) -> None:
    """Print a row a depth: accuracy of each run, then each difference from the first."""
    from fgdiag_probes.closer_look import DEPTH_WORDS
    from fgdiag_probes.style import LEVEL_WORDS, minus, percent

    from fgdiag_cli.screen import print_table

    depths = found.depths.loc[found.depths["level"] == level]
    apart = found.differences.loc[found.differences["level"] == level].to_dict("records")
    cells: dict[str, list[str]] = {depth: [DEPTH_WORDS[depth]] for depth in depths["depth"]}
    for row in depths.to_dict("records"):
        cells[row["depth"]].append(
            f"{percent(row['accuracy'])} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
        )
    for row in apart:
        cells[row["depth"]] += [
            minus(f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"),
            row["outcome"],
        ]
    first, *others = found.runs["run"]
    heads = ["depth", first, *others]
    for other in others:
        heads += [f"{other} {minus('-')} {first}", ""]
    print_table(
        f"{LEVEL_WORDS[level].capitalize()}: accuracy on {depths['images'].iloc[0]} test images, and paired "
        "differences in points; 95 % intervals, significance Holm-corrected over depths",
        heads,
        list(cells.values()),
    )


def _print_words(found: "Comparison") -> None:
    from fgdiag_probes.style import LEVEL_WORDS, minus, percent

    from fgdiag_cli.screen import print_table

    rows = [
        [
            LEVEL_WORDS[row["level"]],
            row["way"],
            row["run"],
            percent(row["accuracy_first"]),
            percent(row["accuracy"]),
            minus(f"{row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"),
            row["outcome"],
            row["images"],
        ]
        for row in found.words.to_dict("records")
    ]
    first = found.runs["run"].iloc[0]
    print_table(
        f"In words, where both were asked the same: points more than {first}, paired; significance "
        "Holm-corrected over levels and ways",
        ["level", "asked by", "run", first, "right", "difference", "", "images"],
        rows,
    )


def _print_agreement(found: "Comparison") -> None:
    from fgdiag_probes.closer_look import DEPTH_WORDS
    from fgdiag_probes.style import LEVEL_WORDS, percent

    from fgdiag_cli.screen import print_table

    rows: list[list[Any]] = [
        [
            LEVEL_WORDS[row["level"]],
            f"{row['first']}, {row['second']}",
            DEPTH_WORDS[row["depth"]],
            percent(row["both_right"]),
            percent(row["only_first"]),
            percent(row["only_second"]),
            percent(row["both_wrong"]),
            "" if row["kappa"] is None else f"{row['kappa']:.2f}",
            "" if row["same_wrong"] is None else percent(row["same_wrong"]),
            "" if row["same_wrong_by_luck"] is None else percent(row["same_wrong_by_luck"]),
        ]
        for row in found.json()["agreement"]
    ]
    print_table(
        "Do they fail alike? Shares of test images; kappa of being right: 1 on the same images, 0 by luck; of the "
        "images wrong for both, those taken for the same class",
        [
            "level",
            "runs",
            "read at",
            "both right",
            "only first",
            "only second",
            "both wrong",
            "kappa",
            "same wrong class",
            "by luck",
        ],
        rows,
    )
