"""Two classes followed through the model: how well each site tells them apart, and where that is lost.

At each site a linear discriminant decides between the two; see `fgdiag_probes.discriminant`. The readout that names
fine classes best on held-out training images speaks for the site, as it does in the loss budget. Both classes count
half, however many images they have, so chance is one half. Attention over image tokens, where it is the best readout,
and the model's answer name one of all classes: they tell the two apart where they name one of them, and a third name
counts half, as a guess between the two would.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Self

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import ImagesNotUsable
from fgdiag.progress import track
from fgdiag.prompts import spoken
from fgdiag.sites import ATTENTION, Site
from fgdiag.store import Run, write_bytes
from fgdiag_probes.answered import read_answers
from fgdiag_probes.class_names import class_named
from fgdiag_probes.confusion import ConfusedPairs, confused_pairs
from fgdiag_probes.curves import FOLDS, LayerCurves, Place, key_of, probe_layers, resolution_of
from fgdiag_probes.depths import sites_of
from fgdiag_probes.discriminant import RIDGES, discriminate
from fgdiag_probes.falls import Flipped, fall_for_good
from fgdiag_probes.intervals import Estimates, clustered_means
from fgdiag_probes.labels import Labels
from fgdiag_probes.marks import marks_between
from fgdiag_probes.pair_figure import draw_pairs
from fgdiag_probes.reading import Readings
from fgdiag_probes.style import minus, percent

CHANCE = 0.5
CURVE_COLUMNS = ("first", "second", "site", "readout", "stage", "accuracy", "low", "high")
PICKED_NOTE = (
    "These pairs were picked because the model confuses them on these same test images, so what it confuses looks a "
    "little worse here than on new images; pairs that are named beforehand do not have that."
)


@dataclass(frozen=True)
class PairCurves:
    """Pairs of classes, how well each site tells them apart, and where that is lost.

    Attributes
    ----------
    curves
        One row a pair (`first`, `second`) and site in the order of the forward pass, `pixels` before and `answer`
        after them: `site`, `readout`, `stage`, and `accuracy` in [0, 1], the share of test images of the two classes
        told apart rightly, each class counting half, with its 95 % interval (`low`, `high`). Chance is one half.
    places
        One row a pair: `kind`, the coarse class, where both are of one; `marks` by which they differ, where
        these are known (species of the field guide); `images`, how many were tested; `confused`,
        how many of them were taken for the other where the pairs are ranked, and `third`, for how many the model's
        answer was neither; `outcome`, see `OUTCOMES`; `after` and
        `by`, the sites between which the fall lies; `stage`, what lies between them; `drop` in points with its 95 %
        interval (`low`, `high`) from `after` to `by`, and `p_value`: of the fall between the depths of the loss
        budget around it, all stretches between these depths considered (`fgdiag_probes.falls`). Where nothing
        is seen to be lost, the drop is that from the first site to the last, which was not sought out. `sentence`.
    picked
        Whether the pairs were picked as the most confused ones, and not named.
    """

    curves: pd.DataFrame
    places: pd.DataFrame
    picked: bool

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read back what `pair_curves` kept; `RunIncomplete` where nothing is."""
        kept = run.read_json("pairs")
        return cls(pd.DataFrame(kept["curves"]), pd.DataFrame(kept["pairs"]), bool(kept["note"]))

    def frame(self) -> pd.DataFrame:
        """Return where each pair is lost; see `places`."""
        return self.places

    def json(self) -> dict[str, Any]:
        """Return places and curves as plain values."""
        return {
            "chance": CHANCE,
            "note": PICKED_NOTE if self.picked else None,
            "pairs": json.loads(str(self.places.to_json(orient="records"))),
            "curves": json.loads(str(self.curves.to_json(orient="records"))),
        }

    def figure(self) -> go.Figure:
        """Draw a small plot a pair: its curve, its interval, chance, and the stretch in which it is lost."""
        return draw_pairs(self.curves, self.places)


ENDS = {"drop": "mean", "low": "low", "high": "high"}

