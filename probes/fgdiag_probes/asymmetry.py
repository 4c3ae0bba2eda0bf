"""What a swap of one part is worth: gain in fine-grained scores against gain in general ones, with intervals.

The claim that is tested is that of Ghosh, Zhang and Schmidt (2026, arXiv 2602.17871): a better language model lifts all
benchmarks alike, a better vision encoder lifts fine-grained ones out of proportion.

A gain is paired: the same images are asked of the two VLMs, all else equal. It is given in points of accuracy and on a
logit scale on which chance is taken off, because from 50 to 60 % is another step where one name in forty is right by
luck than where one in two is. Its interval comes from a bootstrap over the classes of each benchmark and over the
pairs of cells, which differ in the other parts and in the seed. The ratio of two gains has Fieller's interval (1954),
which has no ends where the general gain may be zero.

A measure on which a cell does hardly better than by luck has no place on the logit scale: one right answer more or less
would move it by a logit. It counts in points only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from fgdiag_probes.grid import FACTORS

GROUPS = ("fine", "general")
DRAWS = 2000
CONFIDENCE = 0.95
CLEAR = 3.0
"""Standard errors by which every cell must be above chance on a measure that counts in logits."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval; ends that are not known are NaN."""

    value: float
    low: float
    high: float

    def json(self) -> dict[str, float | None]:
        """Value and interval; None where an end is not known."""
        return {name: None if np.isnan(value) else value for name, value in asdict(self).items()}

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.low > 0

    @property
    def below_zero(self) -> bool:
        """Whether the whole interval is."""
        return self.high < 0


@dataclass(frozen=True)
class Swap:
    """What changing one part from `before` to `after` does, over all pairs of cells that differ in it alone.

    Attributes
    ----------
    factor, before, after
        `encoder`, `llm` or `plan`, and its two levels.
    pairs
        Pairs of cells.
    points
        Gain in points of accuracy by group, and under `difference` fine less general.
    logits
        The same on the chance-corrected logit scale.
    ratio
        Fine gain by general gain, in logits; its interval is NaN where the general gain may be zero (`undefined`).
    stages
        Points of accuracy that the swap adds to what is lost at each stage (below zero: less is lost), by stage.
    at_chance
        Measures that do not count in logits, as a cell is hardly above chance on them.
    """

    factor: str
    before: str
    after: str
    pairs: int
    points: Mapping[str, Estimate]
    logits: Mapping[str, Estimate]
    ratio: Estimate
    stages: Mapping[str, Estimate]
    at_chance: tuple[str, ...] = ()

    def json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("factor", "before", "after", "pairs")}
        for name in ("points", "logits", "stages"):
            found[name] = {key: one.json() for key, one in getattr(self, name).items()}
        return found | {"ratio": self.ratio.json(), "at_chance": list(self.at_chance)}


Levels = Mapping[str, Sequence[str]]
"""Of every factor, from the weaker to the stronger."""


def swaps(
    scores: pd.DataFrame, stages: pd.DataFrame, levels: Levels | None = None, *, seed: int = 0
) -> list[Swap]:
    """Compare every two levels of every factor.

    Parameters
    ----------
    scores
        One row a cell, benchmark, measure and image: `encoder`, `llm`, `plan`, `seed`, `group`, `benchmark`,
        `measure`, `image`, `cluster`, `right` (0 or 1) and `chance`.
    stages
        One row a cell and image of a fine benchmark: the cell's columns, `benchmark`, `cluster`, and for each stage
        whether the best readout at its end is right.
    levels
        Of every factor, from the weaker to the stronger; by default in the order in which they are met.
    seed
        Of the bootstrap.
    """
    found = []
    for factor, names in (levels or _met(scores)).items():
        for before, after in combinations(names, 2):
            pairs = _pairs(scores, factor, before, after)
            if pairs:
                found.append(_swap(scores, stages, factor, before, after, pairs, seed))
    return found


