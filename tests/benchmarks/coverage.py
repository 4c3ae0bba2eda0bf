"""How often a 95 % interval covers the true drop, and how often the verdict sees a loss where there is none.

    python tests/benchmarks/coverage.py [--quick] [--json]

Answers are simulated whose true accuracies are known. Classes are a sample of all the classes that might have been
asked, some harder than others, and every depth of the model has some that are hard for it alone; images are a sample
of those of their class. The truth is about all classes and all images. `clustered_means` is asked for intervals,
and `loss_budget` for verdicts: it chooses the best of 16 readouts in the language model, all of them equally good,
by simulated training images. Without `--quick`, probes are fitted to planted activations, too.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock, patch

import numpy as np
import pandas as pd
from fgdiag_probes import bottleneck
from fgdiag_probes.controls import Control
from fgdiag_probes.curves import LayerCurves
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels
from fgdiag_probes.reading import Choice, Reading, Readings
from scipy.stats import norm

sys.path.append(str(Path(__file__).parents[1] / "probes"))
from conftest import plant  # pyright: ignore[reportMissingImports]

CLASS, CLASS_AT_DEPTH, IMAGE, IMAGE_AT_DEPTH = 0.2, 0.1, 0.4, 0.3
"""Shares of the variance of how hard an image is: of its class, of its class at one depth, its own, its own there."""
NEARBY = 0.7
"""Correlation between neighbouring depths of what is hard at a depth."""
SURENESS = 4.0
"""Natural log-odds of the right class per standard deviation of how easy an image is."""
TRAINING = 20
PIXELS, LLM = ("pixels", "image"), [(f"llm.{k}", readout) for k in range(8) for readout in ("image", "last")]
PLACES = [("vision", "image"), ("projector", "image"), *LLM]
FLOOR, MIDDLE, CEILING = 0.15, 0.6, 0.98


@dataclass(frozen=True)
class Setting:
    """How many classes of how many test images, the true accuracy, and what is lost of it in the projector."""

    classes: int
    images: str
    accuracy: float
    drop: float

    def test_classes(self, rng: np.random.Generator) -> np.ndarray:
        """(images,) class of each test image; sizes have nothing to do with how hard a class is."""
        few_to_many = np.exp(rng.uniform(np.log(5), np.log(30), self.classes)).round().astype(int)
        sizes = few_to_many if self.images == "5-30" else int(self.images)
        return np.repeat(np.arange(self.classes), sizes)

    def __str__(self) -> str:
        """Return a row's head."""
        return f"{self.classes:8}{self.images:>8}{100 * self.accuracy:8.0f} %{100 * self.drop:6.0f}"