OUTCOMES = {
    "lost": "told apart at one site and significantly less at a later one, which nothing makes good",
    "nowhere": "no fall is significant",
    "never readable": "no site tells the two apart significantly better than chance, even with no others considered",
}


@dataclass(frozen=True)
class _Pair:
    """Two classes, and the test images of both: (rows,) positions among those of `Labels`."""

    first: int
    second: int
    test: np.ndarray


@dataclass(frozen=True)
class _Telling:
    """How one place tells the test images of a pair apart: 1 rightly, 0 wrongly, a half not at all."""

    site: str
    readout: str
    right: np.ndarray

    @property
    def stage(self) -> str:
        return "answer" if self.site == "answer" else Site.parse(self.site).stage


def pair_curves(
    run: Run, pairs: Iterable[Sequence[str]] | None = None, *, top: int = 10, seed: int = 0
) -> PairCurves:
    """Follow pairs of classes through the model.

    Reads the recorded activations, so the model is not needed. Writes `results/pairs.json`, which
    keeps the pairs that were followed before.

    Parameters
    ----------
    run
        An extracted run; probed first where that was not done.
    pairs
        Two class names each, on disk or as spoken. Default: the `top` pairs taken for one another most often,
        counted in the answers, or without them at the last layer.
    seed
        See `probe_layers`; also of the flipped signs.

    Raises
    ------
    ClassNotFound
        The run has no class of such a name.
    ImagesNotUsable
        A pair is one class twice, or one of its classes has no test images.
    """
    curves = probe_layers(run, seed=seed)
    labels, confused = curves.labels, confused_pairs(run, seed=seed)
    named = [_named(labels, pair) for pair in pairs] if pairs is not None else most_confused(confused, top)
    answers = read_answers(run, labels)
    asked = [_pair(labels, answers, *names) for names in named]
    rows, places = [], []
    for pair, tellings in zip(asked, _tell_apart(run, curves, asked, seed), strict=True):
        if answers is not None:
            tellings.append(_Telling("answer", "likelihood", _by_name(answers, labels, pair)))
        rows.append(_curve(labels, pair, tellings))
        chain = [telling for telling in tellings if telling.site != "pixels"]
        places.append(_place(curves, pair, chain, confused, seed))
    found = PairCurves(
        pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=list(CURVE_COLUMNS)),
        pd.DataFrame(places),
        picked=pairs is None,
    )
    _keep(run, found, key_of(run, seed))
    return found


def _keep(run: Run, found: PairCurves, key: str) -> None:
    """Write the pairs into `results/pairs.json`, beside other pairs that were followed before."""
    new: dict[str, Any] = {**found.json(), "key": key}
    path = run.result_path("pairs.json")
    before = run.read_json("pairs") if path.exists() else {}
    if before.get("key") == key:
        known = {(row["first"], row["second"]) for row in new["pairs"]}
        for part in ("pairs", "curves"):
            new[part] += [row for row in before[part] if (row["first"], row["second"]) not in known]
        new["note"] = new["note"] or before["note"]
    run.write_json("pairs", new)


def most_confused(confused: ConfusedPairs, top: int = 10) -> list[tuple[str, str]]:
    """Return the pairs, either way round, of which most images are taken for the other class."""
    counts: Counter[tuple[str, str]] = Counter()
    table = confused.table
    for truth, said, images in zip(table["truth"], table["said"], table[confused.ranked_by], strict=True):
        counts[min(truth, said), max(truth, said)] += int(images)
    return [pair for pair, images in counts.most_common(top) if images]


def _named(labels: Labels, pair: Sequence[str]) -> tuple[str, str]:
    first, second = (class_named(name, labels.fine_names.tolist()) for name in pair)
    return first, second


def _pair(labels: Labels, answers: Readings | None, first: str, second: str) -> _Pair:
    if first == second:
        raise ImagesNotUsable(f"A pair needs two classes; got {first!r} twice. Name another one.")
    truth = labels.fine[labels.test]
    known = np.full(len(truth), True) if answers is None else ~np.isnan(answers["fine"].bits)
    codes = [labels.fine_names.tolist().index(name) for name in (first, second)]
    for name, code in zip((first, second), codes, strict=True):
        if not (truth[known] == code).any():
            raise ImagesNotUsable(f"Class {name!r} has no test images in this run; name another one.")
    return _Pair(codes[0], codes[1], np.flatnonzero(known & np.isin(truth, codes)))


