"""Which images are asked for, as the address says."""

from typing import Any

import numpy as np
from fgdiag_probes.labels import Level

from fgdiag_explorer.choices import Choices, link
from fgdiag_explorer.results import Results

A_PAGE = 60
"""Pictures on a wall."""
KEPT = ("split", "fine", "kind", "right", "wrong", "level", "view")
"""What says which images these are."""
OF_ONE = ("for", "against", "method", "target", "layer", "read", "name", "grid")
"""What says how one of them is looked at."""


class Asked:
    """Which images are asked for."""

    def __init__(self, results: Results, choices: Choices) -> None:
        self.results = results
        sites, present = results.sites, results.known("split")
        self.splits = [name for name in ("test", "train", "val", "excluded") if name in present]
        self.right, self.wrong = choices.some("right", sites), choices.some("wrong", sites)
        self.level: Level = choices.one("level", results.labels.levels, results.finest)
        self.split = choices.one("split", [*self.splits, "all"], self.splits[0])
        self.view = choices.one("view", ["wall", "table"])
        self.fine, self.kind = choices.text("fine"), choices.text("kind")
        self.given = {
            "run": results.name,
            **{key: choices.text(key) for key in (*KEPT, *OF_ONE)},
            "right": self.right,
            "wrong": self.wrong,
        }

    def rows(self) -> np.ndarray:
        """Return the rows of the images that meet every choice, in order."""
        results = self.results
        keep = np.ones(len(results.images), bool)
        if self.split != "all":
            keep &= results.column("split") == self.split
        for column, name in (("fine", self.fine), ("coarse", self.kind)):
            if name:
                keep &= results.column(column) == name
        if self.right or self.wrong:
            test = results.labels.test
            said = results.labels.asked(self.level, test)
            for site in self.right:
                said &= results.right(results.best(self.level, site), self.level)
            for site in self.wrong:
                said &= ~results.right(results.best(self.level, site), self.level)
            met = np.zeros(len(keep), bool)
            met[test[said]] = True
            keep &= met
        return np.flatnonzero(keep)

    def link(self, **more: Any) -> str:
        """Return the address of these images."""
        return link("images", **{**self.given, **more})
