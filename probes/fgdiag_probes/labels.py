"""What is asked of every readout: the labels, who learns them, who is tested, and what chance would score."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, Self

import numpy as np
import pandas as pd

from fgdiag.errors import ImagesNotUsable
from fgdiag.store import Run
from fgdiag_probes.folds import stratified_group_folds

Level = Literal["fine|coarse", "fine", "coarse"]
RANDOM_KINDS = 64
"""Permutations of which the control task is chosen."""


@dataclass(frozen=True)
class Labels:
    """Training and test images of a run with their classes.

    Attributes
    ----------
    train, test
        Rows of `run.images`: splits train and val; split test. Unreadable images are in neither, nor are test
        images of a class that training never shows.
    fine, coarse
        (images,) codes into `fine_names` and `coarse_names`; -1 where the image is not used.
    fine_names, coarse_names
        The classes, sorted. Without a coarse level there is one coarse class.
    siblings
        (coarse, fine) bool, which fine classes a coarse class has.
    levels
        Which of `fine|coarse`, `fine` and `coarse` can be asked.
    groups
        (images,) what must stay in one fold.
    seed
        Of the random kinds.
    """

    train: np.ndarray
    test: np.ndarray
    fine: np.ndarray
    coarse: np.ndarray
    fine_names: np.ndarray
    coarse_names: np.ndarray
    siblings: np.ndarray
    levels: tuple[Level, ...]
    groups: np.ndarray
    seed: int = 0

    @classmethod
    def of(cls, run: Run, *, seed: int = 0) -> Self:
        """Read the labels of a run; `ImagesNotUsable` where nothing can be trained or tested."""
        images = run.images
        usable = (images["status"] == "ok").to_numpy()
        split = images["split"].to_numpy()
        train = np.flatnonzero(usable & np.isin(split, ["train", "val"]))
        levelled = "coarse" in run.manifest["images"]["levels"]
        of_kind = images["coarse"].to_numpy(str) if levelled else np.full(len(images), "")
        of_class = images["fine"].to_numpy(str)
        fine_names, coarse_names = np.unique(of_class[train]), np.unique(of_kind[train])
        fine, coarse = _codes(of_class, fine_names), _codes(of_kind, coarse_names)
        siblings = np.zeros((len(coarse_names), len(fine_names)), bool)
        siblings[coarse[train], fine[train]] = True
        taught = (fine >= 0) & (coarse >= 0)
        taught[taught] = siblings[coarse[taught], fine[taught]]
        test = np.flatnonzero(usable & (split == "test") & taught)
        if len(fine_names) < 2 or not len(test):
            raise ImagesNotUsable(
                f"Probes need training images of two classes or more, and test images; got {len(fine_names)} "
                f"classes in {len(train)} readable training images and {len(test)} readable test images. "
                "Add images, or lower the share of test images."
            )
        levels: tuple[Level, ...] = ("fine",)
        if levelled and len(coarse_names) > 1:
            levels = ("fine", "coarse")
            if siblings[coarse[test]].sum(1).max() > 1:
                levels = ("fine|coarse", "fine", "coarse")
        groups = images["group"].to_numpy(str)
        return cls(train, test, fine, coarse, fine_names, coarse_names, siblings, levels, groups, seed)

    def codes(self, level: Level) -> np.ndarray:
        """(images,) the class that is right at a level."""
        return self.coarse if level == "coarse" else self.fine

    def names(self, level: Level) -> np.ndarray:
        """Class names that `codes` points into."""
        return self.coarse_names if level == "coarse" else self.fine_names

    def candidates(self, level: Level, rows: np.ndarray) -> np.ndarray:
        """(rows, classes) bool: the classes among which a row's is to be named."""
        if level == "fine|coarse":
            return self.siblings[self.coarse[rows]]
        return np.ones((len(rows), len(self.names(level))), bool)

    def asked(self, level: Level, rows: np.ndarray) -> np.ndarray:
        """(rows,) bool: whether there is anything to choose; look-alikes need a sibling."""
        return self.candidates(level, rows).sum(1) > 1

    @cached_property
    def random_kinds(self) -> np.ndarray:
        """(fine classes,) a random kind for each, in place of its coarse class; as many classes a kind as there.

        The control task on types of Hewitt & Liang (2019, arXiv 1909.03368). Such kinds mean nothing: a probe that
        names them knows by heart which fine classes go together. What it names better than those is selectivity.
        Of many permutations the one that leaves the fewest classes of a kind together is taken: of few classes, a
        single one may be the real kinds under other names.
        """
        rng, kinds = np.random.default_rng(self.seed), self.siblings.argmax(0)
        drawn = [rng.permutation(kinds) for _ in range(RANDOM_KINDS)]
        return min(drawn, key=lambda random: _still_together(kinds, random))

    def resplit(self, seed: int, *, parts: int = 20) -> Self:
        """Deal all images anew into training and test images, as many as before and whole groups on one side.

        Parameters
        ----------
        parts
            Images are dealt into so many parts, each class spread evenly, of which the first few are tested.
        """
        used = np.concatenate([self.train, self.test])
        part = stratified_group_folds(self.fine[used], self.groups[used], folds=parts, seed=seed)
        tested = part < max(1, round(parts * len(self.test) / len(used)))
        train, test = np.sort(used[~tested]), np.sort(used[tested])
        known = np.isin(self.fine[test], self.fine[train])
        return replace(self, train=train, test=test[known])

    def folds(self, *, folds: int, seed: int) -> np.ndarray:
        """(train,) fold of every training image."""
        return stratified_group_folds(self.fine[self.train], self.groups[self.train], folds=folds, seed=seed)

    @cached_property
    def chance(self) -> dict[Level, tuple[float, float]]:
        """Accuracy in [0, 1] and log-loss in bits that need no image, on the test images of each level.

        The better of guessing evenly and of going by how frequent the classes are in training.
        """
        return {level: self._chance(level) for level in self.levels}

    def _chance(self, level: Level) -> tuple[float, float]:
        rows = self.test[self.asked(level, self.test)]
        truth, candidates = self.codes(level)[rows], self.candidates(level, rows)
        seen = np.bincount(self.codes(level)[self.train], minlength=candidates.shape[1])
        weight = candidates * seen
        own = np.take_along_axis(weight, truth[:, None], 1)[:, 0]
        # Several classes may be the most frequent one, and a probe blind to the image may name any of them.
        frequent = own == weight.max(1)
        if level == "fine|coarse":
            naming = float(np.mean(frequent / (weight == weight.max(1, keepdims=True)).sum(1)))
        else:
            naming = float(np.bincount(truth[frequent]).max() / len(rows)) if frequent.any() else 0.0
        even = float(np.mean(1 / candidates.sum(1)))
        prior_bits = float(-np.log2(own / weight.sum(1)).mean())
        even_bits = float(np.log2(candidates.sum(1)).mean())
        return max(naming, even), min(prior_bits, even_bits)


def _codes(names: np.ndarray, known: np.ndarray) -> np.ndarray:
    return pd.Index(known).get_indexer(pd.Index(names)).astype(np.int64)


def _still_together(kinds: np.ndarray, random: np.ndarray) -> int:
    """Ordered pairs of fine classes that share a kind in both."""
    counts = np.bincount(kinds * (random.max() + 1) + random)
    return int((counts**2).sum())
