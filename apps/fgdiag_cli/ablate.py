"""`fgdiag ablate`: train and measure a grid of VLMs, and say what each swap of a part is worth."""

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fgdiag_cli import options

if TYPE_CHECKING:
    from fgdiag_probes.asymmetry import Estimate
    from fgdiag_probes.grid import Grid
    from fgdiag_probes.lab import Ablation


def ablate(
    grid: Annotated[
        Path,
        typer.Argument(
            metavar="GRID", help="TOML: encoders, language models, plans, seeds, images, benchmarks."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Folder of the ablation.")],
    device: options.Device = "auto",
    figure: options.Figure = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Only say which cells there are, and how long.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Swap the encoder, swap the language model, freeze or not: what moves?

    Every cell of the grid is assembled, trained and measured on fine-grained
    and on general benchmarks; then the gains of every swap are compared, with
    intervals, and held against the claims of arXiv 2602.17871. Each cell is an
    ordinary VLM in OUT/cells, and its runs open in `fgdiag app`. Stop it at any
    time; started again it goes on, and started on a second device the two share
    the cells out.

    For example:
      fgdiag ablate grid.toml -o runs/ablation
    """
    from fgdiag_probes.grid import Grid

    from fgdiag_cli.screen import print_json, write_figures

    asked = Grid.read(grid)
    if dry_run:
        return _print_plan(asked, out)
    from fgdiag_probes.asymmetry_figure import gains_figure, stages_figure
    from fgdiag_probes.lab import ablate as measure_all

    found = measure_all(asked, out, device=device)
    if figure:
        write_figures(figure, gains_figure(found.swaps), stages_figure(found.swaps))
    print_json(found.json()) if as_json else print_ablation(found)
    if found.failed:
        raise typer.Exit(1)


def _print_plan(grid: "Grid", out: Path) -> None:
    from fgdiag_probes.lab import todo

    from fgdiag_cli.screen import print_table

    left = {cell.name for cell in todo(grid, out)}
    rows = [
        [number, cell.name, _length(grid, cell.plan), "" if cell.name in left else "done"]
        for number, cell in enumerate(grid.cells, start=1)
    ]
    print_table("Cells in their order", ["cell", "name", "training", ""], rows)
    print(f"{len(left)} of {len(grid.cells)} cells to do{_how_long(grid, out, left)}.")


def _how_long(grid: "Grid", out: Path, left: set[str]) -> str:
    """What is known of the time that is left: from cells that are done, or else from what their training is given."""
    from fgdiag_probes.lab import minutes_left

    if not left:
        return ""
    measured = minutes_left(grid, out)
    if measured is not None:
        return f", in about {measured:.0f} minutes, if each takes as long as those that are done"
    stages = [stage for cell in grid.cells if cell.name in left for stage in grid.plans[cell.plan].stages]
    trained = sum(stage.minutes or 0.0 for stage in stages)
    return f"; {trained:.0f} minutes of training in them at least" if trained else ""


def _length(grid: "Grid", plan: str) -> str:
    stages = grid.plans[plan].stages
    return "; ".join(
        f"{', '.join(one.train)}: "
        + next(
            f"{value:g} {name}" for name in ("minutes", "epochs", "steps") if (value := getattr(one, name))
        )
        for one in stages
    )


def print_ablation(found: "Ablation") -> None:
    """Print the cells, what each swap gains, where in the model, and what that says of the claims."""
    from fgdiag_probes.asymmetry_figure import STAGE_COLOURS, name_of

    from fgdiag_cli.screen import print_table

    cells = found.frame()
    rows = [[f"{v:.0f}" if isinstance(v, float) else v for v in row] for row in cells.to_numpy(object)]
    print_table("Accuracy of each cell (%): mean of each group, then each benchmark", list(cells), rows)
    heads = ["swap", "fine", "general", "fine less general (logits)", "ratio"]
    rows = [
        [
            name_of(swap),
            *(_points(swap.points[group]) for group in ("fine", "general")),
            _with_interval(swap.logits["difference"], 2),
            _ratio(swap.ratio),
        ]
        for swap in found.swaps
    ]
    print_table("Gain of each swap in points, with 95 % intervals", heads, rows)
    stages = list(STAGE_COLOURS)
    rows = [[name_of(swap), *(_points(swap.stages[stage]) for stage in stages)] for swap in found.swaps]
    print_table(
        "Points of fine accuracy that each swap loses more (+) or less (-) at a stage",
        ["swap", *stages],
        rows,
    )
    left_out = dict.fromkeys(name for swap in found.swaps for name in swap.at_chance)
    if left_out:
        print(f"Too near chance in some cell to count in logits: {'; '.join(left_out)}.")
    for one in found.claims:
        print(f"{one.claim} {name_of(one.swap)}: {one.ruling}; {one.reason}.")
    print(f"Correlation of fine and general scores over cells: {_with_interval(found.correlation(), 2)}.")
    efforts = found.efforts
    rows = [[f"{v:.1f}" if isinstance(v, float) else v for v in row] for row in efforts.to_numpy(object)]
    print_table("What each cell took", list(efforts), rows)
    if len(cells) < found.planned:
        print(f"{len(cells)} of {found.planned} cells are measured; what is said above is of these alone.")
    for name, reason in found.failed.items():
        print(f"{name} cannot be done: {reason}")


def _points(estimate: "Estimate") -> str:
    return _with_interval(estimate, 0)


def _with_interval(estimate: "Estimate", digits: int) -> str:
    if isnan(estimate.value):
        return "unknown"
    value, low, high = (f"{end:+.{digits}f}" for end in (estimate.value, estimate.low, estimate.high))
    return f"{value} ({low} to {high})"


def _ratio(ratio: "Estimate") -> str:
    if isnan(ratio.low):
        return "undefined"
    return f"{ratio.value:.1f} ({ratio.low:.1f} to {ratio.high:.1f})"
