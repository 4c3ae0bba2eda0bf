"""The command `fgdiag`. Each command reads, calls and prints; what is heavy is imported when it runs."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from fgdiag_cli import options
from fgdiag_cli.guard import Guarded, quieten

app = typer.Typer(
    cls=Guarded,
    no_args_is_help=True,
    help="Find where a vision-language model loses fine-grained detail.",
    epilog="Results go to stdout, progress to stderr.",
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point of the command line."""
    quieten()
    app(prog_name="fgdiag")


@app.command()
def demo(ctx: typer.Context, as_json: options.Json = False) -> None:
    """Diagnose a small real VLM on drawn birds: everything, in a few minutes."""
    from fgdiag_cli import diagnose as steps

    _show(steps.demo(_typed(ctx)), as_json)


@app.command()
def inspect(
    model: options.Model,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Show the parts of a model: sites, widths, image tokens, parameters and memory."""
    from fgdiag_cli.anatomy import describe, print_anatomy
    from fgdiag_cli.diagnose import open_model

    vlm = open_model(model, **_opening(dtype, device, device_map, revision, trust_remote_code))
    _print(describe(vlm), print_anatomy, as_json)


@app.command()
def families(as_json: options.Json = False) -> None:
    """List the model families that are proven by tests."""
    from dataclasses import asdict

    from fgdiag.family_table import families as known
    from fgdiag_cli.anatomy import print_families
    from fgdiag_cli.screen import print_json

    rows = [asdict(family) for family in known()]
    print_json(rows) if as_json else print_families(rows)


@app.command()
def extract(
    ctx: typer.Context,
    model: options.Model,
    images: options.Images,
    out: options.Out,
    prompt: options.Prompt = None,
    readouts: options.Readouts = None,
    sites: options.Sites = None,
    batch_size: options.BatchSize = "auto",
    test_share: options.TestShare = 0.25,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Record what flows through a model when it sees the images."""
    from fgdiag_cli import diagnose as steps
    from fgdiag_cli.screen import print_json

    request = steps.Request(
        model,
        images,
        out,
        _typed(ctx),
        labelling={"test_share": test_share, "limit": limit, "seed": seed},
        opening=_opening(dtype, device, device_map, revision, trust_remote_code),
        recording=_recording(prompt, readouts, sites, batch_size, seed),
    )
    run = steps.record(request)
    if as_json:
        return print_json(
            {"run": str(run.path), "images": len(run.images), "sites": list(map(str, run.sites))}
        )
    print(f"{len(run.images)} images at {len(run.sites)} sites in {run.path}")


@app.command()
def probe(run: options.RunFolder, as_json: options.Json = False) -> None:
    """Probe every layer of a run, and check the control."""
    from fgdiag_probes import probe_layers

    from fgdiag_cli.diagnose import open_run
    from fgdiag_cli.tables import print_curves

    recorded = open_run(run)
    with recorded.lock():
        curves = probe_layers(recorded)
    _print(curves, print_curves, as_json)


@app.command()
def answer(
    run: options.RunFolder,
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Ask the model of a run what it sees."""
    from fgdiag_cli import diagnose as steps
    from fgdiag_cli.tables import print_answers

    recorded = steps.open_run(run)
    opening = {"device": device, "device_map": device_map, "trust_remote_code": trust_remote_code}
    with recorded.lock():
        answers = steps.ask(
            recorded,
            lambda: steps.reopen_model(recorded, **opening),
            lambda: steps.reopen_images(recorded),
        )
    _print(answers, print_answers, as_json)


@app.command()
def diagnose(
    ctx: typer.Context,
    model: options.Model,
    images: options.Images,
    out: options.Out,
    prompt: options.Prompt = None,
    readouts: options.Readouts = None,
    sites: options.Sites = None,
    batch_size: options.BatchSize = "auto",
    test_share: options.TestShare = 0.25,
    limit: options.Limit = None,
    seed: options.Seed = 0,
    dtype: options.Dtype = "auto",
    device: options.Device = "auto",
    device_map: options.DeviceMap = None,
    revision: options.Revision = None,
    trust_remote_code: options.TrustRemoteCode = False,
    as_json: options.Json = False,
) -> None:
    """Extract, probe, answer, judge and report; run it again to resume."""
    from fgdiag_cli import diagnose as steps

    request = steps.Request(
        model,
        images,
        out,
        _typed(ctx),
        labelling={"test_share": test_share, "limit": limit, "seed": seed},
        opening=_opening(dtype, device, device_map, revision, trust_remote_code),
        recording=_recording(prompt, readouts, sites, batch_size, seed),
    )
    _show(steps.diagnose(request), as_json)


@app.command()
def report(run: options.RunFolder, as_json: options.Json = False) -> None:
    """Write the report of a run: one HTML file that needs nothing else."""
    from fgdiag_cli.diagnose import open_run
    from fgdiag_cli.report import write_report
    from fgdiag_cli.screen import print_json

    recorded = open_run(run)
    with recorded.lock():
        path = write_report(recorded)
    print_json({"report": str(path), "run": str(run)}) if as_json else print(path)


@app.command()
def fieldguide(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    per_class: Annotated[int, typer.Option(min=1, metavar="N", help="Training images of each species.")] = 20,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Draw labelled birds: 40 species in 8 genera, with a mask for every part."""
    from fgdiag.fieldguide import SPECIES, write_fieldguide
    from fgdiag_cli.screen import print_json

    path = write_fieldguide(out, per_class=per_class, seed=seed)
    print_json({"images": str(path), "species": len(SPECIES)}) if as_json else print(path)


@app.command()
def train_projector(
    images: Annotated[list[str], typer.Argument(metavar="IMAGES...", help="Labelled images, as in extract.")],
    encoder: Annotated[str, typer.Option(help="Folder of the vision encoder.")],
    llm: Annotated[str, typer.Option(help="Folder of the language model.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="OUT", help="Folder of the VLM to write.")],
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 6,
    views: Annotated[
        int,
        typer.Option(min=1, help="Versions of each image: itself, then random crops; one a pass in turn."),
    ] = 1,
    seed: options.Seed = 0,
    as_json: options.Json = False,
) -> None:
    """Join an encoder and a language model by a projector trained on labelled images; resumable."""
    from fgdiag.training import TrainingPlan
    from fgdiag.training import train_projector as train
    from fgdiag_cli.diagnose import labelled_images
    from fgdiag_cli.screen import print_json

    labelled = [labelled_images(source) for source in images]
    train(encoder, llm, labelled, out, TrainingPlan(epochs=epochs, views=views, seed=seed))
    print_json({"model": str(out)}) if as_json else print(out)


def _typed(ctx: typer.Context) -> str:
    return shlex.join(["fgdiag", *ctx.meta["typed"]])


def _opening(
    dtype: str, device: str, device_map: str | None, revision: str | None, trust_remote_code: bool
) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "device": device,
        "device_map": device_map,
        "revision": revision,
        "trust_remote_code": trust_remote_code,
    }


def _recording(
    prompt: str | None, readouts: str | None, sites: str | None, batch_size: str, seed: int
) -> dict[str, Any]:
    given = {"prompt": prompt, "readouts": options.names(readouts), "sites": options.names(sites)}
    asked = {name: value for name, value in given.items() if value is not None}
    return {**asked, "batch_size": options.batch_size(batch_size), "seed": seed}


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