def main() -> None:
    """Simulate, print a line a setting, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="Coverage of intervals, false alarms of verdicts.")
    parser.add_argument("--quick", action="store_true", help="fewer settings: ends within 2 minutes")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    asked = parser.parse_args()
    figures = intervals(quick=asked.quick) | verdicts(quick=asked.quick)
    if not asked.quick:
        figures["false_alarms_fitted"] = fitted(runs=100)
    if asked.json:
        print(json.dumps(figures))


def show(setting: Setting, shares: Sequence[float]) -> None:
    """Print a row of a table."""
    print(setting, *(f"{100 * share:10.1f}" for share in shares), flush=True)


def intervals(*, quick: bool) -> dict[str, float]:
    """Count how often the intervals of accuracies and of drops in points and in bits cover the truth."""
    drops = [(FLOOR, 0), (FLOOR, 0.1), *((MIDDLE, drop) for drop in (0, 0.03, 0.1, 0.4)), (0.9, 0.4)]
    drops += [(CEILING, drop) for drop in (0, 0.03, 0.1)]
    images = ["5-30"] if quick else ["5", "30", "5-30"]
    settings = [Setting(k, n, *drop) for k, n, drop in product([8, 15, 40, 200], images, drops)]
    print(f"coverage, %\n classes  images  accuracy  drop{'accuracy':>11}{'points':>11}{'bits':>11}")
    rows = []
    for number, setting in enumerate(settings):
        rows.append(covered(setting, np.random.default_rng(number), 500 if quick else 1000))
        show(setting, rows[-1])
    accuracy, points, bits = np.array(rows).T
    drops_covered = float(np.mean([points, bits]))
    print(f"of all drops {drops_covered:.1%}, of accuracies {accuracy.mean():.1%}")
    return {
        "coverage": drops_covered,
        "worst_coverage": float(min(points.min(), bits.min())),
        "coverage_points": float(points.mean()),
        "worst_coverage_points": float(points.min()),
        "points_below_93": int((points < 0.93).sum()),
        "points_above_97": int((points > 0.97).sum()),
        "bits_below_93": int((bits < 0.93).sum()),
        "coverage_accuracy": float(accuracy.mean()),
        "settings": len(settings),
    }


def covered(setting: Setting, rng: np.random.Generator, simulations: int) -> list[float]:
    """Share of simulations in which an accuracy, a drop in points and one in bits lie in their intervals."""
    codes = setting.test_classes(rng)
    before, after = setting.accuracy, setting.accuracy - setting.drop
    ease = np.stack([drawn([before, after], codes, rng) for _ in range(simulations)], axis=1)
    correct, bits = (ease > 0).astype(float), bits_of(ease)
    truth_in_bits = true_bits(after) - true_bits(before)
    asked = [
        (correct[0], before, 1),
        (100 * (correct[0] - correct[1]), 100 * setting.drop, 100),
        (bits[1] - bits[0], truth_in_bits, 0),
    ]
    shares = []
    for values, truth, step in asked:
        found = clustered_means(values, codes, step=step)
        shares.append(float(np.mean((found.low <= truth) & (truth <= found.high))))
    return shares


def drawn(accuracies: Sequence[float], codes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(depths, images) how easy each image is; above 0 it is named right, which `accuracies` of all images are."""
    shape = len(accuracies), codes.max() + 1
    of_class = CLASS**0.5 * rng.standard_normal(shape[1]) + CLASS_AT_DEPTH**0.5 * walk(shape, rng)
    of_image = IMAGE**0.5 * rng.standard_normal(len(codes))
    at_depth = IMAGE_AT_DEPTH**0.5 * walk((shape[0], len(codes)), rng)
    return norm.ppf(accuracies)[:, None] + of_class[:, codes] + of_image + at_depth


