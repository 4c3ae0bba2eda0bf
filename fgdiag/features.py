"""What the projector is fed, cached on disk once for every training image, so the encoder need not run again."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps

from fgdiag.errors import ImageUnreadable
from fgdiag.images import ImageSet
from fgdiag.progress import track

BATCH = 16
SMALLEST_CROP = 0.6


@dataclass(frozen=True)
class FeatureCache:
    """Projector inputs of the `train` and `val` images of one image set.

    Attributes
    ----------
    table
        The rows of the image set that are cached, in order.
    array
        (images, views, tokens, width) float16, memory-mapped.
    """

    table: pd.DataFrame
    array: np.ndarray


@torch.inference_mode()
def cache_features(model, processor, images: ImageSet, folder: Path, views: int, seed: int) -> FeatureCache:
    """Run the encoder once over every view of every training and validation image, resuming where it stopped.

    View 0 is the image itself; the others are random crops of at least 60 % of each side, mirrored half the time.
    """
    wanted = images.table["split"].isin(["train", "val"]) & (images.table["status"] == "ok")
    rows = np.flatnonzero(wanted.to_numpy())
    folder.mkdir(parents=True, exist_ok=True)
    progress = folder / "done.json"
    done = json.loads(progress.read_text())["rows"] if progress.exists() else 0
    array: np.ndarray | None = None
    starts = range(done, len(rows), BATCH)
    for start in track(starts, description=f"encoding {images.name}", total=len(rows), done=done, size=BATCH):
        chosen = rows[start : start + BATCH]
        pictures = [view for row in chosen for view in _views(images, int(row), views, seed)]
        fed = _projector_input(model, processor, pictures)
        if array is None:
            array = _open(folder / "features.npy", (len(rows), views, *fed.shape[1:]))
        array[start : start + len(chosen)] = fed.reshape(len(chosen), views, *fed.shape[1:])
        array.flush()
        progress.write_text(json.dumps({"rows": start + len(chosen)}))
    return FeatureCache(images.subset(rows).table, np.load(folder / "features.npy", mmap_mode="r"))


def _open(file: Path, shape: tuple[int, ...]) -> np.memmap:
    if file.exists():
        return np.lib.format.open_memmap(file, mode="r+")
    return np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)


def _views(images: ImageSet, row: int, views: int, seed: int) -> list[Image.Image]:
    try:
        picture = images.open(row)
    except ImageUnreadable:
        # A grey image teaches nothing; the loader has already listed the file among the unreadable ones.
        picture = Image.new("RGB", (224, 224), (128, 128, 128))
    return [picture] + [_crop(picture, np.random.default_rng((seed, row, view))) for view in range(1, views)]


def _crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    width, height = (round(side * rng.uniform(SMALLEST_CROP, 1.0)) for side in picture.size)
    left, top = (int(rng.integers(room + 1)) for room in (picture.width - width, picture.height - height))
    cropped = picture.crop((left, top, left + width, top + height))
    return ImageOps.mirror(cropped) if rng.random() < 0.5 else cropped


def _projector_input(model, processor, pictures: list[Image.Image]) -> np.ndarray:
    """(pictures, tokens, width) of what the model really feeds its projector, float16."""
    fed: list[torch.Tensor] = []
    handle = model.model.multi_modal_projector.register_forward_pre_hook(lambda _, args: fed.append(args[0]))
    try:
        pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
        model.get_image_features(pixel_values=pixels.to(model.dtype))
    finally:
        handle.remove()
    return fed[0].half().numpy()
