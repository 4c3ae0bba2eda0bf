"""What the explorer can have made of one image: a map, and a token lens."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass, field

from fgdiag.store import Run
from fgdiag_explorer.worker import Opened


@dataclass(frozen=True)
class MapTask:
    """A map of one image, as `fgdiag attribute` makes it.

    Attributes
    ----------
    path, run
        Where the run lies, and the run.
    row
        Of the image.
    own, other
        Classes that the map speaks for and against, as they are on disk.
    method, target
        See `fgdiag_probes.attribution.attribute`.
    """

    path: str
    row: int
    own: str
    other: str
    method: str
    target: str
    run: Run = field(compare=False, repr=False)

    @property
    def command(self) -> str:
        """What makes maps of this contrast without the explorer."""
        words = ["fgdiag", "attribute", self.path, "--pair", self.own, self.other, "--method", self.method]
        return shlex.join([*words, "--target", self.target])

    def make(self, opened: Opened, told: Callable[[int, int], None]) -> None:
        """Make the map with its checks, unless it is there."""
        from fgdiag_probes.ablation import BUDGET
        from fgdiag_probes.attribution import MapMaker, target_of

        opened.images.open(self.row)  # an image that is gone is told as such
        targets = target_of(self.run, self.target)
        maker = MapMaker(self.run, opened.vlm, opened.images, targets, checked=True, budget=BUDGET, seed=0)
        if maker.kept(self.method, self.row, self.own, self.other) is None:
            maker.make(self.method, self.row, self.own, self.other, told=told)


@dataclass(frozen=True)
class LensTask:
    """The token lens of one image, as `fgdiag lens` makes it."""

    path: str
    row: int
    run: Run = field(compare=False, repr=False)

    @property
    def command(self) -> str:
        """What makes it without the explorer."""
        return shlex.join(["fgdiag", "lens", self.path, "--image", str(self.row)])

    def make(self, opened: Opened, told: Callable[[int, int], None]) -> None:
        """Read the tokens of the image as words, unless that was done."""
        from fgdiag_probes.lens import LensMaker

        told(0, 1)
        maker = LensMaker.of(self.run, opened.vlm, opened.images)
        if maker.kept(self.row) is None:
            maker.make(self.row)
