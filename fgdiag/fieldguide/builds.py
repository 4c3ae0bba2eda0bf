"""How each genus is built and what its plumage is before any mark: what tells genera apart from afar.

Lengths are in units of about one body length. The body lies along x, facing right, y down; `spine` is a
string of circles (x, y, radius) from the rump to the head, and the bird's outline is what they sweep. Angles
are in degrees, positive turns the head end up.
"""

from dataclasses import dataclass
from types import MappingProxyType

from fgdiag.fieldguide.brush import Colour

Circle = tuple[float, float, float]


@dataclass(frozen=True)
class Plumage:
    """Colours, 0..255."""

    back: Colour
    head: Colour
    throat: Colour
    breast: Colour
    belly: Colour
    wing: Colour
    flight: Colour
    edge: Colour
    tail: Colour
    bill: Colour
    legs: Colour
    mark: Colour
    """The dark of spots, streaks and bands."""


@dataclass(frozen=True)
class Build:
    """The silhouette of a genus."""

    spine: tuple[Circle, ...]
    posture: float
    tail: tuple[float, float, float]
    """Length, width at the end, degrees above the line of the back."""
    tail_shape: str
    """`notched`, `round`, `long` or `pointed`."""
    bill: tuple[float, float, float]
    """Length, depth at the base (both in head radii), and how far the tip droops."""
    wing: tuple[float, float]
    """Length and depth."""
    legs: float
    """Length."""
    crest: float
    """Height in head radii."""
    stance: str
    """What it stands on: `perch`, `ground` or `trunk`."""
    plumage: Plumage


