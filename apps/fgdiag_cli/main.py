"""The command `fgdiag`. Each command reads, calls and prints; what is heavy is imported when it runs."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

import fgdiag
from fgdiag_cli import options
from fgdiag_cli.ablate import ablate
from fgdiag_cli.answering import answer
from fgdiag_cli.app import explore
from fgdiag_cli.assemble import assemble
from fgdiag_cli.attribute import attribute
from fgdiag_cli.baselines import baselines
from fgdiag_cli.compare import compare
from fgdiag_cli.drawing import fieldguide, scenes
from fgdiag_cli.embed import embed
from fgdiag_cli.guard import Guarded, quieten
from fgdiag_cli.lens import lens
from fgdiag_cli.pairs import pairs
from fgdiag_cli.recipe import recipe
from fgdiag_cli.sets import sets
from fgdiag_cli.train import train

STEPS, AROUND = "The steps of diagnose, one by one", "Models and images"
MAKING = "Make a VLM, to see what its parts are worth"
"""Panels of the help."""

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    epilog="Results go to stdout, progress to stderr. Exit code: 0 done, 1 something to mend (one line says what), "
    "2 wrong usage, 130 interrupted.",
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the command line."""
    quieten()
    app(prog_name="fgdiag")


def _print_version(asked: bool) -> None:
    if asked:
        print(f"fgdiag {fgdiag.__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool,
        typer.Option(
            "--version", metavar="", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Find where a vision-language model loses fine-grained detail.

    It shows your labelled images to the model, trains a linear probe on what
    stands at each layer to read the label there, and asks the model itself.
    The verdict names the stage where the label is lost: vision encoder,
    projector, language model, or answer.

    Start with one of these:
      fgdiag demo
      fgdiag diagnose llava-hf/llava-1.5-7b-hf flowers/ -o runs/flowers
    """


@app.command()
def demo(
    ctx: typer.Context,
    no_app: Annotated[
        bool, typer.Option("--no-app", metavar="", help="End when the report is written; for scripts.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Diagnose a small real VLM on drawn birds, in a few minutes on a laptop.

    Then shows the run in a browser, at the address it prints, until Ctrl-C.

    Writes runs/demo-fieldguide and runs/demo into the current folder. The
    first time it fetches about 180 MB and builds the model (1.1 GB) in the
    cache of the user: $FGDIAG_CACHE, else ~/.cache/fgdiag.
    """
    from fgdiag_cli import diagnose as steps

    _show(steps.demo(_typed(ctx)), as_json)
    if not (no_app or as_json):
        explore([steps.DEMO_RUN])


@app.command()
def diagnose(
    ctx: typer.Context,
    model: options.Model,
    images: options.Images,
    out: options.Out,
    prompt: options.Prompt = options.DEFAULT_PROMPT,
    sites: options.Sites = None,
    readouts: options.Readouts = options.DEFAULT_READOUTS,
    tokens: options.Tokens = "auto",
    batch_size: options.BatchSize = "auto",
    test_share: options.TestShare = 0.25,
    limit: options.Limit = None,
    group_duplicates: options.GroupDuplicates = False,
    seed: options.Seed = 0,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    random_weights: options.RandomWeights = False,
    as_json: options.Json = False,
) -> None:
    """Do everything: extract, probe, answer, judge and report.

    Prints the verdict, which is also in RUN/results/verdict.json, and writes
    RUN/report.html. After a stop, the same command goes on where it was; on
    a finished run it gives the same verdict without loading the model.

    For example:
      fgdiag diagnose llava-hf/llava-1.5-7b-hf flowers/ -o runs/flowers
      fgdiag diagnose ./my-vlm birds.csv -o runs/birds --limit 20 --device cpu
    """
    from fgdiag_cli import diagnose as steps

    _show(steps.diagnose(_request(ctx)), as_json)


app.command("app")(explore)


app.command()(compare)


@app.command(rich_help_panel=STEPS)
def extract(
    ctx: typer.Context,
    model: options.Model,
    images: options.Images,
    out: options.Out,
    prompt: options.Prompt = options.DEFAULT_PROMPT,
    sites: options.Sites = None,
    readouts: options.Readouts = options.DEFAULT_READOUTS,
    tokens: options.Tokens = "auto",
    batch_size: options.BatchSize = "auto",
    test_share: options.TestShare = 0.25,
    limit: options.Limit = None,
    group_duplicates: options.GroupDuplicates = False,
    seed: options.Seed = 0,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    random_weights: options.RandomWeights = False,
    as_json: options.Json = False,
) -> None:
    """Show the images to the model and record what stands at each layer.

    Stop it at any time; the same command goes on where it was. An image that
    cannot be read is left out and named.

    For example:
      fgdiag extract llava-hf/llava-1.5-7b-hf flowers/ -o runs/flowers
    """
    from fgdiag_cli import diagnose as steps
    from fgdiag_cli.screen import print_json

    run = steps.record(_request(ctx))
    if as_json:
        return print_json(
            {"run": str(run.path), "images": len(run.images), "sites": list(map(str, run.sites))}
        )
    print(f"{len(run.images)} images at {len(run.sites)} sites in {run.path}")


@app.command(rich_help_panel=STEPS)
def probe(run: options.RunFolder, as_json: options.Json = False) -> None:
    """Train a linear probe at each layer and print how often it names the class.

    Then looks closer at vision encoder, projector, best and last LLM layer:
    other readers, fewer images, codelength, selectivity. Checks two controls,
    which must be at chance: tokens before the image cannot know the class,
    and shuffled labels teach nothing.

    For example:
      fgdiag probe runs/flowers
    """
    from fgdiag.reopening import open_run
    from fgdiag_cli import diagnose as steps
    from fgdiag_cli.screen import print_json
    from fgdiag_cli.tables import print_curves, print_evidence

    recorded = open_run(run)
    with recorded.lock():
        curves, evidence = steps.probe(recorded)
    if as_json:
        return print_json({**curves.json(), "evidence": evidence.json()})
    print_curves(curves)
    print_evidence(evidence, curves)


app.command(rich_help_panel=STEPS)(answer)


app.command(rich_help_panel=STEPS)(baselines)


app.command(rich_help_panel=STEPS)(pairs)


app.command(rich_help_panel=STEPS)(attribute)


app.command(rich_help_panel=STEPS)(lens)


app.command(rich_help_panel=STEPS)(embed)


@app.command(rich_help_panel=STEPS)
def report(run: options.RunFolder, as_json: options.Json = False) -> None:
    """Judge a run and write its report: one HTML file that needs nothing else.

    Without `fgdiag answer` before it, the verdict leaves the answers out and
    says so.

    For example:
      fgdiag report runs/flowers
    """
    from fgdiag_probes import loss_budget

    from fgdiag.reopening import open_run
    from fgdiag_cli import diagnose as steps
    from fgdiag_cli.report import write_report
    from fgdiag_cli.screen import print_json

    recorded = open_run(run)
    with recorded.lock():
        found = steps.probe(recorded)
        path = write_report(recorded, *found, loss_budget(recorded, seed=recorded.manifest["seed"]))
    print_json({"report": str(path), "run": str(run)}) if as_json else print(path)


@app.command(rich_help_panel=AROUND)
def inspect(
    model: options.Model,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Open a model and show its sites, parts, image tokens and size.

    A site is a place that can be recorded: vision is what the projector is
    given, vision.3 what leaves block 3 of the vision encoder, projector what
    the language model is given of the image, llm.3 what leaves its block 3,
    llm.norm what its head reads. Blocks are counted from 0.

    For example:
      fgdiag inspect llava-hf/llava-1.5-7b-hf
    """
    from fgdiag.reopening import open_model
    from fgdiag_cli.anatomy import describe, print_anatomy

    opening = {"dtype": dtype, "device": device, "device_map": device_map, "revision": revision}
    vlm = open_model(model, **opening, trust_remote_code=trust_remote_code)
    _print(describe(vlm), print_anatomy, as_json)


@app.command(rich_help_panel=AROUND)
def families(as_json: options.Json = False) -> None:
    """List the model families that are proven by tests.

    Others are opened too: their parts are found, and checked by a small
    forward pass.
    """
    from dataclasses import asdict

    from fgdiag.family_table import families as known
    from fgdiag_cli.anatomy import print_families
    from fgdiag_cli.screen import print_json

    rows = [asdict(family) for family in known()]
    print_json(rows) if as_json else print_families(rows)


app.command(rich_help_panel=AROUND)(sets)


@app.command(rich_help_panel=AROUND)
def calibrate(
    model: options.Model,
    images: options.Images,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Folder for the runs.")],
    classes: Annotated[
        int, typer.Option(min=2, metavar="N", help="Fine classes to draw for a seed, at most.")
    ] = 40,
    per_class: Annotated[
        int, typer.Option(min=2, metavar="N", help="Images to draw of each class in each split, at most.")
    ] = 8,
    seeds: Annotated[
        int, typer.Option(min=1, metavar="N", help="How often all is drawn and planted anew.")
    ] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", metavar="", help="One strength a fault and few layers: a look.")
    ] = False,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Damage the model on purpose, and count how often the damage is named.

    Says how far a verdict on this model and these images can be trusted.
    The damage is in memory only. Every case is recorded as a run of its own,
    so it takes as long as many runs; after a stop, the same command goes on
    where it was.

    For example:
      fgdiag calibrate llava-hf/llava-1.5-7b-hf flowers/ -o runs/calibration
    """
    from fgdiag_cli import calibrate as steps

    opening = {"dtype": dtype, "device": device, "device_map": device_map, "revision": revision}
    opening["trust_remote_code"] = trust_remote_code
    planting = {"classes": classes, "per_class": per_class, "seeds": seeds, "quick": quick}
    found = steps.calibrate(model, images, out, opening=opening, **planting)
    _print(found, steps.print_calibration, as_json)


app.command(rich_help_panel=AROUND)(fieldguide)


app.command(rich_help_panel=AROUND)(scenes)


app.command(rich_help_panel=MAKING)(assemble)


app.command(rich_help_panel=MAKING)(train)


app.command(rich_help_panel=MAKING)(ablate)


app.command(rich_help_panel=AROUND)(recipe)


def _typed(ctx: typer.Context) -> str:
    return shlex.join(["fgdiag", *ctx.meta["typed"]])


def _request(ctx: typer.Context) -> Any:
    """What `extract` or `diagnose` is asked for, from its parameters."""
    from fgdiag_cli.diagnose import Request

    given = ctx.params

    def these(*names: str) -> dict[str, Any]:
        return {name: given[name] for name in names}

    recording = {
        **these("prompt", "seed"),
        "readouts": options.names(given["readouts"]),
        "sites": options.names(given["sites"] or "") or None,
        "tokens": options.tokens(given["tokens"]),
        "batch_size": options.batch_size(given["batch_size"]),
    }
    return Request(
        given["model"],
        given["images"],
        given["out"],
        _typed(ctx),
        labelling=these("test_share", "limit", "group_duplicates", "seed"),
        opening=these(
            "dtype", "device", "device_map", "revision", "trust_remote_code", "random_weights", "seed"
        ),
        recording=recording,
    )


def _show(diagnosis: Any, as_json: bool) -> None:
    from fgdiag_cli.screen import print_json

    if as_json:
        return print_json(diagnosis.json())
    print(f"{diagnosis.verdict}\n\nreport: {diagnosis.report}")


def _print(result: Any, as_table: Any, as_json: bool) -> None:
    from fgdiag_cli.screen import print_json

    as_table(result) if not as_json else print_json(result if isinstance(result, dict) else result.json())


if __name__ == "__main__":
    main()
