"""The light a bird is met in, and the lens it is seen through."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageFilter


@dataclass(frozen=True)
class Light:
    """Where the light stands (x right, y down, z to the viewer), its colour and how strongly it models."""

    name: str
    towards: np.ndarray
    tint: np.ndarray


_LIGHTS = MappingProxyType(
    {
        "noon": (0.55, -0.75, 0.75, (1.03, 1.02, 1.0)),
        "morning": (0.85, -0.45, 0.70, (1.07, 1.01, 0.92)),
        "evening": (0.95, -0.20, 0.70, (1.09, 0.98, 0.86)),
        "overcast": (0.15, -0.60, 1.00, (0.97, 0.99, 1.02)),
        "shade": (0.35, -0.60, 0.95, (0.88, 0.92, 0.92)),
    }
)


def draw_light(rng: np.random.Generator) -> Light:
    """Draw a light at random, from the left or the right."""
    name = str(rng.choice(tuple(_LIGHTS)))
    x, y, z, tint = _LIGHTS[name]
    towards = np.array([x * rng.choice((-1, 1)), y, z])
    gain = rng.uniform(0.92, 1.06)
    return Light(name, towards / np.linalg.norm(towards), np.array(tint, np.float32) * np.float32(gain))


def through_the_lens(canvas: np.ndarray, light: Light, blur: float, rng: np.random.Generator) -> Image.Image:
    """Light the picture, blur it by `blur` pixels, and add the grain of a sensor."""
    size = canvas.shape[0]
    y, x = np.mgrid[:size, :size].astype(np.float32) / size - 0.5
    aside, down, _ = light.towards.tolist()
    fall = 1 + 0.10 * (x * aside + y * down) - 0.22 * (x * x + y * y)
    lit = canvas * fall[..., None] * light.tint
    grain = np.float32(rng.uniform(0.5, 2.6)) * rng.standard_normal((size, size, 1), dtype=np.float32)
    image = Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.float32) + grain, 0, 255).astype(np.uint8))