def _met(scores: pd.DataFrame) -> Levels:
    return {factor: [str(name) for name in dict.fromkeys(scores[factor])] for factor in FACTORS}


def interaction(scores: pd.DataFrame, levels: Levels | None = None, *, seed: int = 0) -> dict[str, Estimate]:
    """How much more the swap of the encoder gains with the last LLM of the grid than with the first, in points.

    By group, and under `difference` fine less general; nothing where the grid has one encoder or one LLM. The encoders
    are the first and the last one.
    """
    ordered = levels or _met(scores)
    encoders, llms = ordered["encoder"], ordered["llm"]
    if min(len(encoders), len(llms)) < 2:
        return {}
    pairs = _pairs(scores, "encoder", encoders[0], encoders[-1])
    at = FACTORS.index("llm")
    sides = [[pair for pair in pairs if pair[0][at] == llm] for llm in (llms[0], llms[-1])]
    if not all(sides) or len(sides[0]) != len(sides[1]):
        return {}
    # The same seed draws the same classes and pairs for both.
    both = [_Measures.of(scores, side) for side in sides]
    drawn = [one.drawn(np.random.default_rng(seed))["points"] for one in both]
    own = [one.whole()["points"] for one in both]
    return {name: _estimate(own[1] - own[0], drawn[1] - drawn[0], name) for name in (*GROUPS, "difference")}


def _pairs(scores: pd.DataFrame, factor: str, before: str, after: str) -> list[tuple[tuple, tuple]]:
    """Cells that differ in one factor alone, as (encoder, llm, plan, seed)."""
    keys = [*FACTORS, "seed"]
    cells = list(dict.fromkeys(scores[keys].itertuples(index=False, name=None)))
    place = keys.index(factor)
    twins = [(cell, (*cell[:place], after, *cell[place + 1 :])) for cell in cells if cell[place] == before]
    return [(one, other) for one, other in twins if other in cells]


def _swap(
    scores: pd.DataFrame,
    stages: pd.DataFrame,
    factor: str,
    before: str,
    after: str,
    pairs: Sequence[tuple[tuple, tuple]],
    seed: int,
) -> Swap:
    measures = _Measures.of(scores, pairs)
    drawn = measures.drawn(np.random.default_rng(seed))
    own = measures.whole()
    points, logits = (
        {name: _estimate(own[scale], drawn[scale], name) for name in (*GROUPS, "difference")}
        for scale in ("points", "logits")
    )
    ratio = fieller(own["logits"], np.cov(drawn["logits"].T))
    stage_changes = _stage_changes(stages, pairs, seed)
    return Swap(factor, before, after, len(pairs), points, logits, ratio, stage_changes, measures.at_chance)


