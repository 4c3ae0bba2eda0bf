"""Where the bird is met: background, what it stands on, what hangs in front, the light and the lens."""

from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fgdiag.fieldguide.brush import Colour, Sheet, clouds, mix, paint, ramp, ribbon, sample, soften, spline
from fgdiag.fieldguide.figure import Figure


@dataclass(frozen=True)
class Backdrop:
    """Colours of one background: from top to bottom, of its blurred shapes, of bark and ground, of leaves in front."""

    sky: tuple[Colour, Colour]
    shapes: tuple[Colour, ...]
    kind: str
    """Its blurred shapes: `leaves`, `stems`, `bands`, `flakes` or `none`."""
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


def paint_backdrop(backdrop: Backdrop, size: int, rng: np.random.Generator) -> np.ndarray:
    """Paint what lies far behind the bird, out of focus: (size, size, 3) float32 in 0..255."""
    small = 96
    fall = np.linspace(0, 1, small)[:, None, None] ** rng.uniform(0.7, 1.4)
    ground = (
        mix(backdrop.sky[0], backdrop.sky[1], 0)[None, None] * (1 - fall) + np.array(backdrop.sky[1]) * fall
    )
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
        outline = (x, y) + ribbon(
            np.linspace(-1, 1, 7)[:, None] * along, r * np.array([0, 0.6, 0.9, 1, 0.9, 0.6, 0])
        )
        draw.polygon(outline.ravel().tolist(), fill=_pick(colours, rng, 150))
    for _ in range(9):
        x, y, r = *rng.uniform(0, side, 2), rng.uniform(1.5, 5)
        draw.ellipse((x - r, y - r, x + r, y + r), fill=_pick(colours[-1:], rng, 110))


def _stems(
    draw: ImageDraw.ImageDraw, colours: tuple[Colour, ...], side: int, rng: np.random.Generator
) -> None:
    for _ in range(34):
        x, lean, top, width = (
            rng.uniform(-8, side + 8),
            rng.normal(0, 9),
            rng.uniform(-40, 40),
            int(rng.integers(1, 5)),
        )
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


def paint_stand(canvas: np.ndarray, figure: Figure, name: str, rng: np.random.Generator) -> None:
    """Paint what the bird stands on, through its feet, with its shadow."""
    backdrop = BACKDROPS[name]
    if figure.build.stance == "ground":
        _paint_ground(canvas, figure, backdrop, rng)
    else:
        _paint_branch(canvas, figure, backdrop, rng, snowy=name == "snow")


def _paint_ground(canvas: np.ndarray, figure: Figure, backdrop: Backdrop, rng: np.random.Generator) -> None:
    size, feet = figure.size, figure.feet() + figure.corner
    level = float(feet[:, 1].mean())
    y, x = np.mgrid[:size, :size].astype(np.float32)
    drift = rng.integers(0, 256, 2)
    grain = sample(clouds(), x * 0.8 + drift[0], y * 3.2 + drift[1])
    horizon = level - 0.09 * size + 2 * grain
    soil = mix(mix(backdrop.bark, backdrop.sky[1], 0.5), (226, 208, 174), 0.35)
    ground = soil * (0.92 + 0.07 * grain + 0.10 * ramp(y, level - 20, size))[..., None]
    paint(canvas, ramp(y - horizon, -2, 3), ground)
    sheet = Sheet((size, size), soil)
    for _ in range(16):
        px, depth = rng.uniform(0, size), rng.random()
        py, r = (
            level - 0.05 * size + depth * (size - level),
            (0.006 + 0.014 * depth) * size * rng.uniform(0.6, 1.3),
        )
        turn = np.linspace(0, 2 * np.pi, 14)
        outline = np.stack([px + r * 1.5 * np.cos(turn), py + r * 0.75 * np.sin(turn)], axis=1)
        sheet.fill(outline, mix(soil, (60, 56, 54), rng.uniform(0.1, 0.6)))
        sheet.line(outline[7:], mix(soil, (255, 255, 255), 0.4), 0.8)
    colour, alpha = sheet.lift()
    paint(canvas, alpha * ramp(y - horizon, -1, 2), colour)
    centre = feet.mean(axis=0).tolist()
    shadow = np.hypot(
        (x - centre[0]) / (0.55 * figure.scale), (y - centre[1] - 0.02 * figure.scale) / (0.09 * figure.scale)
    )
    canvas *= (1 - 0.42 * ramp(shadow, 1.3, 0.1))[..., None]


