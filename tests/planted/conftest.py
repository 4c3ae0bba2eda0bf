"""A tiny random LLaVA and images whose kinds differ in colour, and whose classes differ in fine texture only."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgdiag.extraction import extract
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.store import Run
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

COLOURS = {"red": (200, 60, 60), "green": (60, 180, 60), "blue": (60, 60, 200), "grey": (128, 128, 128)}
TEXTURES = {"fine": (2, 2), "broad": (2, 12), "tall": (12, 2), "large": (10, 10)}
"""Height and width of a tile in pixels. At a 16 times lower resolution little is left of any."""
TRAIN, TEST = 8, 5


@dataclass(frozen=True)
class Bench:
    """A model, images and their undamaged run."""

    vlm: VLM
    images: ImageSet
    run: Run

    def batch(self, rows: list[int]) -> list[Image.Image]:
        return [self.images.open(row) for row in rows]


def textured(colour: tuple[int, ...], tile: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    side, (height, width) = tiny.IMAGE_SIDE, tile
    y, x = np.mgrid[:side, :side] + rng.integers(0, 24, 2)[:, None, None]
    board = ((y // height + x // width) % 2)[..., None] * 80 - 40
    pixels = np.array(colour) + rng.normal(0, 12, 3) + board + rng.normal(0, 8, (side, side, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    torch.set_num_threads(1)
    folder, rng = tmp_path_factory.mktemp("textures"), np.random.default_rng(0)
    for kind, colour in COLOURS.items():
        for texture, tile in TEXTURES.items():
            for split, count in (("train", TRAIN), ("test", TEST)):
                home = folder / split / kind / f"{kind} {texture}"
                home.mkdir(parents=True)
                for index in range(count):
                    textured(colour, tile, rng).save(home / f"{index}.png")
    model, processor = tiny.llava()
    vlm, images = open_vlm(model, processor=processor), open_images(folder)
    return Bench(vlm, images, extract(vlm, images, Path(folder).with_name("undamaged")))
