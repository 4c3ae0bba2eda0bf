"""One bird in its plumage: colour, shading and the mask of each part, ready to be set into a scene."""

from dataclasses import dataclass

import numpy as np

from fgdiag.fieldguide.brush import (
    Colour,
    Sheet,
    barbs,
    cover,
    mix,
    paint,
    ramp,
    ribbon,
    sample,
    soften,
)
from fgdiag.fieldguide.feathers import draw_bill, draw_eye, draw_legs, draw_tail, draw_wing
from fgdiag.fieldguide.figure import Figure
from fgdiag.fieldguide.species import Species

CROWNS: dict[str, Colour] = {
    "black": (20, 19, 22),
    "red": (206, 26, 26),
    "yellow": (250, 198, 24),
    "white": (250, 248, 242),
}
STRIPE: Colour = (246, 232, 200)
ROSE: Colour = (222, 62, 84)


@dataclass(frozen=True)
class Bird:
    """A painted bird: colour (size, size, 3) in 0..255, cover and parts (size, shape) in 0..1, float32."""

    colour: np.ndarray
    cover: np.ndarray
    parts: dict[str, np.ndarray]


class Places:
    """Where every pixel lies on the bird; shared by all that is painted on the body."""

    def __init__(self, figure: Figure):
        """Find the places of every pixel in the figure's window."""
        self.u, v, self.t = figure.body_grid()
        self.p, self.q = figure.head_grid()
        self.from_head = np.hypot(self.p, self.q)
        self.grain = sample(barbs(), self.u * 150 + 600, v * 150 + 600)
        self.head = ramp(self.from_head, 1.42, 1.08)


def paint_bird(species: Species, figure: Figure, light: np.ndarray, rng: np.random.Generator) -> Bird:
    """Paint a species in a pose, lit from `light` (3,) (x right, y down, z to the viewer, unit length)."""
    shape, plumage = figure.shape, figure.build.plumage
    places, body = Places(figure), cover(figure.outline(), shape)
    under = Sheet(shape, plumage.back)
    tail = cover(draw_tail(under, figure, species.tail, rng), shape)
    legs = cover(draw_legs(under, figure, species.legs), shape)
    bill = cover(draw_bill(under, figure, species.bill), shape)
    over = Sheet(shape, plumage.wing)
    wing = cover(draw_wing(over, figure, species.wing, rng), shape)
    rim, eye = (cover(outlines, shape) for outlines in draw_eye(over, figure, species.eye_ring))

    colour, under_cover = under.lift()
    over_colour, over_cover = over.lift()
    crown = _crown_zone(places) * body
    breast = _breast_zone(places) * body
    plumes = _ground(figure, places)
    _paint_breast(plumes, species.breast, breast, figure, places, rng)
    _paint_crown(plumes, species.crown, crown, places)
    plumes *= (1 + 0.055 * places.grain)[..., None]
    paint(colour, body, plumes)
    shadow = np.clip(soften(over_cover, 0.02 * figure.size) - over_cover, 0, 1)
    colour *= (1 - 0.30 * shadow * body)[..., None]
    paint(colour, over_cover, over_colour)

    silhouette = 1 - (1 - under_cover) * (1 - body) * (1 - over_cover)
    _shade(colour, figure, light, silhouette)
    bare = (1 - over_cover) * body
    parts = {
        "bird": silhouette,
        "bill": bill * (1 - body),
        "crown": crown * (1 - over_cover * (rim > 0)),
        "eye_ring": np.clip(rim - eye, 0, 1),
        "wing": wing,
        "breast": breast * bare,
        "tail": tail * (1 - body) * (1 - over_cover),
        "legs": legs * (1 - body),
    }
    return Bird(np.clip(colour, 0, 255), silhouette, parts)


def _ground(figure: Figure, places: Places) -> np.ndarray:
    """Plumage without marks."""
    plumage, wave = figure.build.plumage, 0.07 * places.grain
    u, t, p, q = places.u, places.t + wave, places.p, places.q + wave
    plumes = np.empty((*u.shape, 3), np.float32)
    plumes[:] = plumage.back
    streak = ramp(places.grain, 0.5, 1.6) * ramp(t, 0.2, -0.2)
    paint(plumes, 0.45 * streak, mix(plumage.back, (0, 0, 0), 0.55))
    paint(plumes, ramp(t, -0.05, 0.45), plumage.belly)
    paint(plumes, ramp(u, -0.05, 0.22) * ramp(t, -0.60, -0.15), plumage.breast)
    paint(plumes, places.head, plumage.head)
    throat = ramp(q, 0.26, 0.52) * ramp(places.from_head, 1.8, 1.2) * ramp(p, -0.75, -0.2)
    paint(plumes, throat, plumage.throat)
    cheek = ramp(np.hypot((p + 0.20) / 0.62, (q - 0.14) / 0.40), 1.15, 0.5)
    paint(plumes, 0.38 * cheek, mix(plumage.head, (0, 0, 0), 0.45))
    lore = ramp(np.abs(q - 0.02 + 0.05 * p), 0.13, 0.03) * ramp(p, 0.25, 0.4)
    paint(plumes, 0.6 * (lore * ramp(places.from_head, 1.2, 0.95)), mix(plumage.head, (0, 0, 0), 0.7))
    return plumes