def walk(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Standard normal, correlated along the first axis."""
    steps = rng.standard_normal(shape)
    for depth in range(1, shape[0]):
        steps[depth] = NEARBY * steps[depth - 1] + (1 - NEARBY**2) ** 0.5 * steps[depth]
    return steps


def bits_of(ease: np.ndarray) -> np.ndarray:
    """Minus log2 of the probability of the right class, which is over one half where it is named."""
    return np.logaddexp(0, -SURENESS * ease) / np.log(2)


def true_bits(accuracy: float) -> float:
    """Mean of `bits_of` over all images: an integral over the normal distribution."""
    points, weights = np.polynomial.hermite_e.hermegauss(200)
    return float(bits_of(norm.ppf(accuracy) + points) @ weights / weights.sum())


def verdicts(*, quick: bool) -> dict[str, float]:
    """Count the stages named where nothing is lost, and where the projector loses something.

    A false alarm is a drop where there is none. An encoder that is said never to have had the detail is counted apart:
    with few classes it cannot be proven to be better than raw pixels, which see a quarter as much here.
    """
    more = [] if quick else [(8, "5"), (8, "30"), (40, "5-30"), (120, "5")]
    sets = [(15, "5-30"), *more]
    no_drop = [(0.3, 0), (MIDDLE, 0), (0.9, 0), (CEILING, 0)]
    damage = [] if quick else [(MIDDLE, 0.1), (MIDDLE, 0.4), (CEILING, 0.1)]
    print(
        f"verdicts, %\n classes  images  accuracy  drop{'none':>11}{'encoder':>11}{'projector':>11}{'later':>11}"
    )
    alarms, blamed = [], []
    for number, (size, level) in enumerate(product(sets, no_drop + damage)):
        setting = Setting(*size, *level)
        rng = np.random.default_rng(1000 + number)
        stages = np.array([judged(setting, rng) for _ in range(200 if setting.drop else 500)])
        none, encoder, projector = (
            float(np.mean(stages == stage)) for stage in ("none", "vision encoder", "projector")
        )
        later = float(np.mean(np.isin(stages, ["language model", "answer"])))
        show(setting, [none, encoder, projector, later])
        if not setting.drop:
            alarms.append(projector + later)
            blamed.append(encoder)
    return {
        "false_alarms": float(np.mean(alarms)),
        "worst_false_alarms": float(np.max(alarms)),
        "encoder_blamed": float(np.mean(blamed)),
        "worst_encoder_blamed": float(np.max(blamed)),
    }


def judged(setting: Setting, rng: np.random.Generator) -> str:
    """Return the stage that the verdict names for readers of the given accuracy."""
    test = setting.test_classes(rng)
    labels = labelled(np.repeat(np.arange(setting.classes), TRAINING), test, setting.classes)
    kept = setting.accuracy - setting.drop
    accuracies = [setting.accuracy, *[kept] * len(PLACES)]
    ease = drawn(accuracies, labels.fine, rng)
    readings = {place: reading(seen, labels) for place, seen in zip(PLACES, ease, strict=False)}
    readings[PIXELS] = reading(drawn([max(0.02, setting.accuracy / 4)], labels.fine, rng)[0], labels)
    control = Control("simulated", False, True, None, None, None, "Not applicable: simulated.")
    fits = pd.DataFrame({"penalty": [0.01], "at_edge": [False], "converged": [True]})
    curves = LayerCurves(fits, labels, readings, control)
    answers = reading(ease[-1], labels)
    unrecorded = cast(Any, SimpleNamespace(manifest={}, write_json=Mock()))
    simulated = {"probe_layers": Mock(return_value=curves), "read_answers": Mock(return_value=answers)}
    with patch.multiple(bottleneck, **simulated):
        return bottleneck.loss_budget(unrecorded, network=False, splits=False).verdict.stage


def labelled(train: np.ndarray, test: np.ndarray, classes: int) -> Labels:
    """Labels without kinds."""
    fine = np.concatenate([train, test])
    names = np.array([f"{k:03}" for k in range(classes)])
    rows = np.arange(len(fine))
    return Labels(
        train=rows[: len(train)],
        test=rows[len(train) :],
        fine=fine,
        coarse=np.zeros_like(fine),
        fine_names=names,
        coarse_names=np.array([""]),
        siblings=np.ones((1, classes), bool),
        levels=("fine",),
        groups=rows.astype(str),
    )


def reading(ease: np.ndarray, labels: Labels) -> Readings:
    """What a reader says who finds the images so easy; it is chosen by the training images."""
    right, bits = ease > 0, bits_of(ease).astype(np.float32)
    said = np.where(right, labels.fine, (labels.fine + 1) % len(labels.fine_names)).astype(np.int32)
    of_training = float(right[labels.train].mean()), float(bits[labels.train].mean())
    choice = Choice(*of_training, penalty=0.01, at_edge=False, converged=True, gradient_norm=0.0)
    return {"fine": Reading(said[labels.test], bits[labels.test], choice)}


def fitted(*, runs: int) -> float:
    """Share of planted runs without damage in which the verdict, on fitted probes, names a stage."""
    stages = []
    for seed in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            run = plant(
                Path(folder), sites=("vision", "projector", "llm.0", "llm.1", "llm.norm"), seed=100 + seed
            )
            stages.append(bottleneck.loss_budget(run).verdict.stage)
    alarms = float(np.mean([stage != "none" for stage in stages]))
    print(f"verdicts on {runs} planted runs with fitted probes: {alarms:.1%} name a stage")
    return alarms


if __name__ == "__main__":
    main()
