"""How two papers probed a VLM, step for step, flaws included, on a run of one's own.

Zhang et al. (NeurIPS 2024, arXiv 2405.18415; `VLMCLASSIFIER`) find the class still readable at the last layer of the
LLM, Chandhok et al. (ACL 2025, arXiv 2507.10442; `RESPONSE_WIDE_SHUT`) find it lost there. A recipe is what a probe
depends on apart from model and images, one field an ingredient; `fgdiag_probes.bridge` goes from one to the other.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch

from fgdiag.errors import RunIncomplete
from fgdiag.progress import track
from fgdiag.store import Run, write_bytes
from fgdiag_probes.curves import FOLDS, key_of, resolution_of
from fgdiag_probes.folds import stratified_group_folds
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels
from fgdiag_probes.linear import PENALTIES, TOLERANCE, Basis, fit_probe
from fgdiag_probes.response_tokens import RESPONSE, last_sites, read_responses
from fgdiag_probes.scorings import SCORINGS, Scoring, answered_right
from fgdiag_probes.solver import follow
from fgdiag_probes.trained_linear import BATCH, EPOCHS, RATE, train_linear

METHOD = (
    f"1: Adam {RATE}, batch {BATCH}, {EPOCHS} epochs; penalties {PENALTIES}, {FOLDS} folds to {TOLERANCE}"
)
"""Changes whenever the same ingredients would give other numbers."""

Depth = Literal["encoder", "projector", "last llm layer"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)
Fit = Literal["adam", "solver"]
Selection = Literal["test", "training"]


@dataclass(frozen=True)
class Recipe:
    """What a probe depends on, apart from model and images.

    Attributes
    ----------
    name, title, source
        As on the command line, as in figures, and the paper.
    readout
        Tokens that are read at the last LLM layer: a recorded readout, or `response`, the tokens the model writes.
        At encoder and projector it is the mean over the image's tokens.
    final_norm
        Whether the last LLM layer is read after the final norm or before it.
    standardised
        Whether every feature is brought to mean 0 and variance 1, as on the training images.
    fit
        `adam`: one linear layer, Adam at 1e-3, batches of 512 in the order of the images, 500 epochs, no penalty.
        `solver`: logistic regression with an L2 penalty, solved to the end.
    selection
        What chooses the epoch or the penalty: the accuracy on the `test` images; or nothing but `training` images
        (the last epoch, and the penalty that is best in cross-validation).
    images_a_class
        Most training images a class; None: all.
    scorings
        How answers are scored; see `SCORINGS`.
    flaws
        Why its numbers may mislead.
    assumed
        Fields that the paper leaves open, as far as we know it.
    """

    name: str
    title: str
    source: str
    readout: str
    final_norm: bool
    standardised: bool
    fit: Fit
    selection: Selection
    images_a_class: int | None
    scorings: tuple[Scoring, ...]
    flaws: tuple[str, ...]
    assumed: tuple[str, ...] = ()


VLMCLASSIFIER = Recipe(
    name="vlmclassifier",
    title="VLMClassifier",
    source="Zhang et al., NeurIPS 2024, arXiv 2405.18415",
    readout="last",
    final_norm=True,
    standardised=False,
    fit="adam",
    selection="test",
    images_a_class=None,
    scorings=("substring", "likelihood", "corrected"),
    flaws=(
        "the epoch is the one with the best accuracy on the test images, so the test images choose what they score",
        "features are not standardised and nothing is penalised, so sites with other scales are fitted unequally well",
        "batches come in the order of the images, by class where the images are in that order",
        "one seed, no control, one layer of the LLM",
        "an answer counts as right where the name stands anywhere in it, even inside a word (lime in limestone)",
        "the paper estimates the prior of its corrected likelihood on the evaluation images and its weight there; "
        "here the prior is asked of the model without an image",
    ),
)
RESPONSE_WIDE_SHUT = Recipe(
    name="response-wide-shut",
    title="Response Wide Shut",
    source="Chandhok et al., ACL 2025, arXiv 2507.10442",
    readout=RESPONSE,
    final_norm=False,
    standardised=True,
    fit="solver",
    selection="training",
    images_a_class=10,
    scorings=("words",),
    flaws=(
        "tokens of the response are read only, so a class that stands in the prompt's last token, or in the image's "
        "tokens, and is not spoken of counts as lost",
        "a response that names the class wrongly carries that name into the probe",
        "one layer of the LLM, no control",
        "no code is public: what is marked as assumed is our reading",
    ),
    assumed=("final_norm", "standardised", "fit", "selection", "images_a_class", "scorings"),
)
RECIPES = {recipe.name: recipe for recipe in (VLMCLASSIFIER, RESPONSE_WIDE_SHUT)}


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


@dataclass(frozen=True)
class Outcome:
    """What a recipe finds in a run.

    Attributes
    ----------
    recipe
        What was done.
    table
        One row a depth and, after them, one a scoring of the answers: `what`, `site`, `readout`, `accuracy` in [0, 1]
        with its 95 % interval (`low`, `high`; clustered by fine class), `sound`: the same where only training images
        choose, `chosen`: the epoch or the penalty.
    chance
        Accuracy without looking.
    images
        How many are trained on and tested.
    """

    recipe: Recipe
    table: pd.DataFrame
    chance: float
    images: tuple[int, int]

    def frame(self) -> pd.DataFrame:
        """Return the scores as a table; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return recipe, flaws and scores as plain values."""
        return {
            "recipe": vars(self.recipe),
            "scores": json.loads(str(self.table.to_json(orient="records"))),
            "chance": self.chance,
            "images": {"train": self.images[0], "test": self.images[1]},
        }


def apply_recipe(run: Run, recipe: Recipe, *, seed: int = 0) -> Outcome:
    """Probe a run as a paper did; writes `results/recipes/<name>.json`, and keeps every fit.

    Parameters
    ----------
    run
        An extracted run. For a recipe that reads the response, `fgdiag_probes.response_tokens.record_responses` comes
        first.
    seed
        Of the first weights, the folds and the draw of training images.

    Raises
    ------
    RunIncomplete
        The response has not been recorded.
    """
    labels = Labels.of(run, seed=seed)
    specs: dict[Depth, Spec] = {depth: spec_of(run, recipe, depth) for depth in DEPTHS}
    fits = fit_all(run, labels, specs.values(), seed=seed)
    rows = [_score(labels, recipe, depth, spec, fits[spec]) for depth, spec in specs.items()]
    for scoring, right in answered_right(run, labels).items():
        if scoring in recipe.scorings:
            rows.append({"what": f"answer: {SCORINGS[scoring]}", **_accuracy(labels, right)})
    train = len(taught(labels, recipe.images_a_class, seed))
    outcome = Outcome(recipe, pd.DataFrame(rows), labels.chance["fine"][0], (train, len(labels.test)))
    run.write_json(f"recipes/{recipe.name}", outcome.json())
    return outcome


def spec_of(run: Run, recipe: Recipe, depth: Depth) -> Spec:
    """Say what is fitted where."""
    site, readout = _place(run, recipe, depth)
    return Spec(site, readout, recipe.standardised, recipe.fit, recipe.images_a_class)


def _place(run: Run, recipe: Recipe, depth: Depth) -> tuple[str, str]:
    if depth == "last llm layer":
        before, *after = last_sites(run)
        return (after[0] if recipe.final_norm and after else before), recipe.readout
    part = "vision" if depth == "encoder" else "projector"
    among = [
        str(site) for site in run.sites if site.part == part and (part == "projector" or site.index is None)
    ]
    if not among:
        raise RunIncomplete(
            f"{run.path} did not record the {depth}; record it anew, with --sites {part} among them."
        )
    return among[0], "image"


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


def _score(labels: Labels, recipe: Recipe, depth: Depth, spec: Spec, fitted: Fitted) -> dict[str, Any]:
    truth = labels.fine[labels.test]
    return {
        "what": depth,
        "site": spec.site,
        "readout": spec.readout,
        **_accuracy(labels, fitted.said[recipe.selection] == truth),
        "sound": float((fitted.said["training"] == truth).mean()),
        "chosen": fitted.chosen[recipe.selection],
    }


def _accuracy(labels: Labels, right: np.ndarray) -> dict[str, float]:
    found = clustered_means(right[None].astype(float), labels.fine[labels.test], step=1.0)
    low, high = found.low.clip(0, 1), found.high.clip(0, 1)
    return {"accuracy": float(found.mean[0]), "low": float(low[0]), "high": float(high[0])}


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
