"""From a model and images to a verdict, step by step; a step that is done is not done again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdiag_probes import answer, loss_budget, probe_layers

from fgdiag.errors import RunMismatch
from fgdiag.extract import extract
from fgdiag.images import ImageSet, open_images
from fgdiag.progress import say
from fgdiag.store import Run
from fgdiag_cli.report import write_report

if TYPE_CHECKING:
    from fgdiag.vlm import VLM
    from fgdiag_probes import Verdict

DEMO_RUN = Path("runs/demo")
DEMO_IMAGES = Path("runs/demo-fieldguide")
DEMO_GUIDE = {"per_class": 16, "test_per_class": 8, "seed": 2026}
"""Enough birds for intervals that say something, few enough for some minutes on two cores."""


@dataclass(frozen=True)
class Diagnosis:
    """A finished run."""

    run: Path
    report: Path
    verdict: "Verdict"

    def json(self) -> dict[str, Any]:
        """Return the verdict, and where the report and the run are."""
        return {"verdict": self.verdict.json(), "report": str(self.report), "run": str(self.run)}


def diagnose(
    model: str,
    images: ImageSet,
    out: Path,
    *,
    opening: dict[str, Any] | None = None,
    recording: dict[str, Any] | None = None,
    command: str,
) -> Diagnosis:
    """Record, probe, ask, judge and report.

    Parameters
    ----------
    model
        As `fgdiag.open_vlm` takes it. It is loaded only where a step needs it.
    images
        The labelled images.
    out
        Folder of the run.
    opening, recording
        Options of `open_vlm` and of `extract`.
    command
        What was typed, for the report.
    """
    opened = cache(lambda: open_model(model, **(opening or {})))
    run = record(opened, model, images, out, recording or {}, command)
    probe_layers(run)
    if not run.result_path("answers.parquet").exists():
        answer(run, opened(), images)
    verdict = loss_budget(run).verdict
    return Diagnosis(run.path, write_report(run), verdict)


def demo(command: str) -> Diagnosis:
    """Diagnose the demo VLM on birds drawn for it."""
    from fgdiag.fieldguide import write_fieldguide

    guide = write_fieldguide(DEMO_IMAGES, **DEMO_GUIDE)
    return diagnose("demo", labelled_images(str(guide)), DEMO_RUN, command=command)


def open_model(model: str, **options: Any) -> "VLM":
    """Open a VLM, and say so: it takes a while."""
    from fgdiag.vlm import open_vlm

    say(f"opening {model}")
    return open_vlm(model, **options)


def labelled_images(source: str, **options: Any) -> ImageSet:
    """Open images; say on stderr what there is to know about them."""
    images = open_images(source, **options)
    for line in repr(images).splitlines():
        say(line)
    return images


def record(
    opened: Callable[[], "VLM"],
    model: str,
    images: ImageSet,
    out: Path,
    recording: dict[str, Any],
    command: str,
) -> Run:
    """Extract, unless the run is there already and finished."""
    run = finished_run(out, model, images, recording)
    if run is None:
        run = extract(opened(), images, out, **recording)
        run.write_json("command", {"command": command})
    return run


def finished_run(out: Path, model: str, images: ImageSet, recording: dict[str, Any]) -> Run | None:
    """Return the run in `out` if it is finished and of this model, these images and these options.

    The model is compared by name, so that it need not be loaded.
    """
    if not (out / "run.json").exists():
        return None
    run = Run.open(out)
    manifest = run.manifest
    asked = {name: value for name, value in recording.items() if name == "prompt" and value is not None}
    same = (
        manifest.get("finished")
        and manifest["model"] in {model, str(Path(model).resolve())}
        and manifest["images"]["digest"] == images.digest
        and all(manifest[name] == value for name, value in asked.items())
    )
    return run if same else None


def reopen_images(run: Run) -> ImageSet:
    """Open the images a run was made of.

    Raises
    ------
    RunMismatch
        They are not there any more as they were.
    """
    source = run.manifest["images"]["source"]
    found = open_images(source)
    missing = set(run.images["id"]) - set(found.table["id"])
    if missing:
        raise RunMismatch(
            f"{len(missing)} images of the run {run.path} are no longer in {source}. "
            "Put them back, or record a new run."
        )
    return replace(found, table=run.images)


def reopen_model(run: Run, **options: Any) -> "VLM":
    """Open the model a run was made with, in the same revision and dtype."""
    manifest = run.manifest
    dtype = str(manifest["dtype"]).removeprefix("torch.")
    vlm = open_model(manifest["model"], **{"revision": manifest.get("revision"), "dtype": dtype, **options})
    if vlm.fingerprint != manifest["fingerprint"]:
        raise RunMismatch(
            f"The weights of {manifest['model']} are not those the run {run.path} was recorded with. "
            "Record a new run."
        )
    return vlm
