"""What the bird stands on: a branch, a trunk or the ground."""

from dataclasses import dataclass

import numpy as np

from fgdiag.fieldguide.backdrop import BACKDROPS, Backdrop
from fgdiag.fieldguide.brush import Colour, Sheet, clouds, mix, paint, ramp, ribbon, sample, spline
from fgdiag.fieldguide.figure import Figure
from fgdiag.fieldguide.greenery import draw_twig

_KNOTS = np.arange(15)
_SNOW: Colour = (246, 249, 252)
_SAND: Colour = (226, 208, 174)


@dataclass(frozen=True)
class _Limb:
    """A branch or a trunk, in pixels of the image."""

    line: np.ndarray
    """Its middle, (15, 2)."""
    widths: np.ndarray
    """How thick it is at each point of `line`."""
    thick: float
    """How thick it is on the whole."""
    upright: bool

    @property
    def across(self) -> np.ndarray:
        return np.array([1.0, 0.0] if self.upright else [0.0, 1.0])

    def outline(self) -> np.ndarray:
        fine = np.interp(np.linspace(0, 14, 43), _KNOTS, self.widths)
        return ribbon(spline(self.line, steps=3), fine)

    def aside(self, size: int) -> np.ndarray:
        """How far each pixel lies from the middle: -0.5 the upper (or left) edge, 0.5 the other."""
        y, x = _grid(size)
        if self.upright:
            away = x - np.interp(y[:, 0], self.line[:, 1], self.line[:, 0]).astype(np.float32)[:, None]
        else:
            away = y - np.interp(x[0], self.line[:, 0], self.line[:, 1]).astype(np.float32)
        return away / float(self.thick)


def paint_stand(canvas: np.ndarray, figure: Figure, name: str, rng: np.random.Generator) -> None:
    """Paint what the bird stands on, through its feet, with its shadow."""
    feet = figure.feet() + figure.corner
    if figure.build.stance == "ground":
        _paint_ground(canvas, feet, figure.scale, BACKDROPS[name], rng)
        return
    limb = _grow(figure, feet, rng)
    _paint_limb(canvas, limb, feet, figure.scale, BACKDROPS[name], rng, snowy=name == "snow")


def _paint_ground(
    canvas: np.ndarray, feet: np.ndarray, scale: float, backdrop: Backdrop, rng: np.random.Generator
) -> None:
    size, level = len(canvas), float(feet[:, 1].mean())
    y, x = _grid(size)
    drift = rng.integers(0, 256, 2)
    grain = sample(clouds(), x * 0.8 + drift[0], y * 3.2 + drift[1])
    horizon = level - 0.09 * size + 2 * grain
    soil = mix(mix(backdrop.bark, backdrop.sky[1], 0.5), _SAND, 0.35)
    lit = soil * (0.92 + 0.07 * grain + 0.10 * ramp(y, level - 20, size))[..., None]
    paint(canvas, ramp(y - horizon, -2, 3), lit)
    colour, alpha = _pebbles(size, level, soil, rng)
    paint(canvas, alpha * ramp(y - horizon, -1, 2), colour)
    below = feet + np.array([0, 0.02 * scale])
    canvas *= (1 - 0.42 * ramp(_around(below, (0.55 * scale, 0.09 * scale), size), 1.3, 0.1))[..., None]