def _tell_apart(run: Run, curves: LayerCurves, pairs: list[_Pair], seed: int) -> list[list[_Telling]]:
    """For each pair what every site says; a site is read only once."""
    labels, folds = curves.labels, curves.labels.folds(folds=FOLDS, seed=seed)
    places = _places(curves) if pairs else []
    told: list[list[_Telling]] = [[] for _ in pairs]
    for place in track(places, description="telling pairs apart", total=len(places), unit="sites"):
        if place[1] == ATTENTION:
            said = curves.readings[place]
            right = [_by_name(said, labels, pair) for pair in pairs]
        else:
            scores = _scores(run, labels, folds, place, seed)
            right = [_by_score(scores, labels, pair) for pair in pairs]
        for tellings, of_pair in zip(told, right, strict=True):
            tellings.append(_Telling(*place, of_pair))
    return told


def _by_score(scores: np.ndarray, labels: Labels, pair: _Pair) -> np.ndarray:
    of_pair = scores[pair.test]
    said_second = of_pair[:, pair.second] > of_pair[:, pair.first]
    return (said_second == (labels.fine[labels.test[pair.test]] == pair.second)).astype(float)


def _scores(run: Run, labels: Labels, folds: np.ndarray, place: Place, seed: int) -> np.ndarray:
    """Scores of all classes at a place, kept on disk: the next pair is told apart at once."""
    path = run.result_path(f"discriminants/{place[0]}.{place[1]}.npz")
    key = f"{RIDGES} {key_of(run, seed)}"
    if path.exists():
        with np.load(path) as kept:
            if str(kept["key"]) == key:
                return kept["scores"]
    resolution = resolution_of(run, place[0])
    scores = discriminate(run.activations(*place), labels, folds, resolution=resolution)
    buffer = BytesIO()
    np.savez(buffer, key=np.array(key), scores=scores)
    write_bytes(path, buffer.getvalue())
    return scores


def _places(curves: LayerCurves) -> list[Place]:
    """The best readout of every site, in the order of the forward pass; of several projector sites the best one."""
    sites: dict[str, list[str]] = {}
    for name in dict.fromkeys(site for site, _ in curves.readings):
        sites.setdefault("projector" if Site.parse(name).part == "projector" else name, []).append(name)
    best = [curves.best(curves.labels.levels[0], among) for among in sites.values()]
    return [place for place in best if place]


def _by_name(readings: Readings, labels: Labels, pair: _Pair) -> np.ndarray:
    """By one name of all; where the classes are of one kind, of their kind."""
    of_one_kind = (labels.siblings[:, pair.first] & labels.siblings[:, pair.second]).any()
    said = readings["fine|coarse" if "fine|coarse" in readings and of_one_kind else "fine"].said[pair.test]
    return np.where(
        np.isin(said, [pair.first, pair.second]), said == labels.fine[labels.test[pair.test]], CHANCE
    )


def _weights(second: np.ndarray) -> np.ndarray:
    """(rows,) such that each of two classes counts half in a mean."""
    return len(second) / 2 / np.where(second, max(1, second.sum()), max(1, (~second).sum()))


def _curve(labels: Labels, pair: _Pair, tellings: list[_Telling]) -> pd.DataFrame:
    found = _means(labels, pair, np.stack([telling.right for telling in tellings]))
    first, second = labels.fine_names[[pair.first, pair.second]]
    return pd.DataFrame(
        {
            "first": str(first),
            "second": str(second),
            "site": [telling.site for telling in tellings],
            "readout": [telling.readout for telling in tellings],
            "stage": [telling.stage for telling in tellings],
            "accuracy": found.mean,
            "low": found.low.clip(0, 1),
            "high": found.high.clip(0, 1),
        }
    )


