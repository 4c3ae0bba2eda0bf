"""Twigs, leaves and blades: round the bird, and in front of it."""

import numpy as np

from fgdiag.fieldguide.backdrop import BACKDROPS, Backdrop
from fgdiag.fieldguide.brush import Colour, Sheet, mix, paint, ribbon, soften, spline
from fgdiag.fieldguide.figure import Figure


def draw_twig(
    sheet: Sheet, line: np.ndarray, backdrop: Backdrop, size: int, rng: np.random.Generator
) -> None:
    """Let a leafy twig grow from somewhere on a branch's middle `line` (15, 2)."""
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