BUILDS = MappingProxyType(
    {
        "Larkfinch": Build(
            spine=(
                (-0.62, -0.03, 0.10),
                (-0.27, 0.02, 0.29),
                (0.10, 0.03, 0.36),
                (0.42, -0.12, 0.28),
                (0.58, -0.27, 0.25),
            ),
            posture=24,
            tail=(0.50, 0.26, -4),
            tail_shape="notched",
            bill=(0.95, 0.80, 0.10),
            wing=(0.88, 0.25),
            legs=0.24,
            crest=0,
            stance="perch",
            plumage=Plumage(
                back=(124, 116, 52),
                head=(196, 168, 58),
                throat=(226, 198, 84),
                breast=(228, 194, 78),
                belly=(240, 224, 150),
                wing=(98, 88, 46),
                flight=(64, 58, 40),
                edge=(176, 162, 84),
                tail=(76, 68, 42),
                bill=(126, 112, 98),
                legs=(120, 92, 80),
                mark=(74, 52, 26),
            ),
        ),
        "Reedwren": Build(
            spine=(
                (-0.42, -0.10, 0.11),
                (-0.16, 0.0, 0.31),
                (0.14, 0.02, 0.37),
                (0.38, -0.16, 0.28),
                (0.48, -0.32, 0.26),
            ),
            posture=10,
            tail=(0.46, 0.17, 58),
            tail_shape="round",
            bill=(1.0, 0.24, 0.34),
            wing=(0.56, 0.23),
            legs=0.32,
            crest=0,
            stance="perch",
            plumage=Plumage(
                back=(134, 72, 36),
                head=(142, 80, 42),
                throat=(226, 204, 172),
                breast=(214, 178, 134),
                belly=(198, 146, 96),
                wing=(118, 60, 30),
                flight=(84, 44, 24),
                edge=(170, 106, 62),
                tail=(122, 62, 30),
                bill=(70, 54, 44),
                legs=(140, 104, 84),
                mark=(58, 30, 16),
            ),
        ),
        "Mossthrush": Build(
            spine=(
                (-0.72, 0.0, 0.10),
                (-0.32, 0.02, 0.27),
                (0.08, 0.04, 0.37),
                (0.42, -0.13, 0.27),
                (0.62, -0.28, 0.215),
            ),
            posture=38,
            tail=(0.62, 0.24, 0),
            tail_shape="round",
            bill=(1.05, 0.36, 0.10),
            wing=(0.92, 0.24),
            legs=0.36,
            crest=0,
            stance="perch",
            plumage=Plumage(
                back=(74, 98, 66),
                head=(78, 102, 70),
                throat=(238, 230, 208),
                breast=(242, 232, 204),
                belly=(246, 242, 228),
                wing=(66, 88, 60),
                flight=(48, 64, 46),
                edge=(112, 136, 96),
                tail=(58, 78, 54),
                bill=(58, 54, 50),
                legs=(134, 108, 92),
                mark=(46, 42, 32),
            ),
        ),
        "Sandplover": Build(
            spine=(
                (-0.72, -0.02, 0.06),
                (-0.34, 0.02, 0.22),
                (0.06, 0.04, 0.31),
                (0.38, -0.14, 0.22),
                (0.48, -0.36, 0.235),
            ),
            posture=8,
            tail=(0.22, 0.15, -2),
            tail_shape="pointed",
            bill=(0.78, 0.30, 0.04),
            wing=(0.95, 0.20),
            legs=0.72,
            crest=0,
            stance="ground",
            plumage=Plumage(
                back=(182, 158, 124),
                head=(186, 162, 128),
                throat=(250, 248, 242),
                breast=(246, 242, 234),
                belly=(252, 251, 248),
                wing=(170, 146, 112),
                flight=(112, 96, 78),
                edge=(216, 198, 168),
                tail=(130, 110, 86),
                bill=(46, 42, 42),
                legs=(84, 82, 84),
                mark=(38, 32, 30),
            ),
        ),
        "Brookjay": Build(
            spine=(
                (-0.62, 0.0, 0.11),
                (-0.28, 0.02, 0.28),
                (0.08, 0.03, 0.34),
                (0.40, -0.13, 0.27),
                (0.58, -0.28, 0.255),
            ),
            posture=30,
            tail=(0.98, 0.24, 0),
            tail_shape="long",
            bill=(1.10, 0.46, 0.10),
            wing=(0.78, 0.23),
            legs=0.30,
            crest=0.75,
            stance="perch",
            plumage=Plumage(
                back=(66, 106, 176),
                head=(72, 118, 192),
                throat=(206, 214, 226),
                breast=(176, 192, 216),
                belly=(222, 226, 230),
                wing=(48, 92, 176),
                flight=(30, 60, 128),
                edge=(106, 152, 218),
                tail=(44, 88, 172),
                bill=(40, 40, 46),
                legs=(52, 50, 54),
                mark=(26, 28, 44),
            ),
        ),
        "Pondfisher": Build(
            spine=(
                (-0.46, 0.02, 0.09),
                (-0.20, 0.02, 0.25),
                (0.08, 0.02, 0.31),
                (0.34, -0.12, 0.28),
                (0.50, -0.27, 0.295),
            ),
            posture=44,
            tail=(0.26, 0.17, 0),
            tail_shape="round",
            bill=(2.1, 0.58, 0.0),
            wing=(0.60, 0.22),
            legs=0.14,
            crest=0.22,
            stance="perch",
            plumage=Plumage(
                back=(18, 132, 146),
                head=(16, 118, 136),
                throat=(246, 240, 226),
                breast=(222, 122, 48),
                belly=(232, 146, 74),
                wing=(12, 100, 116),
                flight=(10, 72, 90),
                edge=(64, 170, 178),
                tail=(12, 92, 120),
                bill=(36, 34, 38),
                legs=(150, 70, 52),
                mark=(84, 30, 12),
            ),
        ),
        "Barkpecker": Build(
            spine=(
                (-0.62, 0.02, 0.11),
                (-0.28, 0.02, 0.24),
                (0.08, 0.02, 0.28),
                (0.42, -0.08, 0.21),
                (0.64, -0.12, 0.22),
            ),
            posture=66,
            tail=(0.50, 0.16, -8),
            tail_shape="pointed",
            bill=(1.45, 0.44, 0.0),
            wing=(0.84, 0.20),
            legs=0.20,
            crest=0,
            stance="trunk",
            plumage=Plumage(
                back=(42, 42, 46),
                head=(54, 54, 58),
                throat=(238, 236, 230),
                breast=(228, 224, 216),
                belly=(236, 233, 226),
                wing=(34, 34, 38),
                flight=(24, 24, 28),
                edge=(84, 84, 90),
                tail=(30, 30, 34),
                bill=(72, 72, 78),
                legs=(84, 86, 90),
                mark=(30, 28, 30),
            ),
        ),
        "Rosedove": Build(
            spine=(
                (-0.78, -0.02, 0.10),
                (-0.36, 0.0, 0.28),
                (0.06, 0.03, 0.385),
                (0.40, -0.15, 0.25),
                (0.54, -0.38, 0.185),
            ),
            posture=16,
            tail=(0.62, 0.24, -2),
            tail_shape="round",
            bill=(0.95, 0.28, 0.14),
            wing=(0.96, 0.26),
            legs=0.26,
            crest=0,
            stance="perch",
            plumage=Plumage(
                back=(150, 126, 134),
                head=(184, 160, 172),
                throat=(206, 178, 186),
                breast=(204, 150, 158),
                belly=(220, 186, 186),
                wing=(138, 122, 134),
                flight=(92, 84, 98),
                edge=(176, 162, 172),
                tail=(118, 108, 122),
                bill=(62, 54, 60),
                legs=(112, 84, 88),
                mark=(52, 34, 46),
            ),
        ),
    }
)