def _means(labels: Labels, pair: _Pair, values: np.ndarray) -> Estimates:
    """Means of (quantities, test images) in which both classes count half, for other images of these two classes.

    What separates the classes is no error of the mean, for both are always there: each image is compared with its
    own class.
    """
    rows = labels.test[pair.test]
    second = labels.fine[rows] == pair.second
    weights = _weights(second)
    own = np.where(second, values[:, second].mean(1)[:, None], values[:, ~second].mean(1)[:, None])
    mean = (values * weights).mean(1, keepdims=True)
    return clustered_means(mean + weights * (values - own), labels.groups[rows], step=float(weights.max()))


def _place(
    curves: LayerCurves, pair: _Pair, chain: list[_Telling], confused: ConfusedPairs, seed: int
) -> dict[str, Any]:
    labels, rows = curves.labels, curves.labels.test[pair.test]
    right = np.stack([telling.right for telling in chain])
    weights, groups = _weights(labels.fine[rows] == pair.second), labels.groups[rows]
    shares = (weights * right).mean(1)
    readable = Flipped.of(weights * (right - CHANCE), groups, seed=seed).above_zero()
    fall = fall_for_good(Flipped.of(weights * right, groups, seed=seed), _depths(curves, chain))
    if fall and not readable[fall.start]:
        fall = None
    start, end = (fall.start, fall.end) if fall else (0, len(chain) - 1)
    drop = _means(labels, pair, (right[start] - right[end])[None])
    first, second = (str(labels.fine_names[code]) for code in (pair.first, pair.second))
    shared = np.flatnonzero(labels.siblings[:, pair.first] & labels.siblings[:, pair.second])
    has_kind = "coarse" in labels.levels and len(shared)
    found = {
        "first": first,
        "second": second,
        "kind": str(labels.coarse_names[shared[0]]) if has_kind else None,
        "marks": marks_between(first, second),
        "images": len(rows),
        "confused": _confused(confused, first, second),
        "third": int((right[-1] == CHANCE).sum()) if chain[-1].site == "answer" else None,
        "outcome": "lost" if fall else "nowhere" if readable.any() else "never readable",
        "after": chain[start].site,
        "by": chain[end].site,
        "stage": _stages(chain[start + 1 : end + 1]) if fall else None,
        **{name: float(np.clip(100 * getattr(drop, of)[0], -100, 100)) for name, of in ENDS.items()},
        "p_value": fall.p_value if fall else None,
    }
    return {**found, "sentence": _sentence(found, float(shares[start]), float(shares[end]))}


def _depths(curves: LayerCurves, chain: list[_Telling]) -> list[int]:
    """Where in the chain the depths of the loss budget lie."""
    level = curves.labels.levels[0]
    speak = {curves.best(level, among) for among in sites_of(curves).values()}
    sites = {place[0] for place in speak if place} | {"answer"}
    return [at for at, telling in enumerate(chain) if telling.site in sites]


def _stages(between: list[_Telling]) -> str:
    return " or ".join(dict.fromkeys(telling.stage for telling in between))


def _confused(confused: ConfusedPairs, first: str, second: str) -> int:
    table = confused.table
    either = table["truth"].isin([first, second]) & table["said"].isin([first, second])
    return int(table.loc[either, confused.ranked_by].sum())


def _sentence(found: dict[str, Any], before: float, after: float) -> str:
    names = f"{spoken(found['first'])} and {spoken(found['second'])}"
    told = {
        "lost": f"are lost between {found['after']} and {found['by']} ({found['stage']})",
        "nowhere": "are not seen to be lost anywhere",
        "never readable": "are not seen to be told apart at any site",
    }[found["outcome"]]
    change = f"{-found['drop']:+.0f} points, 95 % interval {-found['high']:+.0f} to {-found['low']:+.0f}"
    return (
        f"{names} {told}: {percent(before)} of {found['images']} test images told apart at {found['after']}, "
        f"{percent(after)} at {found['by']} (a change of {minus(change)}; chance 50 %)."
    )
