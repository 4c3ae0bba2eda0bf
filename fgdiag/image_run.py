"""A run of images alone, for a model that can only be asked: nothing flows through a model here."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from fgdiag.errors import ImageUnreadable
from fgdiag.image_set import ImageSet
from fgdiag.manifest import asked_for
from fgdiag.progress import track
from fgdiag.recording import manifest_in
from fgdiag.store import FORMAT, IMAGES, MANIFEST, Run, locked, write_json, write_table


def image_run(
    images: ImageSet, path: str | Path, *, model: str, prompt: str | None = None, seed: int = 0
) -> Run:
    """Make a run without sites, or open the one that was made so.

    Every image is decoded once, so that those that cannot be are known before the model is asked.

    Parameters
    ----------
    images
        Labelled images.
    path
        Folder of the run: a new one, an empty one, or that of the same run.
    model
        Who will be asked.
    prompt
        The question about every image; `FINE_QUESTION` by default.
    seed
        Of all that will be drawn at random.

    Raises
    ------
    RunMismatch
        At `path` is something else.
    """
    path = Path(path)
    asked = asked_for(images, prompt=prompt, readouts=(), seed=seed) | {"model": model, "fingerprint": model}
    with locked(path):
        if manifest_in(path, asked) is None:
            write_table(path / IMAGES, _decoded_once(images))
            now = datetime.now(UTC).isoformat(timespec="seconds")
            made = {"revision": None, "dtype": None, "sites": [], "versions": {"fgdiag": version("fgdiag")}}
            write_json(path / MANIFEST, {"format": FORMAT, **asked, **made, "started": now, "finished": now})
    return Run.open(path)


def _decoded_once(images: ImageSet) -> pd.DataFrame:
    rows = track(range(len(images)), description="reading images", total=len(images))
    return images.table.assign(status=pd.Series([_status(images, row) for row in rows], dtype="str"))


def _status(images: ImageSet, row: int) -> str:
    try:
        images.open(row)
    except ImageUnreadable as error:
        return str(error)
    return "ok"
