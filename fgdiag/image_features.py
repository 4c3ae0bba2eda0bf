"""What an image model says of a run's images, kept in the run.

    results/baselines/<model>-<fingerprint>/
      model.json     name, fingerprint and dtype; readouts with their widths; scale of its logits
      00003.npz      block 3 of the image table: `<readout>` of shape (rows, width), float32
      texts.npz      texts that the images are compared with, and their embeddings

Every file appears whole or not at all, so an interrupted recording goes on with the block it was at. Weights or
preparation of another kind get a folder of their own.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fgdiag.batches import Decoded, decoding, plan
from fgdiag.errors import FgdiagError, ImagesNotUsable
from fgdiag.image_models import ImageModel
from fgdiag.image_set import ImageSet
from fgdiag.memory import keep_freed_memory
from fgdiag.progress import track
from fgdiag.store import RESULTS, Run, write_bytes

FOLDER = "baselines"
CPU_BATCH, GPU_BATCH = 16, 64


@dataclass(frozen=True)
class ImageFeatures:
    """Recorded features of a run's images, read when they are asked for.

    Attributes
    ----------
    name
        As the model was asked for.
    fingerprint
        See `fgdiag.image_models.ImageModel.fingerprint`.
    dtype
        That the model computed in, such as `float32`.
    readouts
        Those of `cls`, `image` and `embed` that the model has, and the width of each.
    scale
        By what cosines with texts are multiplied; None where the model reads none.
    """

    run: Run
    folder: str
    name: str
    fingerprint: str
    dtype: str
    readouts: dict[str, int]
    scale: float | None

    def read(self, readout: str) -> np.ndarray:
        """(images, width) float32; NaN in the rows of images that are excluded or could not be read."""
        whole = np.full((len(self.run.images), self.readouts[readout]), np.nan, np.float32)
        for block, rows in enumerate(_blocks(self.run)):
            with np.load(self._path(f"{block:05d}.npz")) as arrays:
                if readout in arrays:  # not in a block of excluded images only
                    whole[rows.start : rows.stop] = arrays[readout]
        return whole

    def keep_texts(self, texts: Sequence[str], embeddings: np.ndarray) -> None:
        """Keep (texts, width) float32 embeddings of texts."""
        _write_arrays(self._path("texts.npz"), {"texts": np.array(texts), "embeddings": embeddings})

    def read_texts(self) -> tuple[list[str], np.ndarray] | None:
        """Return the texts that were kept and their embeddings; None where there are none."""
        path = self._path("texts.npz")
        if not path.exists():
            return None
        with np.load(path) as arrays:
            return arrays["texts"].tolist(), arrays["embeddings"]

    def _path(self, name: str) -> Path:
        return self.run.result_path(f"{FOLDER}/{self.folder}/{name}")


def record_features(
    run: Run, model: ImageModel, images: ImageSet, *, batch_size: int | None = None
) -> ImageFeatures:
    """Show a run's images to an image model, all that were not shown to it before.

    Parameters
    ----------
    images
        Those of the run, row by row.
    batch_size
        Images that go through the model at once; by default 16 on a CPU and 64 elsewhere.

    Raises
    ------
    FgdiagError
        The rows of `images` are not those of the run.
    ImagesNotUsable
        An image that was readable when the run was recorded is not any more.
    """
    if images.table["id"].tolist() != run.images["id"].tolist():
        raise FgdiagError(f"These are not the images of {run.path}, row by row. Open those it was made of.")
    if model.device.type == "cpu":
        keep_freed_memory()
    folder = f"{_slug(model.name)}-{model.fingerprint[:8]}"
    size = batch_size or (CPU_BATCH if model.device.type == "cpu" else GPU_BATCH)
    files = [run.result_path(f"{FOLDER}/{folder}/{block:05d}.npz") for block in range(len(_blocks(run)))]
    missing = [block for block, file in enumerate(files) if not file.exists()]
    shown = ((run.images["split"] != "excluded") & (run.images["status"] == "ok")).to_numpy()
    left = sum(int(shown[_blocks(run)[block]].sum()) for block in missing)
    work = _work(run, model, images, [(_blocks(run)[block], files[block]) for block in missing], shown, size)
    total, description = int(shown.sum()), f"showing the images to {model.name}"
    for _ in track(work, description=description, total=total, done=total - left):
        pass
    about = {
        "name": model.name,
        "revision": model.revision,
        "fingerprint": model.fingerprint,
        "dtype": str(model.dtype).removeprefix("torch."),
        "readouts": _widths(files),
        "scale": model.scale if model.reads_texts else None,
    }
    run.write_json(f"{FOLDER}/{folder}/model", about)
    return _features(run, folder, about)


def recorded_features(run: Run) -> list[ImageFeatures]:
    """Features of every image model that all of a run's images were shown to, by name."""
    found = [path.parent.name for path in (run.path / RESULTS / FOLDER).glob("*/model.json")]
    about = {folder: run.read_json(f"{FOLDER}/{folder}/model") for folder in found}
    return sorted(
        (_features(run, *one) for one in about.items()), key=lambda one: (one.name, one.fingerprint)
    )


def _features(run: Run, folder: str, about: dict[str, Any]) -> ImageFeatures:
    known = {name: about[name] for name in ("name", "fingerprint", "dtype", "scale")}
    return ImageFeatures(run, folder, readouts=about["readouts"], **known)


def _work(
    run: Run,
    model: ImageModel,
    images: ImageSet,
    blocks: list[tuple[range, Path]],
    shown: np.ndarray,
    size: int,
) -> Iterator[int]:
    """Yield each row once the model has seen it; write each block that is whole."""
    plans = [
        [[row for row in batch if shown[row]] for batch in plan(images.table, rows, size)]
        for rows, _ in blocks
    ]
    with decoding(images, [batch for batches in plans for batch in batches]) as decoded:
        for (rows, file), batches in zip(blocks, plans, strict=True):
            arrays: dict[str, np.ndarray] = {}
            for _ in batches:
                batch = next(decoded)
                for readout, vectors in _seen(run, model, images, batch).items():
                    if readout not in arrays:
                        arrays[readout] = np.full((len(rows), vectors.shape[1]), np.nan, np.float32)
                    arrays[readout][[one.row - rows.start for one in batch]] = vectors
                yield from (one.row for one in batch)
            _write_arrays(file, arrays)


def _seen(run: Run, model: ImageModel, images: ImageSet, batch: list[Decoded]) -> dict[str, np.ndarray]:
    """Features of a batch, which may be empty."""
    for one in batch:
        if one.picture is None:
            raise ImagesNotUsable(
                f"{images.table['source'].iloc[one.row]}, an image of {run.path}, cannot be read any more: "
                f"{one.failure}. Put it back, or record a new run."
            )
    return model.features([one.picture for one in batch if one.picture is not None]) if batch else {}


def _widths(files: list[Path]) -> dict[str, int]:
    found: dict[str, int] = {}
    for file in files:
        with np.load(file) as arrays:
            found |= {readout: arrays[readout].shape[1] for readout in arrays}
        if found:
            break
    return found


def _blocks(run: Run) -> list[range]:
    """Rows of each block, which are those of the run itself."""
    size, count = run.manifest["block"], len(run.images)
    return [range(start, min(start + size, count)) for start in range(0, count, size)]


def _slug(name: str) -> str:
    """File name for a hub id or a folder."""
    return re.sub(r"[^\w.-]+", "_", Path(name).name if Path(name).exists() else name).strip("_.") or "model"


def _write_arrays(path: Path, arrays: dict[str, np.ndarray]) -> None:
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, buffer.getvalue())
