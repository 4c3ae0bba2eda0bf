"""From a model and images to a verdict, step by step; a step that is done is not done again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdiag_probes import Answers, answer, loss_budget, probe_layers
from fgdiag_probes.baselines import compare_baselines
from fgdiag_probes.evidence import gather

from fgdiag.duplicates import NearDuplicates, near_duplicates
from fgdiag.extraction import asked_for, extract
from fgdiag.images import ImageSet, open_images
from fgdiag.progress import say
from fgdiag.recording import manifest_in
from fgdiag.reopening import model_of, open_model, random_seed, whole
from fgdiag.store import Run
from fgdiag_cli.answering import Reopened, choose, speak
from fgdiag_cli.report import write_report

if TYPE_CHECKING:
    from fgdiag_probes import LayerCurves, Verdict
    from fgdiag_probes.evidence import Evidence

    from fgdiag.vlm import VLM

DEMO_RUN = Path("runs/demo")
DEMO_IMAGES = Path("runs/demo-fieldguide")
DEMO_GUIDE = {"per_class": 14, "test_per_class": 6, "seed": 2026}
"""Enough birds for intervals that say something, few enough for some minutes on two cores."""


@dataclass(frozen=True)
class Request:
    """A run that is asked for. Its images and its model are opened when a step first needs them."""

    model: str
    """As `fgdiag.open_vlm` takes it."""
    source: str
    """Images, as `fgdiag.open_images` takes them."""
    out: Path
    command: str
    """What was typed, for the report."""
    labelling: dict[str, Any] = field(default_factory=dict)
    """Options of `open_images`."""
    opening: dict[str, Any] = field(default_factory=dict)
    """Options of `open_vlm`."""
    recording: dict[str, Any] = field(default_factory=dict)
    """Options of `extract`."""

    @cached_property
    def images(self) -> ImageSet:
        """The labelled images."""
        return labelled_images(self.source, **self.labelling)

    @cached_property
    def vlm(self) -> "VLM":
        """The model."""
        return open_model(self.model, **self.opening)


@dataclass(frozen=True)
class Diagnosis:
    """A finished run."""

    run: Path
    report: Path
    verdict: "Verdict"

    def json(self) -> dict[str, Any]:
        """Return the verdict, and where the report and the run are."""
        return {"verdict": self.verdict.json(), "report": str(self.report), "run": str(self.run)}


def demo(command: str) -> Diagnosis:
    """Diagnose the demo VLM on birds drawn for it."""
    from fgdiag.fieldguide import write_fieldguide

    guide = write_fieldguide(DEMO_IMAGES, **DEMO_GUIDE)
    found = diagnose(Request("demo", str(guide), DEMO_RUN, command, recording={"tokens": "auto"}))
    _map(Run.open(DEMO_RUN))
    return found


def _map(run: Run) -> None:
    """Lay the images out for the explorer, unless that was done."""
    from fgdiag_probes.embedding import embed

    if not run.result_path("embedding.parquet").exists():
        with run.lock():
            embed(run, seed=run.manifest["seed"])


def diagnose(request: Request) -> Diagnosis:
    """Record, probe, ask, judge and report."""
    run = record(request)
    with run.lock():
        curves, evidence = probe(run)
        ask(run, lambda: request.vlm, lambda: request.images)
        _ask_in_words(Reopened(run, lambda: request.vlm, lambda: request.images))
        _read_without_llm(run)
        budget = loss_budget(run, seed=run.manifest["seed"])
        return Diagnosis(run.path, write_report(run, curves, evidence, budget), budget.verdict)


def _ask_in_words(model: Reopened) -> None:
    """Ask to choose and in free text, unless that was done, perhaps of more images or in other wordings."""
    run = model.run
    if run.manifest["device"] != "cpu" and not run.result_path("choices.json").exists():
        choose(model)  # fifteen questions an image would take a processor minutes
    if not run.result_path("free_text.json").exists():
        speak(model)


def _read_without_llm(run: Run) -> None:
    """Compare with the VLM's own encoder and the pixels, unless these were not recorded."""
    if {"pixels", "vision"} & {str(site) for site in run.sites}:
        compare_baselines(run, seed=run.manifest["seed"])