def _pebbles(
    size: int, level: float, soil: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Pebbles from the horizon to the lower edge, the nearer the larger: colour and cover."""
    sheet, turn = Sheet((size, size), soil), np.linspace(0, 2 * np.pi, 14)
    for _ in range(16):
        x, depth = rng.uniform(0, size), rng.random()
        y = level - 0.05 * size + depth * (size - level)
        radius = (0.006 + 0.014 * depth) * size * rng.uniform(0.6, 1.3)
        outline = np.stack([x + radius * 1.5 * np.cos(turn), y + radius * 0.75 * np.sin(turn)], axis=1)
        sheet.fill(outline, mix(soil, (60, 56, 54), rng.uniform(0.1, 0.6)))
        sheet.line(outline[7:], mix(soil, (255, 255, 255), 0.4), 0.8)
    return sheet.lift()


def _grow(figure: Figure, feet: np.ndarray, rng: np.random.Generator) -> _Limb:
    """Let a branch run under the feet, or a trunk rise before them."""
    size, upright = figure.size, figure.build.stance == "trunk"
    thick = figure.scale * (rng.uniform(0.34, 0.5) if upright else rng.uniform(0.09, 0.17))
    lean, bow = rng.uniform(-0.16, 0.16), rng.uniform(-0.03, 0.03) * size
    swell = 1 + rng.uniform(-0.09, 0.09, 15)
    reach = np.linspace(-1.3, 1.3, 15)
    if upright:
        shift = np.array([figure.pose.facing * 0.5 * thick, 0])
        along, bend, taper = np.array([lean * 0.3, 1.0]), np.array([1.0, 0.0]), np.ones(15)
    else:
        shift = np.array([0, 0.42 * thick])
        along, bend = np.array([1.0, lean * 0.25]), np.array([0.0, 1.0])
        left, right = rng.permutation((1.25, 0.8)).tolist()
        taper = np.linspace(left, right, 15)
    line = feet.mean(axis=0) + shift + reach[:, None] * along * size + (bow * reach**2)[:, None] * bend
    return _Limb(line, thick * swell * taper, thick, upright)


def _paint_limb(
    canvas: np.ndarray,
    limb: _Limb,
    feet: np.ndarray,
    scale: float,
    backdrop: Backdrop,
    rng: np.random.Generator,
    *,
    snowy: bool,
) -> None:
    size = len(canvas)
    sheet = Sheet((size, size), backdrop.bark)
    for _ in range(0 if limb.upright else 3):
        draw_twig(sheet, limb.line, backdrop, size, rng)
    sheet.fill(limb.outline(), backdrop.bark)
    _draw_bark(sheet, limb, backdrop.bark, rng)
    colour, alpha = sheet.lift()
    aside = limb.aside(size)
    roundness = 1.1 - 0.9 * aside**2 if limb.upright else 1.18 - 0.62 * ramp(aside, -0.5, 0.55)
    colour = colour * np.clip(roundness, 0.45, 1.25)[..., None]
    if snowy and not limb.upright:
        paint(colour, 0.95 * ramp(aside + 0.05 * float(rng.uniform(-1, 1)), -0.16, -0.30), _SNOW)
    across, down = (0.12, 0.5) if limb.upright else (0.28, 0.10)
    colour *= (1 - 0.38 * ramp(_around(feet, (across * scale, down * scale), size), 1.4, 0.3))[..., None]
    paint(canvas, alpha, colour)


def _draw_bark(sheet: Sheet, limb: _Limb, bark: Colour, rng: np.random.Generator) -> None:
    count = 90 if limb.upright else 60
    start, length, place, depth, width = rng.uniform(
        (0, 0.08, -0.42, 0.15, 0.4), (13.5, 0.35, 0.42, 0.45, 1.3), (count, 5)
    ).T
    steps = start[:, None] + length[:, None] * (0, 0.5, 1)
    strokes = np.stack([np.interp(steps, _KNOTS, limb.line[:, k]) for k in range(2)], axis=-1)
    strokes += (place * np.interp(start, _KNOTS, limb.widths))[:, None, None] * limb.across
    pale = rng.random(count) < 0.4
    for k in range(count):
        sheet.line(strokes[k], mix(bark, (230, 220, 200) if pale[k] else (0, 0, 0), depth[k]), width[k])


def _around(points: np.ndarray, radii: tuple[float, float], size: int) -> np.ndarray:
    """How far each pixel lies from the middle of `points`, in units of an ellipse's radii (x, y)."""
    (x, y), (down, right) = points.mean(axis=0).tolist(), _grid(size)
    return np.hypot((right - x) / radii[0], (down - y) / radii[1])


def _grid(size: int) -> np.ndarray:
    """Row and column of every pixel, (2, size, size) float32."""
    return np.mgrid[:size, :size].astype(np.float32)
