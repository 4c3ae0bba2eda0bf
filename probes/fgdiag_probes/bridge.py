"""From one recipe to another, one ingredient at a time: which of them makes which share of the difference.

What an ingredient does depends on the others that are in already: choosing on test images gains more where the fit is
unstable. So beside one path, with its order, stands the mean over all orders (Shapley 1953): with every subset of
ingredients changed once, an ingredient's contribution is its mean effect over the orders in which it may come, and the
contributions add up to the whole difference. All are means over the same test images, so they have paired intervals.
"""

import json
from dataclasses import dataclass, replace
from itertools import combinations
from math import comb
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import RunMismatch
from fgdiag.store import Run
from fgdiag_probes.bridge_figure import draw_bridge
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels
from fgdiag_probes.recipe_fits import Fitted, Spec, fit_all
from fgdiag_probes.recipes import DEPTHS, RESPONSE_WIDE_SHUT, VLMCLASSIFIER, Depth, Recipe, spec_of
from fgdiag_probes.scorings import SCORINGS, answered_right

INGREDIENTS = {
    "readout": "tokens read at the last layer",
    "final_norm": "before or after the final norm",
    "standardised": "standardisation",
    "fit": "optimiser and penalty",
    "selection": "selection on test images",
    "images_a_class": "training images a class",
}
"""Fields of `Recipe` that a probe's accuracy hangs on, in the order of the path, and their names in figures."""
AT_LAST_LAYER_ONLY = {"readout", "final_norm"}
"""What the probes of encoder and projector do not depend on."""
FALL = "fall from encoder to last llm layer"

Changed = frozenset[str]
"""The ingredients that are already those of the second recipe."""


@dataclass(frozen=True)
class Bridge:
    """The way from one recipe to another.

    Attributes
    ----------
    start, end
        The recipes.
    contributions
        One row a `depth` and each `ingredient` that the depth depends on, and `whole difference` last. Depths are those
        of a recipe, and the fall from encoder to last LLM layer, of which the papers speak. `points`: order-averaged
        (Shapley) contribution to the accuracy under `end` minus that under `start`, in percentage points, with its 95 %
        interval (`low`, `high`; paired on the test images, clustered by fine class); `first` and `last`: the effect
        where the ingredient is changed before, or after, all others; `share`: `points` over the whole difference, NaN
        where the interval of that contains zero; `assumed`: whether a paper leaves open what it is.
    path
        One row a step and `depth`: `step`, the `ingredient` changed, `accuracy` with its interval, and the `change`
        against the step before, in points, with its interval (`change_low`, `change_high`).
    answers
        One row a way of scoring the model's answers, on the same images: `scoring`, `accuracy` with its interval, and
        `change` in points against the first row, with its interval (of the first row itself: none).
    images
        Test images.
    """

    start: Recipe
    end: Recipe
    contributions: pd.DataFrame
    path: pd.DataFrame
    answers: pd.DataFrame
    images: int

    def frame(self) -> pd.DataFrame:
        """Return the contributions as a table; see `contributions`."""
        return self.contributions

    def json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        tables = {"contributions": self.contributions, "path": self.path, "answers": self.answers}
        return {
            "from": vars(self.start),
            "to": vars(self.end),
            "images": self.images,
            **{name: json.loads(str(table.to_json(orient="records"))) for name, table in tables.items()},
        }

    def figure(self) -> go.Figure:
        """Draw the path, and what each ingredient contributes on the mean over all orders."""
        return draw_bridge(self.path, self.contributions, self.start.title, self.end.title)


def bridge(
    run: Run, start: Recipe = VLMCLASSIFIER, end: Recipe = RESPONSE_WIDE_SHUT, *, seed: int = 0
) -> Bridge:
    """Fit every mixture of two recipes and say what the ingredients contribute to the difference.

    Fits are kept in `results/recipes/fits/`, so a second call reads them back; the result is in
    `results/recipes/bridge.json`. An interval tells how far other classes might say otherwise, given the fits; it does
    not know of other draws of training images or first weights, nor that a choice on test images is tuned to these.

    Parameters
    ----------
    run
        An extracted run. Where a recipe reads the response, `fgdiag_probes.response_tokens.record_responses` comes
        first.
    seed
        As of `fgdiag_probes.recipes.apply_recipe`.

    Raises
    ------
    RunMismatch
        The recipes do not differ.
    RunIncomplete
        A readout of a recipe has not been recorded.
    """
    names = [name for name in INGREDIENTS if getattr(start, name) != getattr(end, name)]
    if not names:
        raise RunMismatch(f"The recipes {start.name} and {end.name} do not differ; give two that do.")
    labels = Labels.of(run, seed=seed)
    mixtures = {changed: _mixed(start, end, changed) for changed in _subsets(names)}
    specs: dict[tuple[Changed, Depth], Spec] = {
        (changed, depth): spec_of(run, recipe, depth)
        for changed, recipe in mixtures.items()
        for depth in DEPTHS
    }
    fits = fit_all(run, labels, specs.values(), seed=seed)
    right = {changed: _right(labels, recipe, changed, specs, fits) for changed, recipe in mixtures.items()}
    clusters = labels.fine[labels.test]
    found = Bridge(
        start,
        end,
        _contributions(names, right, clusters, {*start.assumed, *end.assumed}),
        _path(names, right, clusters),
        _answers(answered_right(run, labels), clusters),
        len(labels.test),
    )
    run.write_json("recipes/bridge", found.json())
    return found


