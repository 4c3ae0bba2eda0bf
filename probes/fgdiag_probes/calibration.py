"""How often planted damage is named, and how often a change that does no harm is: the verdict's error rates.

The model is recorded undamaged, then once for each fault, on the same images. The *extra loss* at a stage is how much
further accuracy falls there than in the undamaged model, so a model with a bottleneck of its own can be calibrated.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from fgdiag.errors import ImagesNotUsable
from fgdiag.extraction import extract
from fgdiag.image_set import ImageSet
from fgdiag.progress import say
from fgdiag.prompts import spoken
from fgdiag.sites import Readout
from fgdiag.store import Run, write_json
from fgdiag_probes.curves import LayerCurves, probe_layers
from fgdiag_probes.depths import comparable, depth_at, depths_of
from fgdiag_probes.drops import SIGNIFICANT
from fgdiag_probes.faults import (
    BiasedAnswers,
    BlindedEncoder,
    CannotPlant,
    ChangedBasis,
    ErasedClasses,
    Fault,
    LowRankProjector,
    NoisyLayer,
    ShuffledNames,
)
from fgdiag_probes.intervals import Estimates, clustered_means, holm
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.likelihood import name_likelihood
from fgdiag_probes.reading import Reading
from fgdiag_probes.verdict import Stage

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

STAGES: tuple[Stage, ...] = ("vision encoder", "projector", "language model", "answer")
LAST_DEPTH = ("vision", "projector", "last llm layer", "answer")
"""Where each stage ends."""
COSTLY = 15.0
"""Points of accuracy that damage must cost at its own stage to count."""
READOUTS: tuple[Readout, ...] = ("image", "last", "cls")
IMAGES_A_PART = 64


@dataclass(frozen=True)
class Case:
    """One run that is compared with the undamaged one: a fault in the model, or another way to record it."""

    name: str
    fault: Fault | None = None
    batch_size: int | Literal["auto"] = "auto"
    reordered: bool = False
    probe_seed: int = 0

    @property
    def stage(self) -> Stage:
        """The stage that must be named; `none` where there is no harm."""
        return self.fault.stage if self.fault else "none"


@dataclass(frozen=True)
class Outcome:
    """What was planted in one run, and what comparing it with the undamaged run named.

    Attributes
    ----------
    fault, stage, site, strength, seed
        What was planted; stage `none` for a harmless change.
    cost
        Extra loss at the planted stage in points of accuracy, with its 95 % interval `low` to `high` (paired,
        bootstrap clustered by fine class); of a harmless change at the stage where it looks worst.
    named
        The stage with the largest significant extra loss; `none` where there is none.
    layer
        For a fault in the language model, its site with the largest extra fall from the site before.
    near
        Whether that is the planted site or one beside it.
    """

    fault: str
    stage: Stage
    site: str | None
    strength: float
    seed: int
    cost: float
    low: float
    high: float
    named: Stage
    layer: str | None
    near: bool | None

    @property
    def counts(self) -> bool:
        """Whether it is harmless, or damage that costs 15 points or more at its own stage."""
        return self.stage == "none" or self.cost >= COSTLY

    @property
    def right(self) -> bool:
        """Whether what was planted is what was named."""
        return self.named == self.stage


@dataclass(frozen=True)
class Calibration:
    """Planted damage and harmless changes, one outcome each, at `level`: `fine|coarse` or `fine`."""

    rows: tuple[Outcome, ...]
    level: Level

    def frame(self) -> pd.DataFrame:
        """Return the detection table: one row a fault, site and strength.

        `runs`, mean `cost` in points, how many runs `counted`, the share of those in which the planted stage was
        `named` and the layer was `near`, or for a harmless change the share of `false_alarms`.
        """
        alike: dict[tuple[Any, ...], list[Outcome]] = {}
        for row in self.rows:
            alike.setdefault((row.stage, row.fault, row.site or "", row.strength), []).append(row)
        keys = ("stage", "fault", "site", "strength")
        return pd.DataFrame(
            [dict(zip(keys, key, strict=True)) | _shares(rows) for key, rows in alike.items()]
        )

    def json(self) -> dict[str, Any]:
        """Return counts with 95 % intervals of their shares (Clopper-Pearson), and all rows.

        `named` of `cases` damaged runs that count were named rightly; in `false_alarms` of `harmless` runs a stage was
        named. A guess among the five verdicts would name one in five rightly (`chance`).
        """
        damaged = [row.right for row in self.rows if row.stage != "none" and row.counts]
        alarms = [not row.right for row in self.rows if row.stage == "none"]
        return {
            "level": self.level,
            "cases": len(damaged),
            "named": sum(damaged),
            "named_interval": _interval(damaged),
            "harmless": len(alarms),
            "false_alarms": sum(alarms),
            "false_alarms_interval": _interval(alarms),
            "chance": 1 / (len(STAGES) + 1),
            "rows": [asdict(row) | {"counts": row.counts, "right": row.right} for row in self.rows],
        }


def calibrate(
    vlm: "VLM",
    images: ImageSet,
    out: str | Path,
    *,
    per_class: int | None = None,
    seeds: int = 3,
    quick: bool = False,
    level: Level | None = None,
) -> Calibration:
    """Plant known damage in a model, record it, and count how often the planted stage is named.

    Every run is an ordinary one, kept in `out/cases`; a case that is finished is not done again.

    Parameters
    ----------
    vlm, images
        The model and labelled images; the model is as it was afterwards.
    out
        Folder for the runs and `calibration.json`.
    per_class
        Images of each fine class in each split that are drawn, anew for each seed; by default all of them.
    seeds
        How many samples, each with faults drawn anew.
    quick
        One strength a fault, one planted layer, and only the layers around it: a look, no measurement.
    level
        `fine|coarse` or `fine`; by default the first that the images have. Among all classes there is more to lose, so
        more damage counts where few siblings are told apart; but every name is then scored for every image.

    Raises
    ------
    ImagesNotUsable
        There is nothing to choose from at `level`.
    RunMismatch
        `out` holds cases of another model or of other images.
    """
    out, rows = Path(out), []
    for seed in range(seeds):
        sample = draw(images, per_class, seed=seed)
        bench = _Bench(vlm, sample, out / "cases", seed, _sites(vlm) if quick else None, level)
        rows += list(bench.rows(quick))
        level = bench.level
    if level is None:
        raise ImagesNotUsable(f"Got {seeds} seeds to calibrate with; expected 1 or more.")
    found = Calibration(tuple(rows), level)
    write_json(out / "calibration.json", found.json())
    return found


def judge_extra(
    undamaged: np.ndarray, damaged: np.ndarray, clusters: np.ndarray, *, seed: int = 0
) -> tuple[Stage, Estimates]:
    """Name the stage with the largest significant extra loss.

    Parameters
    ----------
    undamaged, damaged
        (stages, images) 0 or 1: whether the best readout at the end of each stage names an image rightly.
    clusters
        (images,) fine class.

    Returns
    -------
    stage, extra
        `none` where no extra loss is above zero with a Holm-corrected p-value below 0.05; the losses in points.
    """
    extra = clustered_means(np.diff(_fallen(undamaged, damaged), axis=0, prepend=0), clusters, seed=seed)
    lost = (holm(extra.p_value) < SIGNIFICANT) & (extra.mean > 0)
    return (STAGES[int(np.where(lost, extra.mean, -np.inf).argmax())] if lost.any() else "none"), extra


def draw(images: ImageSet, per_class: int | None, *, seed: int) -> ImageSet:
    """Draw readable images, at most `per_class` of each fine class in each split, in the order of `images`."""
    table = images.table[(images.table["status"] == "ok") & (images.table["split"] != "excluded")]
    shuffled = table.sample(frac=1, random_state=seed)
    rank = shuffled.groupby(["fine", "split"]).cumcount()
    kept = rank.index[rank < per_class] if per_class else rank.index
    return images.subset(np.sort(kept.to_numpy()))


def cases_of(run: Run, labels: Labels, *, seed: int, quick: bool) -> list[Case]:
    """Faults in all stages and harmless changes, made for the undamaged `run`."""
    blocks = [str(site) for site in run.sites if site.part == "llm" and site.index != "norm"]
    depths = (1 / 2,) if quick else (1 / 4, 1 / 2, 3 / 4)
    layers = [blocks[int(depth * (len(blocks) - 1))] for depth in depths]
    fine = tuple(spoken(name) for name in labels.fine_names)
    coarse = tuple(spoken(name) for name in labels.coarse_names if name)
    damage = [
        *(BlindedEncoder(factor) for factor in ((16,) if quick else (8, 16, 32))),
        *(LowRankProjector(run, rank) for rank in ((1,) if quick else (1, 2, 4))),
        *(NoisyLayer(run, layer, times, seed) for layer in layers for times in ((8,) if quick else (4, 8))),
        *(ErasedClasses(run, layer) for layer in layers),
        *(ErasedClasses(run, layer, onwards=False) for layer in layers if not quick),
        *(ShuffledNames(fine, coarse, share, seed) for share in ((1,) if quick else (0.5, 1))),
        *(BiasedAnswers(nats, seed) for nats in ((8,) if quick else (4, 8))),
    ]
    twins = [
        ChangedBasis(layer, basis, seed) for layer in layers for basis in ("rotated", "rescaled", "permuted")
    ]
    ways = [
        Case("batches-of-5", batch_size=5),
        Case("other-image-order", reordered=True),
        Case("other-probe-seed", probe_seed=seed + 1000),
    ]
    return [Case(fault.name, fault) for fault in [*damage, *(twins[:1] if quick else twins)]] + ways


class _Bench:
    """The cases of one seed: one sample of images, one undamaged run."""

    def __init__(
        self,
        vlm: "VLM",
        images: ImageSet,
        out: Path,
        seed: int,
        sites: Sequence[str] | None,
        level: Level | None,
    ) -> None:
        self.vlm, self.images, self.out, self.seed, self.sites = vlm, images, out, seed, sites
        self.undamaged = self._recorded(Case("undamaged"), images)
        self.labels = Labels.of(self.undamaged)
        self.level: Level = level or self.labels.levels[0]
        if self.level not in self.labels.levels or self.level == "coarse":
            asked = " or ".join(name for name in self.labels.levels if name != "coarse")
            raise ImagesNotUsable(f"Got the level {self.level!r} to calibrate at; these images have {asked}.")

    def rows(self, quick: bool) -> Iterator[Outcome]:
        """Do every case and say what is named."""
        reference = self._seen(Case("undamaged"))
        cases = cases_of(self.undamaged, self.labels, seed=self.seed, quick=quick)
        for number, case in enumerate(cases, start=1):
            say(f"seed {self.seed}, case {number} of {len(cases)}: {case.name}")
            try:
                yield self._outcome(case, reference, self._seen(case))
            except CannotPlant as error:
                say(f"left out: {error}")

    def _outcome(self, case: Case, undamaged: "_Seen", damaged: "_Seen") -> Outcome:
        named, extra = judge_extra(undamaged.stages, damaged.stages, undamaged.clusters, seed=self.seed)
        own = int(extra.mean.argmax()) if case.stage == "none" else STAGES.index(case.stage)
        site = case.fault.site if case.fault else None
        layer = undamaged.falling(damaged) if case.stage == "language model" else None
        return Outcome(
            fault=case.fault.kind if case.fault else case.name.replace("-", " "),
            stage=case.stage,
            site=site,
            strength=float(case.fault.strength) if case.fault else 0.0,
            seed=self.seed,
            cost=float(extra.mean[own]),
            low=float(extra.low[own]),
            high=float(extra.high[own]),
            named=named,
            layer=layer,
            near=abs(undamaged.names.index(layer) - undamaged.names.index(str(site))) <= 1 if layer else None,
        )

    def _recorded(self, case: Case, images: ImageSet) -> Run:
        folder = self.out / f"{case.name}-seed{self.seed}"
        return extract(
            self.vlm, images, folder, readouts=READOUTS, sites=self.sites, batch_size=case.batch_size
        )

    def _seen(self, case: Case) -> "_Seen":
        """Record a case, ask the model under it, and probe what was recorded."""
        images = self.images
        if case.reordered:
            images = images.subset(np.random.default_rng(self.seed).permutation(len(images)))
        if case.fault is None:
            run = self._recorded(case, images)
            answers = _answers(run, self.vlm, images, self.level)
        else:
            with case.fault.planted(self.vlm):
                run = self._recorded(case, images)
                answers = _answers(run, self.vlm, images, self.level)
        return _Seen.of(run, probe_layers(run, seed=case.probe_seed), answers, self.level)


@dataclass(frozen=True)
class _Seen:
    """What one run gets right, image by image: the same images in the same order for every case of a seed."""

    stages: np.ndarray
    """(stages, images) 0 or 1, at the end of each stage."""
    layers: np.ndarray
    """(1 + layers, images) the same for the projector and each site of the language model."""
    names: tuple[str, ...]
    """Sites of the language model."""
    clusters: np.ndarray

    @classmethod
    def of(cls, run: Run, curves: LayerCurves, answers: Reading, level: Level) -> "_Seen":
        labels = curves.labels
        asked = np.flatnonzero(comparable({level: answers}, level, labels))
        asked = asked[np.argsort(run.images["source"].to_numpy(str)[labels.test[asked]], kind="stable")]
        ends = {depth.name: depth for depth in depths_of(curves, {level: answers}, level)}
        before = [str(site) for site in run.sites if site.part == "projector"]
        names = tuple(str(site) for site in run.sites if site.part == "llm")
        along = [depth_at(curves, level, "layer", sites) for sites in (before, *([name] for name in names))]

        def right(readings: Sequence[Reading]) -> np.ndarray:
            return np.stack([reading.correct(labels, level)[asked] for reading in readings])

        return cls(
            right([ends[name].reading for name in LAST_DEPTH]),
            right([depth.reading for depth in along if depth]),
            names,
            labels.fine_names[labels.fine[labels.test][asked]],
        )

    def falling(self, damaged: "_Seen") -> str:
        """Site of the language model with the largest extra fall from the site before."""
        falls = np.diff(_fallen(self.layers, damaged.layers).mean(1))
        return self.names[int(falls.argmax())]


def _fallen(undamaged: np.ndarray, damaged: np.ndarray) -> np.ndarray:
    """Points that the damage has cost up to each depth, image by image."""
    return 100 * (undamaged - damaged)


def _answers(run: Run, vlm: "VLM", images: ImageSet, level: Level) -> Reading:
    """The likeliest name, among those of the image's own coarse class at `fine|coarse`: fewer names, less time."""
    labels, name = Labels.of(run), "answers_among_siblings" if level == "fine|coarse" else "answers_among_all"
    if not run.result_path(f"{name}.parquet").exists():
        run.write_table(name, _ask(run, vlm, images, labels, level))
    table = run.read_table(name)
    return Reading(table["said"].to_numpy(np.int32), table["bits"].to_numpy(np.float32))