def _paint_branch(
    canvas: np.ndarray, figure: Figure, backdrop: Backdrop, rng: np.random.Generator, *, snowy: bool
) -> None:
    size, feet, trunk = figure.size, figure.feet() + figure.corner, figure.build.stance == "trunk"
    thick = figure.scale * (rng.uniform(0.34, 0.5) if trunk else rng.uniform(0.09, 0.17))
    lean, bow = rng.uniform(-0.16, 0.16), rng.uniform(-0.03, 0.03) * size
    if trunk:
        middle = feet.mean(axis=0) + (figure.pose.facing * 0.5 * thick, 0)
        along, across = np.array([lean * 0.3, 1.0]), np.array([1.0, 0.0])
    else:
        middle = feet.mean(axis=0) + (0, 0.42 * thick)
        along, across = np.array([1.0, lean * 0.25]), np.array([0.0, 1.0])
    reach = np.linspace(-1.3, 1.3, 15)
    line = middle + reach[:, None] * along * size + (bow * reach**2)[:, None] * across
    widths = (
        thick
        * (1 + rng.uniform(-0.09, 0.09, 15))
        * np.linspace(*((1, 1) if trunk else rng.permutation((1.25, 0.8))), 15)
    )
    sheet = Sheet((size, size), backdrop.bark)
    for _ in range(0 if trunk else 3):
        _twig(sheet, line, backdrop, size, rng)
    sheet.fill(
        ribbon(spline(line, steps=3), np.interp(np.linspace(0, 14, 43), np.arange(15), widths)), backdrop.bark
    )
    _draw_bark(sheet, line, widths, across, backdrop.bark, 90 if trunk else 60, rng)
    colour, alpha = sheet.lift()
    side = sample_across(line, along, across, size) / float(thick)
    round_shade = 1.18 - 0.62 * ramp(side, -0.5, 0.55) if not trunk else 1.1 - 0.9 * side**2
    colour = colour * np.clip(round_shade, 0.45, 1.25)[..., None]
    if snowy and not trunk:
        paint(colour, 0.95 * ramp(side + 0.05 * float(rng.uniform(-1, 1)), -0.16, -0.30), (246, 249, 252))
    y, x = np.mgrid[:size, :size].astype(np.float32)
    centre = feet.mean(axis=0).tolist()
    spread = (0.28, 0.10) if not trunk else (0.12, 0.5)
    shadow = np.hypot(
        (x - centre[0]) / (spread[0] * figure.scale), (y - centre[1]) / (spread[1] * figure.scale)
    )
    colour *= (1 - 0.38 * ramp(shadow, 1.4, 0.3))[..., None]
    paint(canvas, alpha, colour)


