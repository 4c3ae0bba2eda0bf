"""From a model and images to a verdict, step by step; a step that is done is not done again."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdiag_probes import answer, loss_budget, probe_layers

from fgdiag.errors import RunMismatch
from fgdiag.extraction import extract
from fgdiag.images import ImageSet, open_images
from fgdiag.progress import say
from fgdiag.store import Run
from fgdiag_cli.report import write_report

if TYPE_CHECKING:
    from fgdiag_probes import Verdict

    from fgdiag.vlm import VLM

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
    source: str,
    out: Path,
    *,
    command: str,
    labelling: dict[str, Any] | None = None,
    opening: dict[str, Any] | None = None,
    recording: dict[str, Any] | None = None,
) -> Diagnosis:
    """Record, probe, ask, judge and report.

    Parameters
    ----------
    model
        As `fgdiag.open_vlm` takes it. It is loaded only where a step needs it.
    source
        As `fgdiag.open_images` takes it.
    out
        Folder of the run.
    command
        What was typed, for the report.
    labelling, opening, recording
        Options of `open_images`, of `open_vlm` and of `extract`.
    """
    labelling, opening, recording = labelling or {}, opening or {}, recording or {}
    images = labelled_images(source, **labelling)
    opened = cache(lambda: open_model(model, **opening))
    run = record(
        opened, model, images, out, source=source, command=command, opening=opening, recording=recording
    )
    probe_layers(run)
    if not run.result_path("answers.parquet").exists():
        answer(run, opened(), images)
    verdict = loss_budget(run).verdict
    return Diagnosis(run.path, write_report(run), verdict)


def demo(command: str) -> Diagnosis:
    """Diagnose the demo VLM on birds drawn for it."""
    from fgdiag.fieldguide import write_fieldguide

    guide = write_fieldguide(DEMO_IMAGES, **DEMO_GUIDE)
    return diagnose("demo", str(guide), DEMO_RUN, command=command)


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
    *,
    source: str,
    command: str,
    opening: dict[str, Any],
    recording: dict[str, Any],
) -> Run:
    """Extract, unless the run is there already and finished.

    Writes `results/command.json`: what was typed, and where the images are, to find them again.
    """
    run = finished_run(out, model, images, {**opening, **recording})
    if run is None:
        run = extract(opened(), images, out, **recording)
    if not run.result_path("command.json").exists():
        run.write_json("command", {"command": command, "images": str(resolved(source))})
    return run


def finished_run(out: Path, model: str, images: ImageSet, asked: dict[str, Any]) -> Run | None:
    """Return the run in `out` if it is finished and of this model, these images and these options.

    The model is compared by name, so that it need not be loaded. None where anything differs: `extract` opens
    the model and says what.
    """
    if not (out / "run.json").exists():
        return None
    run = Run.open(out)
    manifest = run.manifest
    recorded = {
        "prompt": manifest["prompt"],
        "seed": manifest["seed"],
        "dtype": str(manifest["dtype"]).removeprefix("torch."),
        "revision": manifest["revision"],
        "readouts": set(manifest["readouts"]),
        "sites": {str(site) for site in run.sites} - {"pixels"},
    }
    differ = [name for name, value in recorded.items() if not _as_asked(value, asked.get(name))]
    same_images = manifest["images"]["digest"] == images.digest
    same_model = manifest["model"] in {model, str(resolved(model))}
    return run if run.finished and same_model and same_images and not differ else None


def _as_asked(recorded: Any, asked: Any) -> bool:
    """Whether an option is as it was; what was not asked for may be anything."""
    if asked in (None, "auto"):
        return True
    return recorded == (set(asked) if isinstance(recorded, set) else asked)


def resolved(source: str) -> Path | str:
    """Return the whole path of what lies on this machine; other names, such as hub ids, as they are."""
    path = Path(source).expanduser()
    return path.resolve() if path.exists() else source


def reopen_images(run: Run) -> ImageSet:
    """Open the images a run was made of.

    Raises
    ------
    RunMismatch
        They are not there any more as they were.
    """
    source = run.read_json("command")["images"]
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