def _estimate(own: np.ndarray, drawn: np.ndarray, name: str) -> Estimate:
    """Of one group's gain, or of the fine one less the general one: percentile interval of the bootstrap."""
    of: Callable[[np.ndarray], Any] = {
        "fine": lambda gains: gains[..., 0],
        "general": lambda gains: gains[..., 1],
        "difference": lambda gains: gains[..., 0] - gains[..., 1],
    }[name]
    value, spread = float(of(own)), of(drawn)
    return Estimate(value, *np.quantile(spread, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist())


@dataclass(frozen=True)
class _Measures:
    """Hits by class of every benchmark's measures, for both cells of every pair.

    Attributes
    ----------
    hits, sizes
        For each measure (2, pairs, classes) right answers and (classes,) images.
    classes
        Of each measure. Measures of the same classes are resampled together, as their images are the same.
    chance
        Of each measure.
    group
        Of each measure, 0 fine and 1 general.
    names
        Of each measure.
    """

    hits: list[np.ndarray]
    sizes: list[np.ndarray]
    classes: list[tuple[str, ...]]
    chance: np.ndarray
    group: np.ndarray
    names: list[str]

    @classmethod
    def of(cls, scores: pd.DataFrame, pairs: Sequence[tuple[tuple, tuple]]) -> "_Measures":
        cells = _by_cell(scores)
        hits, sizes, known, chance, group, names = [], [], [], [], [], []
        for key, rows in scores.groupby(["group", "benchmark", "measure"], sort=False):
            name, at, what = np.asarray(key, object)
            classes = np.unique(np.asarray(rows["cluster"], str))

            def counted(
                cell: tuple,
                name: str = name,
                at: str = at,
                what: str = what,
                classes: np.ndarray = classes,
            ) -> np.ndarray:
                own = cells[cell]
                own = own[(own["group"] == name) & (own["benchmark"] == at) & (own["measure"] == what)]
                codes = np.searchsorted(classes, own["cluster"].to_numpy(str))
                right = np.bincount(codes, own["right"], len(classes))
                return np.stack([right, np.bincount(codes, minlength=len(classes))])

            both = np.array([[counted(pair[side]) for pair in pairs] for side in (0, 1)], float)
            hits.append(both[:, :, 0])
            sizes.append(both[0, 0, 1])
            known.append(tuple(classes))
            chance.append(rows["chance"].mean())
            group.append(GROUPS.index(str(name)))
            names.append(f"{at}, {what}")
        return cls(hits, sizes, known, np.array(chance), np.array(group), names)

    @property
    def is_clear(self) -> np.ndarray:
        """(measures,) bool, whether every cell is clearly above chance."""
        found = []
        for hits, sizes, chance in zip(self.hits, self.sizes, self.chance, strict=True):
            by_luck = np.sqrt(chance * (1 - chance) / sizes.sum())
            found.append((hits.sum(2) / sizes.sum() - chance > CLEAR * by_luck).all())
        return np.array(found)

    @property
    def at_chance(self) -> tuple[str, ...]:
        """Names of the measures that are not."""
        return tuple(name for name, clear in zip(self.names, self.is_clear, strict=True) if not clear)

    def whole(self) -> dict[str, np.ndarray]:
        """(groups,) gains of every pair and every class counted once, by scale."""
        ones = {classes: np.ones((1, len(classes))) for classes in self.classes}
        return {scale: found[0] for scale, found in self._gains(np.ones((1, self._pairs)), ones).items()}

    def drawn(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """(draws, groups) gains of resampled classes and pairs, by scale."""
        often = {classes: _resampled(len(classes), rng) for classes in dict.fromkeys(self.classes)}
        return self._gains(_resampled(self._pairs, rng), often)

    @property
    def _pairs(self) -> int:
        return self.hits[0].shape[1]

    def _gains(self, pairs: np.ndarray, often: dict[tuple[str, ...], np.ndarray]) -> dict[str, np.ndarray]:
        """(draws, groups) mean gain over the measures of each group, in points and in logits.

        Parameters
        ----------
        pairs
            (draws, pairs) how often each counts.
        often
            (draws, classes) how often each class counts, by the classes of a measure.
        """
        share = pairs / pairs.sum(1, keepdims=True)
        points, logits = [], []
        for hits, sizes, classes, chance in zip(
            self.hits, self.sizes, self.classes, self.chance, strict=True
        ):
            images = often[classes] @ sizes  # (draws,)
            right = np.einsum("spc,dc->sdp", hits, often[classes])
            accuracy = 100 * right / images[:, None]
            scaled = logit_above_chance(right, images[:, None], chance)
            points.append(((accuracy[1] - accuracy[0]) * share).sum(1))
            logits.append(((scaled[1] - scaled[0]) * share).sum(1))
        every = np.ones(len(self.group), bool)
        return {"points": self._by_group(points, every), "logits": self._by_group(logits, self.is_clear)}

    def _by_group(self, gains: Sequence[np.ndarray], counted: np.ndarray) -> np.ndarray:
        """(draws, groups) mean over the measures of a group that are counted; NaN where it has none."""
        found = np.stack(gains, axis=1)
        of_group = [found[:, (self.group == k) & counted] for k in range(len(GROUPS))]
        return np.stack(
            [own.mean(1) if own.size else np.full(len(found), np.nan) for own in of_group], axis=1
        )


def _resampled(count: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, count) how often each of `count` things is drawn when as many are drawn with replacement."""
    return rng.multinomial(count, np.full(count, 1 / count), size=DRAWS).astype(float)


def logit_above_chance(right: np.ndarray, images: float | np.ndarray, chance: float) -> np.ndarray:
    """Log-odds of knowing the answer, when who does not know guesses.

    Accuracy p at chance c stands for a share (p - c) / (1 - c) that is known. That share is held half an image away
    from none and from all, where its log-odds have no end.

    Parameters
    ----------
    right
        Right answers, of any shape.
    images
        Of how many.
    chance
        In [0, 1).
    """
    known = (right / images - chance) / (1 - chance)
    known = np.clip(known, 0.5 / images, 1 - 0.5 / images)
    return np.log(known / (1 - known))


def fieller(gains: np.ndarray, covariance: np.ndarray) -> Estimate:
    """Ratio of two normal means with Fieller's interval (1954).

    Parameters
    ----------
    gains
        (2,) numerator and denominator.
    covariance
        (2, 2) of the two.

    Returns
    -------
    Estimate
        Its ends are NaN where the denominator is not clearly other than zero: the ratio may then be anything.
    """
    top, bottom = gains
    square = float(norm.ppf((1 + CONFIDENCE) / 2)) ** 2
    a = bottom**2 - square * covariance[1, 1]
    if not a > 0:
        return Estimate(float(top / bottom) if bottom else float("nan"), float("nan"), float("nan"))
    b = top * bottom - square * covariance[0, 1]
    c = top**2 - square * covariance[0, 0]
    half = np.sqrt(max(0.0, b * b - a * c))
    return Estimate(float(top / bottom), float((b - half) / a), float((b + half) / a))


def _stage_changes(
    stages: pd.DataFrame, pairs: Sequence[tuple[tuple, tuple]], seed: int
) -> dict[str, Estimate]:
    """By stage, the further points lost there after the swap; bootstrap over classes and pairs."""
    names = [str(name) for name in stages if name not in (*FACTORS, "seed", "benchmark", "cluster")]
    cells = _by_cell(stages)
    right = {cell: rows[names].to_numpy(float) for cell, rows in cells.items()}
    # (pairs, images, stages): points that the swap has cost up to each stage, then at it.
    fallen = np.stack([100 * (right[before] - right[after]) for before, after in pairs])
    change = np.diff(fallen, axis=2, prepend=0.0)
    first = cells[pairs[0][0]]
    named = np.char.add(first["benchmark"].to_numpy(str), first["cluster"].to_numpy(str))
    classes, codes = np.unique(named, return_inverse=True)
    member = np.eye(len(classes))[codes]  # (images, classes)
    sums, sizes = np.einsum("pis,ig->pgs", change, member), member.sum(0)
    rng = np.random.default_rng(seed)
    often, taken = _resampled(len(classes), rng), _resampled(len(pairs), rng) / len(pairs)
    draws = np.einsum("dp,dg,pgs->ds", taken, often, sums, optimize=True) / (often @ sizes)[:, None]
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    mean = change.mean((0, 1))
    return {name: Estimate(float(mean[k]), float(low[k]), float(high[k])) for k, name in enumerate(names)}


def _by_cell(table: pd.DataFrame) -> dict[tuple, Any]:
    """Rows of each cell, by (encoder, llm, plan, seed)."""
    keys = [*FACTORS, "seed"]
    cells = table[keys].drop_duplicates().itertuples(index=False, name=None)
    return {cell: table.loc[(table[keys] == list(cell)).all(axis=1)] for cell in cells}
