"""The images and the model that a run was made of, opened once more."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgdiag.errors import RunIncomplete, RunMismatch
from fgdiag.images import ImageSet, open_images
from fgdiag.loading import twin_of
from fgdiag.progress import say
from fgdiag.store import Run

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


def open_run(path: Path) -> Run:
    """Open a run whose images have all been through the model; `RunIncomplete` where they have not."""
    run = Run.open(path)
    if not run.finished:
        raise RunIncomplete(f"{path} is not finished; run the command that started it once more.")
    return run


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


def reopen_model(run: Run, *, exact: bool = False, **options: Any) -> "VLM":
    """Open the model a run was made with, in the same revision and dtype.

    Parameters
    ----------
    exact
        On a CPU compute in float32 whatever the run was recorded in: 16 bits are too coarse for gradients and ranks,
        and no faster there.
    options
        Of `open_vlm`.

    Raises
    ------
    RunMismatch
        Its weights are others now.
    """
    manifest, model, seed = run.manifest, model_of(run), random_seed(run)
    options |= {} if seed is None else {"random_weights": True, "seed": seed}
    vlm = open_model(model, revision=manifest["revision"], dtype=manifest["dtype"], **options)
    if vlm.fingerprint != manifest["fingerprint"]:
        raise RunMismatch(
            f"The weights of {model} are not those the run {run.path} was recorded with. Record a new run."
        )
    if exact and vlm.device.type == "cpu":
        vlm.model.float()
    return vlm


def model_of(run: Run) -> str:
    """Return the hub id or the whole path of the model a run was made with, be it with its weights or random ones."""
    named, _ = twin_of(run.manifest["model"])
    if run.result_path("command.json").exists():  # not where `fgdiag.extract` was called from Python
        return run.read_json("command").get("model", named)
    return named


def random_seed(run: Run) -> int | None:
    """Seed of the model's random weights; None where a run was made with its own."""
    return twin_of(run.manifest["model"])[1]


def whole(name: str) -> str:
    """Return the whole path of what lies on this machine; other names, such as hub ids, as they are."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() and name != "demo" else name


def open_model(model: str, **options: Any) -> "VLM":
    """Open a VLM, and say so: it takes a while."""
    from fgdiag.vlm import open_vlm

    here = model == "demo" or Path(model).expanduser().exists()
    say(f"opening {model}" if here else f"opening {model}; what is not in the cache is downloaded first")
    return open_vlm(model, **options)
