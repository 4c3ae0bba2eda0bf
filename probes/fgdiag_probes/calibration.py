"""How often planted damage is named, and how often a change that does no harm is: the verdict's error rates.

The model is recorded undamaged, then once for each fault, on the same images. The *extra loss* at a stage is how much
further accuracy falls there than in the undamaged model, so a model with a bottleneck of its own can be calibrated.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from fgdiag.errors import ImagesNotUsable
from fgdiag.image_set import ImageSet
from fgdiag.store import write_json
from fgdiag_probes.bench import Bench, Outcome
from fgdiag_probes.extra_loss import STAGES

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


@dataclass(frozen=True)
class Calibration:
    """Planted damage and harmless changes, one outcome each."""

    rows: tuple[Outcome, ...]

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
        named, and in `traced_alarms` of those `traced` in which any image was read otherwise: the rest could raise
        an alarm by an error of computation only. A guess among the five verdicts would name one in five rightly
        (`chance`).
        """
        damaged = [row.right for row in self.rows if row.stage != "none" and row.counts]
        harmless = [row for row in self.rows if row.stage == "none"]
        alarms = [not row.right for row in harmless]
        traced = [not row.right for row in harmless if row.leaves_a_trace]
        return {
            "cases": len(damaged),
            "named": sum(damaged),
            "named_interval": _interval(damaged),
            "harmless": len(alarms),
            "false_alarms": sum(alarms),
            "false_alarms_interval": _interval(alarms),
            "traced": len(traced),
            "traced_alarms": sum(traced),
            "traced_alarms_interval": _interval(traced),
            "chance": 1 / (len(STAGES) + 1),
            "rows": [asdict(row) | {"counts": row.counts, "right": row.right} for row in self.rows],
        }


def calibrate(
    vlm: "VLM",
    images: ImageSet,
    out: str | Path,
    *,
    classes: int = 40,
    per_class: int = 8,
    seeds: int = 3,
    quick: bool = False,
) -> Calibration:
    """Plant known damage in a model, record it, and count how often the planted stage is named.

    Every run is an ordinary one, kept in `out/cases`; a case that is finished is not done again.

    Parameters
    ----------
    vlm, images
        The model and labelled images; the model is as it was afterwards.
    out
        Folder for the runs and `calibration.json`.
    classes, per_class
        How many fine classes, and images of each in each split, are drawn at most; kind by kind.
    seeds
        How many samples, each with faults drawn anew.
    quick
        One strength a fault, one planted layer, and only the layers around it: a look, no measurement.

    Raises
    ------
    ImagesNotUsable
        No seeds, or too few images to train and test probes.
    RunMismatch
        `out` holds cases of another model or of other images.
    """
    if seeds < 1:
        raise ImagesNotUsable(f"Got {seeds} seeds to calibrate with; expected 1 or more.")
    out, rows, sites = Path(out), [], _sites(vlm) if quick else None
    for seed in range(seeds):
        sample = partial(draw, images, classes=classes, per_class=per_class, seed=seed)
        bench = Bench(vlm, sample, out / "cases", seed, sites)
        rows += list(bench.rows(quick))
    found = Calibration(tuple(rows))
    write_json(out / "calibration.json", found.json())
    return found


def draw(images: ImageSet, *, classes: int, per_class: int, seed: int, redrawn: int = 0) -> ImageSet:
    """Draw readable images of some classes, in the order of `images`.

    Parameters
    ----------
    classes, per_class, seed
        See `calibrate`.
    redrawn
        Number of another draw of the training images; the test images are the same for all.
    """
    table = images.table
    usable = (table["status"] == "ok") & (table["split"] != "excluded")
    fine, coarse = table["fine"].to_numpy(str), table["coarse"].to_numpy(str)
    chosen = usable.to_numpy() & np.isin(fine, _drawn_classes(fine[usable], coarse[usable], classes, seed))
    tested = (table["split"] == "test").to_numpy()
    test = _drawn_rows(fine, chosen & tested, per_class, [seed])
    train = _drawn_rows(fine, chosen & ~tested, per_class, [seed, redrawn])
    return images.subset(np.sort(np.concatenate([test, train])))


def _drawn_classes(fine: np.ndarray, coarse: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Fine classes, kind by kind in random order, so that look-alikes stay together."""
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.unique(coarse))
    return np.concatenate([rng.permutation(np.unique(fine[coarse == kind])) for kind in kinds])[:count]


def _drawn_rows(fine: np.ndarray, among: np.ndarray, per_class: int, seed: list[int]) -> np.ndarray:
    rows = np.random.default_rng(seed).permutation(np.flatnonzero(among))
    return rows[pd.Series(fine[rows]).groupby(fine[rows]).cumcount().to_numpy() < per_class]


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