def record(request: Request) -> Run:
    """Extract, unless the run is there already and finished.

    Writes `results/command.json`: what was typed, and where the model is, to open it again; and
    `results/near_duplicates.parquet`.
    """
    manifest_in(request.out)  # a wrong folder is refused before anything that takes long
    finished = finished_run(request)
    _ = finished or request.vlm  # a wrong name is said before the images are compared
    duplicates = _duplicates(request.images, finished)
    run = finished or extract(request.vlm, request.images, request.out, **request.recording)
    run.write_table("near_duplicates", duplicates.table)
    _say_unreadable(run, request.images)
    if not run.result_path("command.json").exists():
        run.write_json("command", {"command": request.command, "model": whole(request.model)})
    return run


def finished_run(request: Request) -> Run | None:
    """Return the run that is asked for, if it is there and finished.

    The model need not be loaded for that: it is compared by name. None where it may be another one, or other
    sites or tokens; `extract` opens the model and says so.

    Raises
    ------
    RunMismatch
        The run was made with another prompt, other images, other readouts or another seed.
    """
    known = ("prompt", "readouts", "seed")
    given = {name: request.recording[name] for name in known if name in request.recording}
    manifest = manifest_in(request.out, asked_for(request.images, **given))
    if manifest is None or manifest["finished"] is None:
        return None
    run, tokens, opening = (
        Run(request.out, manifest),
        request.recording.get("tokens", "auto"),
        request.opening,
    )
    as_asked = (
        whole(request.model) == whole(model_of(run))
        and (opening.get("seed", 0) if opening.get("random_weights") else None) == random_seed(run)
        and _same_sites(request, manifest)
        and (
            tokens == "auto" or {*tokens} == {site["site"] for site in manifest["sites"] if "tokens" in site}
        )
        and opening.get("dtype", "auto") in {"auto", manifest["dtype"]}
        and opening.get("revision") in {None, manifest["revision"]}
    )
    return run if as_asked else None


def probe(run: Run) -> tuple["LayerCurves", "Evidence"]:
    """Probe every layer, then look closer at the depths; what was done before is read back."""
    seed = run.manifest["seed"]
    return probe_layers(run, seed=seed), gather(run, seed=seed)


def ask(run: Run, vlm: Callable[[], "VLM"], images: Callable[[], ImageSet]) -> Answers:
    """Ask the model, unless it has answered already."""
    if run.result_path("answers.parquet").exists():
        return Answers(run.read_table("answers"))
    found = images()
    return answer(run, vlm(), found)


def labelled_images(source: str, **options: Any) -> ImageSet:
    """Open images; say on stderr what there is to know about them."""
    images = open_images(source, **options)
    for line in repr(images).splitlines():
        say(line)
    return images


def _same_sites(request: Request, manifest: dict[str, Any]) -> bool:
    sites = request.recording.get("sites")
    return sites is None or {*sites, "pixels"} == {site["site"] for site in manifest["sites"]}


def _say_unreadable(run: Run, images: ImageSet) -> None:
    """Name what was found to be unreadable only when it was decoded; the rest has been said."""
    expected = (images.table["status"] == "ok").to_numpy()
    lost = run.images[expected & (run.images["status"] != "ok").to_numpy()]
    if len(lost):
        first = lost.iloc[0]
        say(f"  {len(lost)} more cannot be read, such as {first['source']}: {first['status']}")


def _duplicates(images: ImageSet, finished: Run | None) -> NearDuplicates:
    """Find near-duplicates, unless a finished run has kept them; name some of training and test."""
    if finished and finished.result_path("near_duplicates.parquet").exists():
        found = NearDuplicates(finished.read_table("near_duplicates"))
    else:
        found = near_duplicates(images)
    across = found.across_split.frame()
    if len(across):
        pairs = [f"{one} and {other}" for one, other in across[["source", "other_source"]].to_numpy()[:3]]
        say(f"  note: near-duplicates in training and test ({len(across)}), such as {'; '.join(pairs)}")
        say("  --group-duplicates keeps them on one side, in a new run")
    return found
