"""What the projector is fed, cached on disk once for every training image, so the encoder need not run again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps

from fgdiag.errors import ImageUnreadable
from fgdiag.images import ImageSet
from fgdiag.progress import track

BATCH = 16
SMALLEST_CROP = 0.6


@torch.inference_mode()
def cache_features(model, processor, images: ImageSet, folder: Path, views: int, seed: int) -> np.ndarray:
    """Run the encoder once over every view of the training and validation `images`, resuming where it stopped.

    Returns
    -------
    ndarray
        (images, views, tokens, width) float16 as the projector is given them, memory-mapped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # another training with this encoder may be filling it
        _encode_rest(model, processor, images, folder, views, seed)
    return np.load(folder / "features.npy", mmap_mode="r")


def _encode_rest(model, processor, images: ImageSet, folder: Path, views: int, seed: int) -> None:
    rows = np.arange(len(images))
    progress = folder / "done.json"
    done = json.loads(progress.read_text())["rows"] if progress.exists() else 0
    array: np.ndarray | None = None
    starts = range(done, len(rows), BATCH)
    for start in track(starts, description=f"encoding {images.name}", total=len(rows), done=done, size=BATCH):
        chosen = rows[start : start + BATCH]
        pictures = [view_of(images, int(row), view, seed) for row in chosen for view in range(views)]
        fed = _projector_input(model, processor, pictures)
        if array is None:
            array = _open(folder / "features.npy", (len(rows), views, *fed.shape[1:]))
        array[start : start + len(chosen)] = fed.reshape(len(chosen), views, *fed.shape[1:])
        array.flush()
        progress.write_text(json.dumps({"rows": start + len(chosen)}))


def _open(file: Path, shape: tuple[int, ...]) -> np.memmap:
    if file.exists():
        return np.lib.format.open_memmap(file, mode="r+")
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)


def view_of(images: ImageSet, row: int, view: int, seed: int) -> Image.Image:
    """Return one version of an image: itself as view 0, else a random crop of at least 60 % of each side.

    A crop is mirrored half the time.
    """
    try:
        picture = images.open(row)
    except ImageUnreadable:
        # A grey image teaches nothing; the loader has already listed the file among the unreadable ones.
        picture = Image.new("RGB", (224, 224), (128, 128, 128))
    return picture if view == 0 else _crop(picture, np.random.default_rng((seed, row, view)))


def _crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (round(side * rng.uniform(SMALLEST_CROP, 1.0)) for side in picture.size)
    left, top = (int(rng.integers(room + 1)) for room in (picture.width - width, picture.height - height))
    cropped = picture.crop((left, top, left + width, top + height))
    return ImageOps.mirror(cropped) if rng.random() < 0.5 else cropped


class _Fed(Exception):
    """Carries what the projector is fed past the projector itself, which need not run."""

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features


def _projector_input(model, processor, pictures: list[Image.Image]) -> np.ndarray:
    """(pictures, tokens, width) of what the model really feeds its projector, float16."""

    def stop(_module: Any, args: tuple[torch.Tensor, ...]) -> None:
        raise _Fed(args[0])

    handle = model.model.multi_modal_projector.register_forward_pre_hook(stop)
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    tower = next(model.model.vision_tower.parameters())
    try:
        model.get_image_features(pixel_values=pixels.to(tower.device, tower.dtype))
    except _Fed as fed:
        return fed.features.half().cpu().numpy()
    finally:
        handle.remove()
    raise AssertionError("the projector was not run")
