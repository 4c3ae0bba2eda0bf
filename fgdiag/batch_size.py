"""How many images go through a model at once, where nobody says: as many as fit into memory."""

import numpy as np
import torch
from PIL import Image

from fgdiag.batches import decode_one, to_extract
from fgdiag.forward import Forward, blank
from fgdiag.image_set import ImageSet
from fgdiag.memory import no_memory

CPU_BATCH = 16
FIRST_GPU_BATCH, LARGEST_GPU_BATCH = 8, 64


def fitting_batch(forward: Forward, images: ImageSet, *, most: int) -> int:
    """Largest batch of the largest image that fits, tried by doubling; 16 where there is no CUDA device."""
    device = forward.vlm.device
    if device.type != "cuda":
        return CPU_BATCH
    picture, size = _largest(images), FIRST_GPU_BATCH
    while True:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        free, before = torch.cuda.mem_get_info(device)[0], torch.cuda.memory_allocated(device)
        if not _fits(forward, picture, size):
            return max(1, size // 2)
        used = torch.cuda.max_memory_allocated(device) - before
        # Twice the batch takes twice the memory; a tenth is left to fragmentation and to other processes.
        if 2 * used > 0.9 * free or 2 * size > min(most, LARGEST_GPU_BATCH):
            return size
        size *= 2


def _fits(forward: Forward, picture: Image.Image, size: int) -> bool:
    try:
        forward([picture] * size)
    except (RuntimeError, MemoryError) as error:
        if not no_memory(error):
            raise
        return False
    return True


def _largest(images: ImageSet) -> Image.Image:
    """Decode the image of most pixels that can be decoded."""
    area = (images.table["width"] * images.table["height"]).to_numpy()
    for row in np.argsort(-area, kind="stable"):
        picture = decode_one(images, int(row)).picture if to_extract(images.table)[row] else None
        if picture is not None:
            return picture
    return blank()