def _crown_zone(places: Places) -> np.ndarray:
    p, q = places.p, places.q
    brow = -0.40 + 0.10 * ramp(p, 0.45, 0.95) + 0.42 * ramp(p, -0.25, -1.15)
    return ramp(q - brow, 0.05, -0.05) * ramp(p, -1.55, -1.35) * (np.abs(p) < 1.7)


def _paint_crown(plumes: np.ndarray, look: str, zone: np.ndarray, places: Places) -> None:
    if look == "plain":
        return
    if look == "stripes":
        height = places.q + 0.22 * places.p * ramp(places.p, 0.0, -1.0)
        paint(plumes, zone, CROWNS["black"])
        paint(plumes, zone * ramp(np.abs(height + 0.66), 0.16, 0.09), STRIPE)
        return
    paint(plumes, zone, CROWNS[look])


def _breast_zone(places: Places) -> np.ndarray:
    across = ramp(places.t, -0.55, -0.40)
    along = ramp(places.u, -0.06, 0.02)
    return across * along * ramp(places.from_head, 1.12, 1.24)


def _paint_breast(
    plumes: np.ndarray, look: str, zone: np.ndarray, figure: Figure, places: Places, rng: np.random.Generator
) -> None:
    dots = _lattice(rng)
    plumage = figure.build.plumage
    if look == "spots":
        paint(plumes, zone * cover(_drops(figure, dots, 0.052, 0.062), figure.shape), plumage.mark)
    elif look == "streaks":
        paint(plumes, zone * cover(_drops(figure, dots, 0.15, 0.034), figure.shape), plumage.mark)
    elif look == "band":
        curve = places.u - 0.285 + 0.05 * (places.t - 0.3) ** 2
        paint(plumes, zone * ramp(np.abs(curve + 0.008 * places.grain), 0.060, 0.045), plumage.mark)
    elif look == "rose":
        core = ramp(places.u, 0.04, 0.16) * ramp(places.t, -0.38, -0.1)
        paint(plumes, zone * core, ROSE)


def _lattice(rng: np.random.Generator) -> np.ndarray:
    """Staggered places (n, 2) as `u`, `t` over the breast, a little irregular."""
    u, t = np.meshgrid(np.arange(-0.02, 0.62, 0.10), np.arange(-0.42, 1.0, 0.25))
    u = u + 0.0525 * (np.arange(len(u)) % 2)[:, None]
    places = np.stack([u.ravel(), t.ravel()], axis=1)
    return places + rng.uniform(-1, 1, places.shape) * (0.018, 0.05)


def _drops(figure: Figure, places: np.ndarray, length: float, width: float) -> list[np.ndarray]:
    """Drop-shaped marks lying along the body."""
    profile = width * np.array([0.25, 0.6, 0.95, 1.0, 0.75, 0.3])
    along = np.linspace(0.5, -0.5, 6) * length
    return [figure.body(ribbon(figure.surface(u + along, np.full(6, t)), profile)) for u, t in places]


def _shade(colour: np.ndarray, figure: Figure, light: np.ndarray, silhouette: np.ndarray) -> None:
    """Round the bird: a lit side, a cool shadow side, light from the ground, and an inked edge."""
    normals = figure.normals()
    lit = normals @ light.astype(np.float32)
    low = np.clip(normals[..., 1], 0, 1)
    bright = 0.60 + 0.50 * np.clip(lit, -0.35, 1) + 0.10 * low
    tint = np.stack([0.985 + 0.03 * lit, np.ones_like(lit), 1.03 - 0.05 * lit], axis=-1)
    colour *= bright[..., None] * tint
    colour += (26 * np.clip(lit, 0, 1) ** 6)[..., None]
    inside = soften(silhouette, 0.008 * figure.size)
    colour *= (1 - 0.30 * ramp(inside, 0.95, 0.45))[..., None]
