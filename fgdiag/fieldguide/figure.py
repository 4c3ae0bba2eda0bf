"""Where a posed bird is in the picture: its outline, and every pixel's place on its body and on its head.

Three frames, all with y down. *Body*: the build's own, along the axis from rump to breast. *Head*: centred
on the head, in head radii, the bill along +x; a bird keeps its head level however it holds its body.
*Pixels*: of the image, or of the window in it that the bird takes up.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fgdiag.fieldguide.brush import disc, spline
from fgdiag.fieldguide.builds import Build

HIPS = ((0.10, 0.25), (-0.02, 0.27))
"""Where the far and the near leg leave the body, body frame."""


@dataclass(frozen=True)
class Pose:
    """How the bird holds itself, and where in the picture."""

    facing: int
    """1 looks right, -1 left."""
    tilt: float
    """Degrees added to the posture of the genus."""
    head: float
    """Degrees the bill points up."""
    nod: float
    """How far the head is drawn in (below 0) or stretched out, in body lengths."""
    fill: float
    """Longest side of the bird as a share of the image's side."""
    x: float
    y: float
    """Place in the room that is left, 0 to 1."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Pose":
        """Draw a pose at random."""
        return cls(
            facing=int(rng.choice((-1, 1))),
            tilt=float(rng.uniform(-11, 11)),
            head=float(rng.uniform(-14, 18)),
            nod=float(rng.uniform(-0.035, 0.03)),
            fill=float(rng.uniform(0.66, 0.88)),
            x=float(rng.uniform(0.1, 0.9)),
            y=float(rng.uniform(0.15, 0.85)),
        )


class Figure:
    """A build in a pose, in an image of `size` pixels a side.

    All that is painted on the bird lies in `window`, the part of the image it takes up: pixels given and
    grids returned here count from the window's `corner`.
    """

    def __init__(self, build: Build, pose: Pose, size: int):
        """Put the bird together, and fit it into the image."""
        self.build, self.pose, self.size = build, pose, size
        self._body_turn = _turn(build.posture + pose.tilt)
        self._head_turn = _turn(pose.head)
        stations = np.array(build.spine)
        stations[-1, :2] += pose.nod * np.array([0.8, -0.6])
        self.circles = spline(stations, steps=6)
        self.head_radius = float(stations[-1, 2])
        self._head_at = stations[-1, :2] @ self._body_turn
        self.feet_world = self._feet()
        self.scale, origin, self.window = self._fit()
        self.corner = np.array([self.window[1].start, self.window[0].start])
        self.shape = tuple(side.stop - side.start for side in self.window)
        self._origin = origin - self.corner
        self.px = self.scale * self.head_radius
        """One head radius, in pixels."""

    def body(self, points: np.ndarray) -> np.ndarray:
        """Carry points (n, 2) of the body frame into pixels."""
        return self.pixels(np.asarray(points, dtype=np.float64) @ self._body_turn)

    def head(self, points: np.ndarray) -> np.ndarray:
        """Carry points (n, 2) of the head frame into pixels."""
        return self.pixels(self._from_head(points))

    def pixels(self, world: np.ndarray) -> np.ndarray:
        """Carry points (n, 2) of the upright, right-facing bird into pixels."""
        return world * (self.scale * self.pose.facing, self.scale) + self._origin

    def surface(self, u: np.ndarray, t: np.ndarray) -> np.ndarray:
        """Body-frame points (n, 2) at `u` along the axis and `t` across it: -1 the back, 1 the belly."""
        middle, radius = self._section(u)
        return np.stack([u, middle + t * radius], axis=-1)

    def outline(self) -> list[np.ndarray]:
        """Outlines in pixels whose union is body, neck and head, the crest included."""
        xy = self.body(self.circles[:, :2])
        outlines = [disc(x, y, r) for (x, y), r in zip(xy, self.circles[:, 2] * self.scale, strict=True)]
        return [*outlines, self._thigh(), *self._crest()]

    def body_grid(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every pixel's `u`, `v` in the body frame and `t` across the body, each (height, width) float32."""
        world = self._world_grid()
        u, v = _turn_back(world, self._body_turn)
        middle, radius = self._section(u)
        return u, v, ((v - middle) / radius)

    def head_grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Every pixel's place in the head frame, each (height, width) float32."""
        away = (self._world_grid() - self._head_at.astype(np.float32)) / np.float32(self.head_radius)
        return _turn_back(away, self._head_turn)

    def normals(self) -> np.ndarray:
        """Which way the round body faces, (height, width, 3): x right, y down, z to the viewer."""
        rows, columns = self.shape
        y = np.linspace(0, rows, rows // 2, dtype=np.float32)[:, None]
        x = np.linspace(0, columns, columns // 2, dtype=np.float32)
        height = np.zeros((rows // 2, columns // 2), np.float32)
        middles = self.body(self.circles[:, :2]).astype(np.float32)
        for (cx, cy), radius in zip(middles, self.circles[:, 2] * self.scale, strict=True):
            np.maximum(height, (np.float32(radius**2) - (y - cy) ** 2) - (x - cx) ** 2, out=height)
        height = Image.fromarray(np.sqrt(height)).resize((columns, rows), Image.Resampling.BICUBIC)
        down, right = np.gradient(np.asarray(height))
        normal = np.stack([-right, -down, np.ones_like(right)], axis=-1)
        return normal / np.sqrt((normal * normal).sum(axis=-1, keepdims=True))

    def feet(self) -> np.ndarray:
        """Where the far and the near foot hold on, (2, 2) in pixels."""
        return self.pixels(self.feet_world)

    def _from_head(self, points: np.ndarray) -> np.ndarray:
        return self._head_at + self.head_radius * (np.asarray(points, dtype=np.float64) @ self._head_turn)

    def _section(self, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y, radius = self.circles.T
        return np.interp(u, x, y).astype(np.float32), np.interp(u, x, radius).astype(np.float32)

    def _feet(self) -> np.ndarray:
        hips = np.array(HIPS) @ self._body_turn
        if self.build.stance == "trunk":
            return np.stack(
                [hips[:, 0].max() + self.build.legs + np.zeros(2), hips[:, 1] + (-0.16, 0.06)], axis=1
            )
        lowest = hips[:, 1].max() + self.build.legs
        return np.stack([hips[:, 0] + (0.06, 0.0), np.full(2, lowest)], axis=1)

    def _thigh(self) -> np.ndarray:
        x, y = self.body(np.array([HIPS[1]]))[0]
        return disc(x, y, 0.10 * self.scale)

    def _crest(self) -> list[np.ndarray]:
        height = self.build.crest
        if not height:
            return []
        tip = self._crest_tip()
        front = spline([(0.75, -0.6), (0.25, -1.0 - 0.25 * height), (-0.4, -1.0 - 0.5 * height), tip])
        back = spline([tip, (-0.85, -0.72 - 0.2 * height), (-0.95, -0.1), (0.0, 0.0)])
        return [self.head(np.concatenate([front, back]))]

    def _crest_tip(self) -> tuple[float, float]:
        return (-0.95 - 0.5 * self.build.crest, -0.75 - 0.75 * self.build.crest)

    def _fit(self) -> tuple[float, np.ndarray, tuple[slice, slice]]:
        """Scale, place of the body's origin in the image, and the window (rows, columns) of the bird."""
        around = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
        swept = (self.circles[:, None, :2] @ self._body_turn + self.circles[:, None, 2:] * around).reshape(
            -1, 2
        )
        ends = np.array([self.tail_tip()]) @ self._body_turn
        bill = self._from_head(np.array([(0.9 + max(1.5, self.build.bill[0]), 0.1)]))
        crest = self._from_head(np.array([self._crest_tip()]))
        points = np.concatenate([swept, ends, bill, crest, self.feet_world]) * (self.pose.facing, 1)
        low, high = points.min(axis=0), points.max(axis=0)
        scale = float(self.pose.fill * self.size / (high - low).max())
        room = self.size - scale * (high - low)
        origin = room * (self.pose.x, self.pose.y) - scale * low
        left, top = np.clip(np.floor(origin + scale * (low - 0.16)), 0, None).astype(int).tolist()
        right, bottom = np.clip(np.ceil(origin + scale * (high + 0.16)), 0, self.size).astype(int).tolist()
        return scale, origin, np.s_[top:bottom, left:right]

    def tail_tip(self) -> np.ndarray:
        """End of the middle tail feather, body frame."""
        length, _, raised = self.build.tail
        along = np.deg2rad(raised)
        return self.tail_root() + length * np.array([-np.cos(along), -np.sin(along)])

    def tail_root(self) -> np.ndarray:
        """Where the tail leaves the body, body frame."""
        return np.array(self.build.spine[0][:2])

    def _world_grid(self) -> np.ndarray:
        rows, columns = self.shape
        world = np.empty((rows, columns, 2), np.float32)
        world[..., 0] = (np.arange(columns) + 0.5 - self._origin[0]) / (self.scale * self.pose.facing)
        world[..., 1] = ((np.arange(rows) + 0.5 - self._origin[1]) / self.scale)[:, None]
        return world


def _turn(degrees: float) -> np.ndarray:
    """Matrix that turns row vectors so that +x points up (towards -y) by `degrees`."""
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def _turn_back(grid: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Undo a turn for a grid (height, width, 2). Written out: a matrix product may round by the machine."""
    x, y = grid[..., 0], grid[..., 1]
    (a, b), (c, d) = turn.astype(np.float32)
    return a * x + b * y, c * x + d * y