def sample_across(line: np.ndarray, along: np.ndarray, across: np.ndarray, size: int) -> np.ndarray:
    """How far each pixel lies from a nearly straight line, across it, in pixels."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    if across[1]:
        return y - np.interp(x[0], line[:, 0], line[:, 1]).astype(np.float32)
    return x - np.interp(y[:, 0], line[:, 1], line[:, 0]).astype(np.float32)[:, None]


def _draw_bark(
    sheet: Sheet,
    line: np.ndarray,
    widths: np.ndarray,
    across: np.ndarray,
    bark: Colour,
    count: int,
    rng: np.random.Generator,
) -> None:
    start, length, place, depth, width = rng.uniform(
        (0, 0.08, -0.42, 0.15, 0.4), (13.5, 0.35, 0.42, 0.45, 1.3), (count, 5)
    ).T
    steps, knots = start[:, None] + length[:, None] * (0, 0.5, 1), np.arange(15)
    xy = np.stack([np.interp(steps, knots, line[:, k]) for k in range(2)], axis=-1)
    xy += (place * np.interp(start, knots, widths))[:, None, None] * across
    lighter = rng.random(count) < 0.4
    for k in range(count):
        sheet.line(xy[k], mix(bark, (230, 220, 200) if lighter[k] else (0, 0, 0), depth[k]), width[k])


def _twig(sheet: Sheet, line: np.ndarray, backdrop: Backdrop, size: int, rng: np.random.Generator) -> None:
    start = line[int(rng.integers(3, 12))]
    turn = rng.uniform(0.15, 0.9) * rng.choice((-1, 1)) + (np.pi if rng.random() < 0.5 else 0)
    ends = start + size * rng.uniform(0.15, 0.35) * np.array([np.cos(turn), np.sin(turn)])
    twig = spline([start, (start + ends) / 2 + rng.normal(0, 0.02 * size, 2), ends], steps=5)
    sheet.fill(ribbon(twig, np.linspace(0.016, 0.006, len(twig)) * size), mix(backdrop.bark, (0, 0, 0), 0.2))
    for place in (4, 7, 10):
        draw_leaf(
            sheet,
            twig[place],
            turn + rng.choice((-0.8, 0.8)),
            size * rng.uniform(0.05, 0.1),
            backdrop.leaf,
            rng,
        )


def draw_leaf(
    sheet: Sheet, root: np.ndarray, turn: float, length: float, colour: Colour, rng: np.random.Generator
) -> None:
    """Draw one leaf with its midrib, `length` pixels long, pointing to `turn` radians."""
    along = np.linspace(0, 1, 9)[:, None] * np.array([np.cos(turn), np.sin(turn)]) * length
    bend = np.array([-np.sin(turn), np.cos(turn)]) * length * rng.uniform(-0.2, 0.2)
    line = root + along + np.sin(np.linspace(0, np.pi, 9))[:, None] * bend
    toned = mix(colour, (0, 0, 0) if rng.random() < 0.5 else (255, 250, 210), rng.uniform(0, 0.3))
    outline = ribbon(line, length * 0.42 * np.array([0.05, 0.5, 0.85, 1, 0.98, 0.82, 0.58, 0.3, 0.0]))
    sheet.fill(outline, toned)
    sheet.fill(np.concatenate([line, outline[9:]]), mix(toned, (0, 0, 0), 0.16))
    sheet.line(line, mix(toned, (255, 255, 230), 0.35), 0.5)


def paint_occluders(
    name: str, figure: Figure, guarded: list[np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paint twigs, leaves or blades in front, none of which hides much of any part in `guarded`
    (covers of the bird in its window).

    Returns
    -------
    colour, alpha
        (size, size, 3) in 0..255 and (size, size) in 0..1, float32.
    """
    size, backdrop = figure.size, BACKDROPS[name]
    colour, alpha = np.zeros((size, size, 3), np.float32), np.zeros((size, size), np.float32)
    for _ in range(int(rng.choice((0, 1, 2, 3), p=(0.3, 0.3, 0.25, 0.15)))):
        sheet = Sheet((size, size), backdrop.leaf)
        (_blade if rng.random() < 0.35 else _spray)(sheet, figure, backdrop, rng)
        layer, layer_alpha = sheet.lift()
        layer_alpha = soften(layer_alpha, rng.uniform(0.3, 1.4))
        hidden = np.maximum(alpha, layer_alpha)
        if all((hidden[figure.window] * part).sum() <= 0.22 * part.sum() for part in guarded):
            paint(colour, layer_alpha / np.maximum(hidden, 1e-3), layer)
            alpha = hidden
    return colour, alpha


def _blade(sheet: Sheet, figure: Figure, backdrop: Backdrop, rng: np.random.Generator) -> None:
    size = figure.size
    x, lean = rng.uniform(0, size), rng.normal(0, 0.25) * size
    line = spline(
        [(x, size * 1.05), (x + lean * 0.3, size * 0.7), (x + lean, size * rng.uniform(0.2, 0.6))], steps=6
    )
    toned = mix(backdrop.leaf, (255, 250, 200), rng.uniform(0, 0.3))
    outline = ribbon(line, np.linspace(0.022, 0.002, len(line)) * size)
    sheet.fill(outline, toned)
    sheet.line(line, mix(toned, (0, 0, 0), 0.25), 0.6)


def _spray(sheet: Sheet, figure: Figure, backdrop: Backdrop, rng: np.random.Generator) -> None:
    size = figure.size
    edge = np.array([rng.choice((-0.04, 1.04)), rng.uniform(0.1, 1.0)]) * size
    reach = np.array([np.sign(size / 2 - edge[0]) * rng.uniform(0.25, 0.5), rng.normal(0, 0.14)]) * size
    line = spline([edge, edge + reach * 0.5 + rng.normal(0, 0.03 * size, 2), edge + reach], steps=6)
    sheet.fill(ribbon(line, np.linspace(0.014, 0.005, len(line)) * size), backdrop.bark)
    heading = float(np.arctan2(reach[1], reach[0]))
    for k, root in enumerate(line[3:]):
        draw_leaf(
            sheet,
            root,
            heading + (-1) ** k * rng.uniform(0.4, 1.0),
            size * rng.uniform(0.06, 0.11),
            backdrop.leaf,
            rng,
        )


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