def _subsets(names: list[str]) -> list[Changed]:
    return [frozenset(some) for size in range(len(names) + 1) for some in combinations(names, size)]


def _mixed(start: Recipe, end: Recipe, changed: Changed) -> Recipe:
    return replace(start, **{name: getattr(end, name) for name in changed})


def _right(
    labels: Labels,
    recipe: Recipe,
    changed: Changed,
    specs: dict[tuple[Changed, Depth], Spec],
    fits: dict[Spec, Fitted],
) -> np.ndarray:
    """(depths and fall, test) right or wrong, 0 or 1; the fall is the difference of two of them."""
    truth = labels.fine[labels.test]
    at = {depth: fits[specs[changed, depth]].said[recipe.selection] == truth for depth in DEPTHS}
    rows = np.stack([at[depth] for depth in DEPTHS]).astype(float)
    return np.vstack([rows, rows[:1] - rows[-1:]])


def shapley(names: list[str], worth: dict[Changed, np.ndarray]) -> np.ndarray:
    """(names, ...) order-averaged contribution of every name, from what every subset of them is worth.

    Shapley (1953), "A value for n-person games". They add up to the worth of all less that of none.

    Examples
    --------
    >>> both, one = frozenset("ab"), frozenset("a")
    >>> worth = {frozenset(): np.array(0.0), one: np.array(2.0), frozenset("b"): np.array(0.0), both: np.array(6.0)}
    >>> shapley(["a", "b"], worth).tolist()
    [4.0, 2.0]
    """
    total = []
    for name in names:
        without = [changed for changed in worth if name not in changed]
        effects = [
            (worth[changed | {name}] - worth[changed]) / comb(len(names) - 1, len(changed))
            for changed in without
        ]
        total.append(np.sum(effects, axis=0) / len(names))
    return np.stack(total)


def _contributions(
    names: list[str], right: dict[Changed, np.ndarray], clusters: np.ndarray, assumed: set[str]
) -> pd.DataFrame:
    none, every = frozenset(), frozenset(names)
    shares = np.concatenate([shapley(names, right), (right[every] - right[none])[None]])
    first = [right[frozenset([name])] - right[none] for name in names]
    last = [right[every] - right[every - {name}] for name in names]
    tables = []
    for at, depth in enumerate([*DEPTHS, FALL]):
        estimates = clustered_means(100 * shares[:, at], clusters, step=100.0)
        whole_is_seen = not estimates.low[-1] <= 0 <= estimates.high[-1]
        table = pd.DataFrame(
            {
                "depth": depth,
                "ingredient": [*(INGREDIENTS[name] for name in names), "whole difference"],
                "points": estimates.mean,
                "low": estimates.low,
                "high": estimates.high,
                "share": estimates.mean / estimates.mean[-1] if whole_is_seen else np.nan,
                "first": [*(100 * effect[at].mean() for effect in first), np.nan],
                "last": [*(100 * effect[at].mean() for effect in last), np.nan],
                "assumed": [*(name in assumed for name in names), False],
            }
        )
        tables.append(table[[*(_matters(name, depth) for name in names), True]])
    return pd.concat(tables, ignore_index=True)


def _matters(name: str, depth: str) -> bool:
    return name not in AT_LAST_LAYER_ONLY or depth in ("last llm layer", FALL)


def _path(names: list[str], right: dict[Changed, np.ndarray], clusters: np.ndarray) -> pd.DataFrame:
    steps = [right[frozenset(names[:done])] for done in range(len(names) + 1)]
    tables = []
    for done, (here, before) in enumerate(zip(steps, [steps[0], *steps], strict=False)):
        accuracy = clustered_means(here[:-1], clusters, step=1.0)
        change = clustered_means(100 * (here - before)[:-1], clusters, step=100.0)
        tables.append(
            pd.DataFrame(
                {
                    "step": done,
                    "ingredient": INGREDIENTS[names[done - 1]] if done else "",
                    "depth": DEPTHS,
                    "accuracy": accuracy.mean,
                    "low": accuracy.low.clip(0, 1),
                    "high": accuracy.high.clip(0, 1),
                    "change": change.mean if done else np.nan,
                    "change_low": change.low if done else np.nan,
                    "change_high": change.high if done else np.nan,
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _answers(right: dict[Any, np.ndarray], clusters: np.ndarray) -> pd.DataFrame:
    if not right:
        return pd.DataFrame(
            columns=["scoring", "accuracy", "low", "high", "change", "change_low", "change_high"]
        )
    values = np.stack(list(right.values())).astype(float)
    accuracy = clustered_means(values, clusters, step=1.0)
    change = clustered_means(100 * (values - values[:1]), clusters, step=100.0)
    change = [np.array([np.nan, *ends[1:]]) for ends in (change.mean, change.low, change.high)]
    return pd.DataFrame(
        {
            "scoring": [SCORINGS[scoring] for scoring in right],
            "accuracy": accuracy.mean,
            "low": accuracy.low.clip(0, 1),
            "high": accuracy.high.clip(0, 1),
            "change": change[0],
            "change_low": change[1],
            "change_high": change[2],
        }
    )