def _ask(run: Run, vlm: "VLM", images: ImageSet, labels: Labels, level: Level) -> pd.DataFrame:
    candidates = labels.candidates(level, labels.test)
    scores = np.full(candidates.shape, -np.inf)
    choices, choice_of = np.unique(candidates, axis=0, return_inverse=True)
    for index, choice in enumerate(choices):
        names = [spoken(name) for name in labels.names(level)[choice]]
        asked = np.flatnonzero(choice_of == index)
        for part in np.array_split(asked, -(-len(asked) // IMAGES_A_PART)):
            pictures = [images.open(int(row)) for row in labels.test[part]]
            found = name_likelihood(vlm, pictures, names, run.manifest["prompt"])
            scores[np.ix_(part, np.flatnonzero(choice))] = found
    reading = Reading.of_logits(scores, labels, level, labels.test)
    return pd.DataFrame({"said": reading.said, "bits": reading.bits})


def _sites(vlm: "VLM") -> list[str]:
    """What a quick look records: the middle of the language model and its end."""
    layers = [str(spec.site) for spec in vlm.anatomy.sites if spec.site.part == "llm"]
    middle = len(layers) // 2
    kept = {*layers[max(0, middle - 2) : middle + 3], *layers[-2:]}
    return [name for name in vlm.anatomy.default_sites if not name.startswith("llm") or name in kept]


def _shares(rows: Sequence[Outcome]) -> dict[str, Any]:
    counted = [row for row in rows if row.counts]
    harmless = rows[0].stage == "none"
    return {
        "runs": len(rows),
        "cost": _mean([row.cost for row in rows]),
        "counted": len(counted),
        "named": None if harmless else _mean([row.right for row in counted]),
        "near": _mean([row.near for row in counted if row.near is not None]),
        "false_alarms": _mean([not row.right for row in counted]) if harmless else None,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _interval(hits: Sequence[bool]) -> list[float] | None:
    """95 % interval of a share, in [0, 1]; None of no runs."""
    if not hits:
        return None
    found = binomtest(sum(hits), len(hits)).proportion_ci(0.95)
    return [float(found.low), float(found.high)]
