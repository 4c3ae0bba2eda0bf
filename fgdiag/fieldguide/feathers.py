"""Wing, tail, bill, legs and eye: what is drawn feather by feather, and where the marks on them go."""

import numpy as np

from fgdiag.fieldguide.brush import Colour, Sheet, disc, mix, ribbon, spline
from fgdiag.fieldguide.figure import HIPS, Figure

WHITE: Colour = (250, 248, 240)
BILLS: dict[str, Colour] = {"red": (222, 50, 30), "pale": (243, 228, 190)}
LEGS: dict[str, Colour] = {"orange": (244, 132, 18)}
TAILS: dict[str, Colour] = {"rufous": (202, 84, 30)}

_ALONG = np.linspace(0, 1, 7)
_VANE = np.array([0.45, 0.85, 1.0, 1.0, 0.92, 0.72, 0.30])
_EYE = (0.30, -0.06)
_SHOULDER = np.array([0.19, -0.07])


def feather(base: np.ndarray, tip: np.ndarray, width: float, *, start: float = 0.0) -> np.ndarray:
    """Outline of a round-tipped feather; from `start` (a share of its length) on."""
    along = start + (1 - start) * _ALONG
    profile = np.interp(along, _ALONG, _VANE) if start else _VANE
    return ribbon(base + along[:, None] * (tip - base), width * profile)


