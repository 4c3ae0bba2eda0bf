"""The fits behind the recipes of `fgdiag_probes.recipes`: what was fitted is kept in the run and read back."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
import torch

from fgdiag.progress import track
from fgdiag.store import Run, write_bytes
from fgdiag_probes.curves import FOLDS, key_of, resolution_of
from fgdiag_probes.folds import stratified_group_folds
from fgdiag_probes.labels import Labels
from fgdiag_probes.linear import PENALTIES, TOLERANCE, Basis, fit_probe
from fgdiag_probes.response_tokens import read_responses
from fgdiag_probes.solver import follow
from fgdiag_probes.trained_linear import BATCH, EPOCHS, RATE, train_linear

METHOD = (
    f"1: Adam {RATE}, batch {BATCH}, {EPOCHS} epochs; penalties {PENALTIES}, {FOLDS} folds to {TOLERANCE}"
)
"""Changes whenever the same ingredients would give other numbers."""


Fit = Literal["adam", "solver"]
Selection = Literal["test", "training"]


@dataclass(frozen=True)
class Spec:
    """One fit: what of a recipe it depends on, but for the selection, of which it gives both."""

    site: str
    readout: str
    standardised: bool
    fit: Fit
    images_a_class: int | None

    @property
    def file(self) -> str:
        """Under `results/`."""
        scale = "standardised" if self.standardised else "raw"
        return (
            f"recipes/fits/{self.site}.{self.readout}.{scale}.{self.fit}.{self.images_a_class or 'all'}.npz"
        )


@dataclass(frozen=True)
class Fitted:
    """What a fit says of every test image.

    Attributes
    ----------
    said
        By selection, (test,) int32 code of the fine class named.
    chosen
        By selection, the epoch or the penalty.
    """

    said: dict[Selection, np.ndarray]
    chosen: dict[Selection, float]


def fit_all(run: Run, labels: Labels, specs: Iterable[Spec], *, seed: int) -> dict[Spec, Fitted]:
    """Fit every spec once; what was fitted before is read back."""
    specs = list(dict.fromkeys(specs))
    key = hashlib.blake2b(f"{METHOD} {key_of(run, seed)}".encode(), digest_size=16).hexdigest()
    fits = {spec: _load(run.result_path(spec.file), key) for spec in specs}
    todo = [spec for spec in specs if fits[spec] is None]
    done = len(specs) - len(todo)
    for spec in track(
        todo, description="fitting as the papers did", total=len(specs), unit="fits", done=done
    ):
        fits[spec] = found = fit(run, labels, spec, seed=seed)
        _save(run.result_path(spec.file), key, found)
    return {spec: found for spec, found in fits.items() if found is not None}


def fit(run: Run, labels: Labels, spec: Spec, *, seed: int) -> Fitted:
    """Fit one spec and let both selections choose; the test images are touched here, by one of them to choose."""
    features = _features(run, spec)
    rows = taught(labels, spec.images_a_class, seed)
    X, y, tested = features[rows], labels.fine[rows], features[labels.test]
    if spec.fit == "adam":
        return _by_adam(X, y, tested, labels, spec, seed)
    basis = Basis.of(X, resolution=resolution_of(run, spec.site), standardise=spec.standardised)
    folds = stratified_group_folds(y, labels.groups[rows], folds=FOLDS, seed=seed)
    chosen = fit_probe(basis, y, folds=folds)
    said = _at_each_penalty(basis, y, tested) | {chosen.penalty: chosen.predict(tested)}
    best = max(said, key=lambda penalty: float((said[penalty] == labels.fine[labels.test]).mean()))
    return Fitted(
        {"test": said[best], "training": said[chosen.penalty]}, {"test": best, "training": chosen.penalty}
    )


def _at_each_penalty(basis: Basis, y: np.ndarray, tested: np.ndarray) -> dict[float, np.ndarray]:
    """(test,) codes named, by penalty of the grid."""
    classes, codes = np.unique(y, return_inverse=True)
    even = torch.full((1, len(codes)), 1.0 / len(codes))
    solutions = follow(
        basis.design, torch.from_numpy(codes), even, PENALTIES, len(classes), tolerance=TOLERANCE
    )
    design = basis.project(tested)
    return {
        penalty: classes[(design @ solution.weights[0].T).argmax(1).numpy()]
        for penalty, solution in zip(PENALTIES, solutions, strict=True)
    }


def _by_adam(
    X: np.ndarray, y: np.ndarray, tested: np.ndarray, labels: Labels, spec: Spec, seed: int
) -> Fitted:
    if spec.standardised:
        mean, spread = X.mean(0), X.std(0)
        X, tested = (X - mean) / np.maximum(spread, 1e-6), (tested - mean) / np.maximum(spread, 1e-6)
    said = train_linear(X, y, tested, classes=len(labels.fine_names), seed=seed)
    best = int((said == labels.fine[labels.test]).mean(1).argmax())
    return Fitted({"test": said[best], "training": said[-1]}, {"test": best + 1, "training": len(said)})


def _features(run: Run, spec: Spec) -> np.ndarray:
    recorded = spec.readout in run.readouts(spec.site)
    return run.activations(spec.site, spec.readout) if recorded else read_responses(run).features[spec.site]


def taught(labels: Labels, images_a_class: int | None, seed: int) -> np.ndarray:
    """Training rows, in their order: all, or the first so many of each class in a random order of the images."""
    if images_a_class is None:
        return labels.train
    shuffled = np.random.default_rng(seed).permutation(labels.train)
    rank = pd.Series(labels.fine[shuffled]).groupby(labels.fine[shuffled]).cumcount().to_numpy()
    return np.sort(shuffled[rank < images_a_class])


def _save(path: Path, key: str, fitted: Fitted) -> None:
    buffer = BytesIO()
    said = {f"said:{selection}": codes for selection, codes in fitted.said.items()}
    np.savez(buffer, key=np.array(key), chosen=np.array(json.dumps(fitted.chosen)), **said)  # pyright: ignore[reportArgumentType]
    write_bytes(path, buffer.getvalue())


def _load(path: Path, key: str) -> Fitted | None:
    if not path.exists():
        return None
    with np.load(path) as kept:
        if str(kept["key"]) != key:
            return None
        return Fitted(
            {selection: kept[f"said:{selection}"] for selection in get_args(Selection)},
            json.loads(str(kept["chosen"])),
        )
