"""How two papers probed a VLM, step for step, flaws included, on a run of one's own.

Zhang et al. (NeurIPS 2024, arXiv 2405.18415; `VLMCLASSIFIER`) find the class still readable at the last layer of the
LLM, Chandhok et al. (ACL 2025, arXiv 2507.10442; `RESPONSE_WIDE_SHUT`) find it lost there. A recipe is what a probe
depends on apart from model and images, one field an ingredient; `fgdiag_probes.bridge` goes from one to the other.
"""

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from fgdiag.errors import RunIncomplete
from fgdiag.store import Run
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels
from fgdiag_probes.recipe_fits import Fit, Fitted, Selection, Spec, fit_all, taught
from fgdiag_probes.response_tokens import RESPONSE, last_sites
from fgdiag_probes.scorings import SCORINGS, Scoring, answered_right

Depth = Literal["encoder", "projector", "last llm layer"]
DEPTHS: tuple[Depth, ...] = get_args(Depth)


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
        "here both are chosen on training images, and in runs of an older fgdiag asked without an image at weight 1",
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
        if before == "llm.norm" and not recipe.final_norm:
            raise RunIncomplete(
                f"{run.path} did not record the last LLM block, which {recipe.title} reads; record it anew, "
                "without --sites."
            )
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
