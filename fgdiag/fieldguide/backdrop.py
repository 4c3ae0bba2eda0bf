"""What lies behind the bird, far out of focus."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fgdiag.fieldguide.brush import Colour, clouds, ribbon, sample


@dataclass(frozen=True)
class Backdrop:
    """One kind of place: the colours of what is seen there."""

    sky: tuple[Colour, Colour]
    """At the top and at the bottom."""
    shapes: tuple[Colour, ...]
    """Of what is blurred far behind."""
    kind: str
    """What that is: `leaves`, `stems`, `clouds`, `bands`, `flakes` or `none`."""
    bark: Colour
    leaf: Colour


BACKDROPS = MappingProxyType(
    {
        "foliage": Backdrop(
            ((120, 150, 84), (54, 84, 44)),
            ((88, 124, 52), (150, 180, 92), (40, 66, 34), (208, 222, 150)),
            "leaves",
            (98, 80, 62),
            (84, 126, 52),
        ),
        "autumn": Backdrop(
            ((206, 160, 92), (126, 78, 44)),
            ((214, 140, 52), (176, 84, 36), (236, 196, 110), (96, 66, 42)),
            "leaves",
            (84, 66, 54),
            (192, 104, 36),
        ),
        "blossom": Backdrop(
            ((214, 222, 226), (186, 194, 178)),
            ((244, 214, 220), (232, 178, 190), (168, 188, 140), (250, 240, 240)),
            "leaves",
            (92, 72, 64),
            (228, 164, 178),
        ),
        "reeds": Backdrop(
            ((196, 200, 170), (122, 122, 76)),
            ((168, 156, 96), (206, 192, 132), (104, 110, 62), (84, 86, 52)),
            "stems",
            (150, 132, 84),
            (140, 144, 76),
        ),
        "sky": Backdrop(
            ((120, 166, 214), (206, 222, 232)),
            ((236, 240, 242), (182, 206, 226)),
            "clouds",
            (104, 92, 80),
            (96, 122, 70),
        ),
        "water": Backdrop(
            ((188, 204, 206), (92, 124, 138)),
            ((120, 152, 164), (166, 188, 192), (78, 106, 118)),
            "bands",
            (128, 116, 98),
            (118, 132, 84),
        ),
        "snow": Backdrop(
            ((206, 214, 226), (234, 238, 242)),
            ((246, 248, 250), (176, 188, 204), (152, 164, 180)),
            "flakes",
            (112, 102, 98),
            (120, 132, 124),
        ),
        "dusk": Backdrop(
            ((96, 88, 128), (218, 150, 122)),
            ((70, 62, 92), (154, 108, 120)),
            "clouds",
            (66, 54, 54),
            (58, 64, 56),
        ),
        "paper": Backdrop(((240, 232, 212), (228, 218, 194)), (), "none", (140, 120, 96), (140, 150, 100)),
    }
)


def paint_backdrop(backdrop: Backdrop, size: int, rng: np.random.Generator) -> np.ndarray:
    """Paint what lies far behind the bird, out of focus: (size, size, 3) float32 in 0..255."""
    small = 96
    fall = np.linspace(0, 1, small)[:, None, None] ** rng.uniform(0.7, 1.4)
    top, bottom = (np.array(colour, np.float32) for colour in backdrop.sky)
    ground = top * (1 - fall) + bottom * fall
    image = Image.fromarray(np.broadcast_to(ground, (small, small, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image, "RGBA")
    if backdrop.shapes:
        _SHAPES[backdrop.kind](draw, backdrop.shapes, small, rng)
    image = image.filter(ImageFilter.GaussianBlur(rng.uniform(1.6, 3.4)))
    canvas = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32).copy()
    x, y = np.meshgrid(np.arange(size), np.arange(size))
    drift = rng.integers(0, 256, 2)
    canvas *= (1 + 0.028 * sample(clouds(), x * 200 / size + drift[0], y * 200 / size + drift[1]))[..., None]
    return canvas


def _leaves(
    draw: ImageDraw.ImageDraw, colours: tuple[Colour, ...], side: int, rng: np.random.Generator
) -> None:
    for _ in range(46):
        x, y, r, a = *rng.uniform(-5, side + 5, 2), rng.uniform(3, 13), rng.uniform(0, np.pi)
        along = np.array([np.cos(a), np.sin(a)]) * r
        line = np.linspace(-1, 1, 7)[:, None] * along
        outline = ribbon(line, r * np.array([0, 0.6, 0.9, 1, 0.9, 0.6, 0])) + np.array([x, y])
        draw.polygon(outline.ravel().tolist(), fill=_pick(colours, rng, 150))
    for _ in range(9):
        x, y, r = *rng.uniform(0, side, 2), rng.uniform(1.5, 5)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_pick(colours[-1:], rng, 110))


def _stems(
    draw: ImageDraw.ImageDraw, colours: tuple[Colour, ...], side: int, rng: np.random.Generator
) -> None:
    for _ in range(34):
        x, lean, top = rng.uniform(-8, side + 8), rng.normal(0, 9), rng.uniform(-40, 40)
        width = int(rng.integers(1, 5))
        draw.line((x, side, x + lean, top), fill=_pick(colours, rng, 190), width=width)


def _clouds(
    draw: ImageDraw.ImageDraw, colours: tuple[Colour, ...], side: int, rng: np.random.Generator
) -> None:
    for _ in range(14):
        x, y, w, h = *rng.uniform(0, side, 2), rng.uniform(10, 34), rng.uniform(3, 9)
        draw.ellipse((x - w, y - h, x + w, y + h), fill=_pick(colours, rng, 105))


def _bands(
    draw: ImageDraw.ImageDraw, colours: tuple[Colour, ...], side: int, rng: np.random.Generator
) -> None:
    for _ in range(40):
        y, x = side * (0.3 + 0.7 * rng.random() ** 0.7), rng.uniform(-20, side)
        draw.ellipse((x, y, x + rng.uniform(12, 60), y + rng.uniform(1, 3.5)), fill=_pick(colours, rng, 160))


def _flakes(
    draw: ImageDraw.ImageDraw, colours: tuple[Colour, ...], side: int, rng: np.random.Generator
) -> None:
    for _ in range(5):
        x, width = rng.uniform(0, side), int(rng.integers(3, 12))
        draw.line((x, 0, x + rng.normal(0, 6), side), fill=_pick(colours[1:], rng, 120), width=width)
    for _ in range(50):
        x, y, r = *rng.uniform(0, side, 2), rng.uniform(0.6, 2.6)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_pick(colours[:1], rng, 200))


_SHAPES = {"leaves": _leaves, "stems": _stems, "clouds": _clouds, "bands": _bands, "flakes": _flakes}


def _pick(colours: tuple[Colour, ...], rng: np.random.Generator, opacity: int) -> tuple[int, ...]:
    r, g, b = colours[int(rng.integers(len(colours)))]
    return (int(r), int(g), int(b), int(opacity * rng.uniform(0.6, 1)))
