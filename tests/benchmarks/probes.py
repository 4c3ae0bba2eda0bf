"""Speed of a cross-validated linear probe against scikit-learn's, at equal held-out loss.

    python tests/benchmarks/probes.py [--quick] [--json]

Sites of 2,000 x 576 features with 37 classes; five penalties, five folds. Both solvers get the same grid and the same
folds and take turns in one process; the ratio is the median over sites of scikit-learn's time over ours. Standardising
the features counts for both.
"""

import argparse
import json
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

ROWS, WIDTH, CLASSES, FOLDS, TEST_ROWS = 2000, 576, 37, 5, 2000


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
    asked = parser.parse_args()
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


def drawn(seed: int) -> Site:
    """Draw one site; how far classes are apart varies, as it does from layer to layer."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, WIDTH + 1) ** -0.6
    turn = np.linalg.qr(rng.standard_normal((WIDTH, WIDTH)))[0]
    means = rng.uniform(0.2, 0.5) * rng.standard_normal((CLASSES, WIDTH))
    y = rng.integers(0, CLASSES, ROWS + TEST_ROWS)
    X = ((means[y] + rng.standard_normal((len(y), WIDTH))) * spectrum) @ turn + rng.standard_normal(WIDTH)
    X = X.astype(np.float32)
    folds = stratified_group_folds(y[:ROWS], np.arange(ROWS), folds=FOLDS)
    return Site(X[:ROWS], y[:ROWS], X[ROWS:], y[ROWS:], folds)


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