def draw_tail(sheet: Sheet, figure: Figure, look: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the tail and return its outlines in pixels."""
    plumage, (length, width, raised) = figure.build.plumage, figure.build.tail
    ground = TAILS.get(look, plumage.tail)
    root, outlines = figure.tail_root(), []
    spread = np.rad2deg(np.arctan2(width * 0.42, length))
    for place in (-1.0, 1.0, -0.6, 0.6, -0.2, 0.2):
        reach = length * _reach(figure.build.tail_shape, abs(place))
        turn = np.deg2rad(raised + place * spread)
        away = np.array([-np.cos(turn), -np.sin(turn)])
        base = root + place * 0.30 * width * np.array([-away[1], away[0]]) - 0.12 * away
        tip = root + reach * away
        vane = figure.body(_rectrix(base, tip, width * 0.42))
        sheet.fill(vane, mix(ground, (0, 0, 0), float(rng.uniform(0.0, 0.14))))
        if look == "white tip":
            sheet.fill(figure.body(_rectrix(base, tip, width * 0.43, start=1 - 0.15 / (reach + 0.12))), WHITE)
        sheet.line(vane[: len(vane) // 2], mix(ground, plumage.edge, 0.45), 0.5)
        sheet.line(figure.body(np.stack([base, tip])), mix(ground, (0, 0, 0), 0.35), 0.4)
        outlines.append(vane)
    return outlines


def _rectrix(base: np.ndarray, tip: np.ndarray, width: float, *, start: float = 0.0) -> np.ndarray:
    """Outline of a tail feather: as broad at the root as at the end."""
    along = np.array([0.0, 0.25, 0.5, 0.75, 0.9, 0.96, 1.0]) * (1 - start) + start
    profile = np.interp(along, (0, 0.9, 0.96, 1), (0.85, 1, 0.85, 0.35))
    return ribbon(base + along[:, None] * (tip - base), width * profile)


def _reach(shape: str, outward: float) -> float:
    """How long a tail feather is against the longest, from the middle (0) to the outermost (1)."""
    inward = {"notched": -0.20, "round": 0.10, "long": 0.22, "pointed": 0.30}[shape]
    return 1 - max(inward * outward, inward * (outward - 1))


def bill_outlines(figure: Figure, look: str) -> tuple[np.ndarray, np.ndarray]:
    """Upper and lower half of the bill, in pixels."""
    length, depth, droop = figure.build.bill
    if look == "long":
        length *= 2.1
    tip, gape, middle = (0.88 + length, 0.08 + droop), (0.62, 0.12), 0.08
    top, bottom = (0.70, middle - 0.56 * depth), (0.70, middle + 0.50 * depth)
    bent = 0.22 * droop
    culmen = spline([top, (0.88 + 0.42 * length, middle - 0.43 * depth + bent), tip])
    keel = spline(
        [(0.80 + length, 0.10 + droop), (0.86 + 0.40 * length, middle + 0.36 * depth + bent), bottom]
    )
    line = spline([gape, (0.88 + 0.5 * length, middle + 0.04 + bent), (0.80 + length, 0.10 + droop)])
    upper = np.concatenate([culmen, line[::-1]])
    return figure.head(upper), figure.head(np.concatenate([line, keel]))


def draw_bill(sheet: Sheet, figure: Figure, look: str) -> list[np.ndarray]:
    """Draw the bill and return its outlines in pixels."""
    colour = BILLS.get(look, figure.build.plumage.bill)
    upper, lower = bill_outlines(figure, look)
    sheet.fill(lower, mix(colour, (0, 0, 0), 0.24))
    sheet.fill(upper, colour)
    culmen = upper[: len(upper) // 2]
    sheet.line(
        culmen * 0.8 + upper[len(upper) // 2 :][::-1][: len(culmen)] * 0.2, mix(colour, WHITE, 0.42), 0.8
    )
    sheet.line(upper[len(upper) // 2 :], mix(colour, (0, 0, 0), 0.6), 0.6)
    return [upper, lower]


def draw_legs(sheet: Sheet, figure: Figure, look: str) -> list[np.ndarray]:
    """Draw both legs, the far one darker, and return their outlines in pixels."""
    colour = LEGS.get(look, figure.build.plumage.legs)
    trunk = figure.build.stance == "trunk"
    outlines = []
    for hip, foot, shade in zip(figure.body(np.array(HIPS)), figure.feet(), (0.34, 0.0), strict=True):
        toned, unit = mix(colour, (0, 0, 0), shade), figure.scale
        forward = np.array([figure.pose.facing * 1.0, 0.0])
        knee = hip * 0.45 + foot * 0.55 - forward * (0.0 if trunk else 0.035 * unit)
        shank = ribbon(spline([hip, knee, foot], steps=4), np.full(9, 0.046 * unit))
        toes = [
            ribbon(foot + unit * way, unit * np.array([0.044, 0.05, 0.022])) for way in _toes(trunk, forward)
        ]
        for outline in (shank, *toes):
            sheet.fill(outline, toned)
        sheet.line(np.stack([knee, foot]), mix(toned, WHITE, 0.35), 0.5)
        outlines += [shank, *toes]
    return outlines


def _toes(trunk: bool, forward: np.ndarray) -> list[np.ndarray]:
    """Toes as lines from the foot, in body lengths."""
    along = np.array([0.0, -1.0]) if trunk else forward
    inward = forward if trunk else np.array([0.0, 1.0])
    bends = ((0.0, 0.07, 0.12), (0.0, 0.05, 0.085), (0.0, -0.05, -0.09))
    drops = ((0.0, -0.008, 0.03), (0.0, 0.02, 0.06), (0.0, -0.005, 0.03))
    return [np.outer(bend, along) + np.outer(drop, inward) for bend, drop in zip(bends, drops, strict=True)]


def draw_wing(sheet: Sheet, figure: Figure, look: str, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the folded wing; return the outlines (pixels) of the covert rows, which carry bars and patch."""
    plumage = figure.build.plumage
    _row(sheet, figure, _primaries(), 0.30, plumage.flight, plumage.edge, rng)
    _row(sheet, figure, _secondaries(), 0.34, mix(plumage.flight, plumage.wing, 0.45), plumage.edge, rng)
    _row(sheet, figure, _tertials(), 0.52, mix(plumage.flight, plumage.wing, 0.7), plumage.edge, rng)
    panel = WHITE if look == "patch" else plumage.wing
    edge = mix(WHITE, plumage.wing, 0.25) if look == "patch" else plumage.edge
    tips = WHITE if look == "bars" else None
    greater = _row(sheet, figure, _coverts(0.86, 7, 0.16, 0.46), 0.38, panel, edge, rng, tips=tips)
    middle = mix(plumage.wing, plumage.back, 0.3)
    median = _row(sheet, figure, _coverts(0.80, 6, 0.04, 0.27), 0.42, middle, plumage.edge, rng, tips=tips)
    lesser = _coverts(0.62, 5, -0.08, 0.12)
    _row(
        sheet,
        figure,
        lesser,
        0.44,
        mix(plumage.wing, plumage.back, 0.6),
        mix(plumage.back, plumage.edge, 0.4),
        rng,
    )
    return [*greater, *median]


def _row(
    sheet: Sheet,
    figure: Figure,
    quills: list[tuple[tuple[float, float], tuple[float, float]]],
    width: float,
    colour: Colour | np.ndarray,
    edge: Colour | np.ndarray,
    rng: np.random.Generator,
    *,
    tips: Colour | None = None,
) -> list[np.ndarray]:
    length, depth = figure.build.wing
    outlines = []
    for base, tip in quills:
        start, end = _SHOULDER + np.array([base, tip]) * (-length, depth)
        vane = figure.body(feather(start, end, width * depth))
        sheet.fill(vane, mix(colour, (0, 0, 0), float(rng.uniform(0, 0.16))))
        if tips is not None:
            bar = 1 - 0.075 / float(np.linalg.norm(end - start))
            sheet.fill(figure.body(feather(start, end, width * depth * 1.05, start=bar)), tips)
        sheet.line(vane[3:11], edge if tips is None else mix(edge, tips, 0.5), 0.55)
        sheet.line(figure.body(np.stack([start, end])), mix(colour, (0, 0, 0), 0.32), 0.35)
        outlines.append(vane)
    return outlines


def _primaries() -> list:
    return [((0.42, 0.35 - 0.03 * k), (1.0 - 0.065 * k, 0.16 + 0.09 * k)) for k in range(5)]


def _secondaries() -> list:
    return [((0.22, 0.78 - 0.22 * k), (0.66 + 0.02 * k, 0.66 - 0.17 * k)) for k in range(5)]


def _tertials() -> list:
    return [((0.25, -0.02 - 0.24 * k), (0.78 - 0.07 * k, 0.0 - 0.22 * k)) for k in range(3)]


def _coverts(rise: float, count: int, start: float, stop: float) -> list:
    """One row of coverts from the lower edge of the wing to the upper; the row bulges tailwards."""
    heights = np.linspace(rise, -rise, count)
    bulge = 0.05 * (1 - heights**2)
    return [((start, y * 0.94), (stop + b, y * 0.90 + 0.02)) for y, b in zip(heights, bulge, strict=True)]


def draw_eye(sheet: Sheet, figure: Figure, look: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Draw the eye, and return the outlines of the ring's outer edge and of the eye it leaves free."""
    x, y = figure.head(np.array([_EYE]))[0]
    rim, pupil = disc(x, y, 0.315 * figure.px), disc(x, y, 0.185 * figure.px)
    if look == "white":
        sheet.fill(rim, WHITE)
    sheet.fill(disc(x, y, 0.205 * figure.px), (14, 11, 10))
    sheet.fill(disc(x, y, 0.15 * figure.px), (44, 26, 18))
    sheet.fill(disc(x, y, 0.09 * figure.px), (6, 5, 5))
    x, y = figure.head(np.array([(_EYE[0] - 0.05 * figure.pose.facing, _EYE[1] - 0.07)]))[0]
    sheet.fill(disc(x, y, 0.062 * figure.px), (255, 255, 255))
    return [rim], [pupil]
