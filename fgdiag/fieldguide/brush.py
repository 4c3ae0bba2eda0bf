"""The few strokes everything is painted with: smooth outlines, anti-aliased cover, soft edges, texture."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLE = 3
Colour = tuple[float, float, float]


def spline(points: Sequence | np.ndarray, *, closed: bool = False, steps: int = 8) -> np.ndarray:
    """Run a Catmull-Rom curve through `points` (n, k); `steps` samples from each point to the next."""
    knots = np.asarray(points, dtype=np.float64)
    ends = (knots[-1:], knots[:2]) if closed else (knots[:1], knots[-1:])
    padded = np.concatenate([ends[0], knots, ends[1]])
    if not closed:
        return np.concatenate([_segments(padded, steps), knots[-1:]])
    return _segments(padded, steps)


def _segments(padded: np.ndarray, steps: int) -> np.ndarray:
    before, start, stop, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = (np.arange(steps) / steps)[None, :, None]
    before, start, stop, after = (knot[:, None] for knot in (before, start, stop, after))
    curve = start + 0.5 * t * (
        stop
        - before
        + t * (2 * before - 5 * start + 4 * stop - after + t * (3 * (start - stop) + after - before))
    )
    return curve.reshape(-1, padded.shape[1])


def ribbon(line: np.ndarray, widths: Sequence[float] | np.ndarray) -> np.ndarray:
    """Outline (2n, 2) of a line (n, 2) that is `widths` thick at each of its points."""
    ahead = np.empty_like(line)
    ahead[1:-1] = line[2:] - line[:-2]
    ahead[0], ahead[-1] = line[1] - line[0], line[-1] - line[-2]
    length = np.sqrt(ahead[:, 0] ** 2 + ahead[:, 1] ** 2) + 1e-9
    aside = (ahead[:, ::-1] * (-1, 1)) * (np.asarray(widths) / 2 / length)[:, None]
    return np.concatenate([line + aside, (line - aside)[::-1]])


def disc(x: float, y: float, radius: float) -> np.ndarray:
    """Outline (24, 2) of a circle."""
    turn = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    return np.stack([x + radius * np.cos(turn), y + radius * np.sin(turn)], axis=1)


class Sheet:
    """A transparent sheet (height, width) on which outlines are filled in flat colours, anti-aliased."""

    def __init__(self, shape: tuple[int, int], ground: Colour | np.ndarray):
        """Lay out an empty sheet; `ground` is what the edges of what is drawn fade into."""
        fine = (shape[1] * SUPERSAMPLE, shape[0] * SUPERSAMPLE)
        self._colour = Image.new("RGB", fine, _bytes(ground))
        self._cover = Image.new("L", fine)
        self._on_colour = ImageDraw.Draw(self._colour)
        self._on_cover = ImageDraw.Draw(self._cover)

    def fill(self, outline: np.ndarray, colour: Colour | np.ndarray) -> None:
        """Fill an outline (n, 2) given in pixels of the final image."""
        points = (outline * SUPERSAMPLE).ravel().tolist()
        self._on_colour.polygon(points, fill=_bytes(colour))
        self._on_cover.polygon(points, fill=255)

    def line(self, points: np.ndarray, colour: Colour | np.ndarray, width: float) -> None:
        """Draw over what is already covered, adding no cover of its own: edges, shafts, bark."""
        self._on_colour.line(
            (points * SUPERSAMPLE).ravel().tolist(),
            fill=_bytes(colour),
            width=max(1, round(width * SUPERSAMPLE)),
        )

    def lift(self) -> tuple[np.ndarray, np.ndarray]:
        """Return colour (height, width, 3) in 0..255 and cover (height, width) in 0..1, both float32."""
        colour = np.asarray(self._colour.reduce(SUPERSAMPLE), dtype=np.float32)
        return colour, np.asarray(self._cover.reduce(SUPERSAMPLE), dtype=np.float32) / 255


def cover(outlines: Sequence[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Share of each pixel (height, width) that lies inside any of the outlines, float32."""
    share = np.zeros(shape, np.float32)
    points = np.concatenate(outlines)
    left, top = np.clip(
        np.floor(points.min(axis=0)).astype(int) - 1, 0, (shape[1] - 1, shape[0] - 1)
    ).tolist()
    right, bottom = np.clip(
        np.ceil(points.max(axis=0)).astype(int) + 1, (left + 1, top + 1), shape[::-1]
    ).tolist()
    image = Image.new("L", ((right - left) * SUPERSAMPLE, (bottom - top) * SUPERSAMPLE))
    draw = ImageDraw.Draw(image)
    for outline in outlines:
        draw.polygon(((outline - (left, top)) * SUPERSAMPLE).ravel().tolist(), fill=255)
    share[top:bottom, left:right] = np.asarray(image.reduce(SUPERSAMPLE), dtype=np.float32) / 255
    return share


def paint(canvas: np.ndarray, alpha: np.ndarray, colour: Colour | np.ndarray) -> None:
    """Lay `colour` on `canvas` (height, width, 3) in place, as opaque as `alpha` (height, width)."""
    touched = alpha > 0
    rows, columns = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
    if not len(rows):
        return
    window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    colour = np.asarray(colour, dtype=np.float32)
    below = canvas[window]
    below += alpha[window][..., None] * ((colour[window] if colour.ndim == 3 else colour) - below)


def soften(alpha: np.ndarray, radius: float) -> np.ndarray:
    """Blur a cover in 0..1 by a Gaussian of `radius` pixels."""
    image = Image.fromarray((alpha * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / 255


def ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Rise smoothly from 0 at `low` to 1 at `high` (which may be the smaller)."""
    t = (values - low) * (1 / (high - low))
    np.clip(t, 0, 1, out=t)
    return t * t * (3 - 2 * t)


def mix(one: Colour | np.ndarray, other: Colour | np.ndarray, share: float) -> np.ndarray:
    """Go from one colour towards another by `share`."""
    return np.asarray(one, dtype=np.float32) * (1 - share) + np.asarray(other, dtype=np.float32) * share


@lru_cache(maxsize=1)
def barbs() -> np.ndarray:
    """Feather barbs: a tile (256, 512) of noise drawn out along x, zero mean, about unit spread, float32."""
    noise = np.random.default_rng(1847).standard_normal((256, 512))
    rows, columns = np.fft.fftfreq(256)[:, None], np.fft.fftfreq(512)[None]
    band = np.exp(-((rows / 0.16) ** 2) - (columns / 0.035) ** 2)
    tile = np.fft.ifft2(np.fft.fft2(noise) * band).real
    return (tile / tile.std()).astype(np.float32)


@lru_cache(maxsize=1)
def clouds() -> np.ndarray:
    """Soft mottling: a tile (256, 256) of 1/f noise, zero mean, unit spread, float32."""
    noise = np.random.default_rng(1851).standard_normal((256, 256))
    rows, columns = np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None]
    tile = np.fft.ifft2(np.fft.fft2(noise) / (np.hypot(rows, columns) + 0.008) ** 1.4).real
    tile -= tile.mean()
    return (tile / tile.std()).astype(np.float32)


def sample(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read a repeating tile at positions given in tile pixels."""
    return tile[y.astype(np.int32) % tile.shape[0], x.astype(np.int32) % tile.shape[1]]


def _bytes(colour: Colour | np.ndarray) -> tuple[int, ...]:
    return tuple(max(0, min(255, int(value))) for value in colour)
