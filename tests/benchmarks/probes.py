"""Speed of a cross-validated linear probe against scikit-learn's, at equal held-out loss.

    python tests/benchmarks/probes.py [--quick] [--json]
    python tests/benchmarks/probes.py --growth [--json]

Sites of 2,000 x 576 features with 37 classes; five penalties, five folds. Both solvers get the same grid and the same
folds and take turns in one process; the ratio is the median over sites of scikit-learn's time over ours. Standardising
the features counts for both. `--growth` shows instead how our own time and memory grow with images, features and
classes, and which share of the machine's peak in matrix products is reached; each point runs in a process of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from fgdiag_probes.folds import stratified_group_folds
from fgdiag_probes.linear import PENALTIES, fit_probe
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.flop_counter import FlopCounterMode

ROWS, WIDTH, CLASSES, FOLDS, TEST_ROWS = 2000, 576, 37, 5, 2000
GROWTH = [
    *[(rows, WIDTH, CLASSES) for rows in (500, 2000, 8000, 20000)],
    *[(ROWS, width, CLASSES) for width in (64, 1536, 4096)],
    *[(5000, WIDTH, classes) for classes in (5, 37, 200, 1000)],
    (6000, 4096, 200),
]
"""Points as (images, features, classes); the last one is a layer of a 7B model on CUB."""
GROWTH_FOLDS = 3
"""As many as `fgdiag probe` uses."""


@dataclass(frozen=True)
class Site:
    """Features with the falling spectrum of a residual stream, and classes that a probe reads in part."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    folds: np.ndarray


def main() -> None:
    """Measure, print a table, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="Speed of linear probes against scikit-learn.")
    parser.add_argument("--quick", action="store_true", help="few sites: ends within 2 minutes")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    parser.add_argument("--growth", action="store_true", help="time and memory by size, ours alone")
    parser.add_argument("--point", nargs=3, type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.point:
        return print(json.dumps(measured(*asked.point)))
    if asked.growth:
        return grow(asked.json)
    ratios, gaps, seconds = [], [], []
    warm = drawn(0)
    ours(warm)
    for number in range(1, 4 if asked.quick else 31):
        site = drawn(number)
        order = (ours, theirs) if number % 2 else (theirs, ours)
        found = {solver: timed(solver, site) for solver in order}
        (our_time, our_loss), (their_time, their_loss) = found[ours], found[theirs]
        ratios.append(their_time / our_time)
        gaps.append(our_loss - their_loss)
        seconds.append(our_time)
        print(
            f"site {number:2}: {our_time:.2f} s against {their_time:.2f} s, ratio {ratios[-1]:.1f}, "
            f"held-out loss {our_loss:.4f} against {their_loss:.4f} nats",
            flush=True,
        )
    low, _, high = quantiles(ratios, n=4)
    print(f"ratio {median(ratios):.2f} ({low:.2f} to {high:.2f}), loss gap {median(gaps):+.5f} nats")
    if asked.json:
        figures = {"ratio": median(ratios), "loss_gap": median(gaps), "worst_loss_gap": max(gaps)}
        print(json.dumps(figures | {"seconds_a_site": median(seconds), "sites": len(ratios)}))


def drawn(
    seed: int, rows: int = ROWS, width: int = WIDTH, classes: int = CLASSES, folds: int = FOLDS
) -> Site:
    """Draw one site; how far classes are apart varies, as it does from layer to layer."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, width + 1) ** -0.6
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0]
    means = rng.uniform(0.2, 0.5) * rng.standard_normal((classes, width))
    y = rng.integers(0, classes, rows + TEST_ROWS)
    X = ((means[y] + rng.standard_normal((len(y), width))) * spectrum) @ turn + rng.standard_normal(width)
    X = X.astype(np.float32)
    held_out = stratified_group_folds(y[:rows], np.arange(rows), folds=folds)
    return Site(X[:rows], y[:rows], X[rows:], y[rows:], held_out)


def grow(as_json: bool) -> None:
    """Measure every point of `GROWTH`."""
    points = []
    for point in GROWTH:
        command = [sys.executable, __file__, "--point", *map(str, point)]
        points.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        print(
            "{images:6} images, {features:4} features, {classes:4} classes: {seconds:6.2f} s, {mib:5.0f} MiB, "
            "{of_peak:.0%} of the peak".format(**points[-1]),
            flush=True,
        )
    if as_json:
        print(json.dumps({"growth": points}))


def measured(rows: int, width: int, classes: int) -> dict[str, float]:
    """Seconds and memory of one probe with the default grid, and its share of the peak in matrix products."""
    site, warm = drawn(1, rows, width, classes, GROWTH_FOLDS), drawn(0, 100, 8, 3)
    with FlopCounterMode(display=False):
        fit_probe(warm.X, warm.y, folds=warm.folds)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with FlopCounterMode(display=False) as counted:
        fit_probe(site.X, site.y, folds=site.folds)
    taken = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    share = counted.get_total_flops() / taken / peak()
    size = {"images": rows, "features": width, "classes": classes}
    return {**size, "seconds": taken, "mib": used / 1024, "of_peak": share}


def peak(side: int = 2048) -> float:
    """Floating point operations a second in a large float32 matrix product, the best of five."""
    square = torch.randn(side, side)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(square, square)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / min(seconds)


def ours(site: Site) -> np.ndarray:
    """Logits of the test rows."""
    return fit_probe(site.X, site.y, folds=site.folds, penalties=PENALTIES).logits(site.X_test)


def theirs(site: Site) -> np.ndarray:
    """Log-probabilities of the test rows, from scikit-learn at its fastest setting: both cores, default tolerance."""
    splits = [(np.flatnonzero(site.folds != k), np.flatnonzero(site.folds == k)) for k in range(FOLDS)]
    options: dict[str, Any] = {
        "Cs": [FOLDS / ((FOLDS - 1) * ROWS * penalty) for penalty in PENALTIES],
        "cv": splits,
        "scoring": "neg_log_loss",
        "n_jobs": torch.get_num_threads(),
        "max_iter": 1000,
        "use_legacy_attributes": False,
        "l1_ratios": (0.0,),
    }
    cross_validated = LogisticRegressionCV(**options)
    return make_pipeline(StandardScaler(), cross_validated).fit(site.X, site.y).predict_log_proba(site.X_test)


def timed(solver: Callable[[Site], np.ndarray], site: Site) -> tuple[float, float]:
    """Seconds, and mean log-loss of the test rows in nats."""
    start = time.perf_counter()
    logits = torch.from_numpy(solver(site))
    taken = time.perf_counter() - start
    return taken, float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(site.y_test)))


if __name__ == "__main__":
    main()
