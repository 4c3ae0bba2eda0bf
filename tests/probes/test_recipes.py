"""Recipes of the two papers, and the bridge between them, on runs whose answer is known."""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
from fgdiag_probes import recipe_fits
from fgdiag_probes.bridge import FALL, bridge, shapley
from fgdiag_probes.labels import Labels
from fgdiag_probes.recipe_fits import taught
from fgdiag_probes.recipes import RESPONSE_WIDE_SHUT, VLMCLASSIFIER, Recipe, apply_recipe
from fgdiag_probes.trained_linear import train_linear

from fgdiag.errors import RunIncomplete, RunMismatch
from tests.probes.conftest import PlantedRun
from tests.probes.labelled import clouds

SOUND = replace(
    VLMCLASSIFIER,
    name="sound",
    title="Sound",
    standardised=True,
    fit="solver",
    selection="training",
    images_a_class=None,
)
WHOLE, READOUT, SCALE = "whole difference", "tokens read at the last layer", "standardisation"
LAST = "last llm layer"


@pytest.fixture
def run(planted) -> PlantedRun:
    return planted(sites=("vision", "projector", "llm.0", "llm.norm"), kinds=2, per_kind=3)


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_fits, "train_linear", partial(train_linear, epochs=60))


def points(found, depth: str) -> dict[str, float]:
    rows = found.contributions.query("depth == @depth")
    return dict(zip(rows["ingredient"], rows["points"], strict=True))


def blank(run: Any, readout: str) -> None:
    """Take all signal from one readout of the last sites."""
    for site in ("llm.0", "llm.norm"):
        shape = run._activations[site, readout].shape
        noise = np.random.default_rng(5).standard_normal(shape)
        run._activations[site, readout] = noise.astype(np.float32)


def test_a_readout_without_signal_makes_the_whole_difference(run: Any) -> None:
    blank(run, "image")
    end = replace(SOUND, name="end", readout="image", selection="test", images_a_class=10)
    found = bridge(run, SOUND, end)
    at_last, fall = points(found, LAST), points(found, FALL)
    assert at_last[WHOLE] < -50
    assert at_last[READOUT] / at_last[WHOLE] > 0.9
    assert fall[READOUT] == pytest.approx(-at_last[READOUT])
    rows = found.contributions.query("depth == @LAST and ingredient == @READOUT")
    assert rows["high"].item() < -40
    assert rows["share"].item() == pytest.approx(at_last[READOUT] / at_last[WHOLE])


def test_one_loud_dimension_makes_standardisation_the_whole_difference(run: Any) -> None:
    rng = np.random.default_rng(1)
    for place, features in run._activations.items():
        loud = 3000 * rng.standard_normal((len(features), 1))
        run._activations[place] = np.hstack([features, loud]).astype(np.float32)
    start = replace(VLMCLASSIFIER, selection="training")
    found = bridge(run, start, replace(start, name="end", standardised=True, images_a_class=12))
    for depth in ("encoder", LAST):
        shares = points(found, depth)
        assert shares[WHOLE] > 25
        assert shares[SCALE] / shares[WHOLE] > 0.8


def test_contributions_add_up_at_every_depth_and_zero_where_nothing_matters(run: Any) -> None:
    found = bridge(run, SOUND, replace(SOUND, name="end", readout="image", selection="test"))
    for depth, rows in found.contributions.groupby("depth"):
        parts = rows.query("ingredient != @WHOLE")["points"].to_numpy().sum()
        assert parts == pytest.approx(rows.query("ingredient == @WHOLE")["points"].item()), depth
    assert READOUT not in points(found, "encoder")
    path = found.path.query("depth == @LAST")["accuracy"].to_numpy()
    assert points(found, LAST)[WHOLE] == pytest.approx(100 * (path[-1] - path[0]))


def test_shapley_of_a_random_game_adds_up_and_of_an_additive_one_is_exact() -> None:
    rng, names = np.random.default_rng(0), list("abcd")
    subsets = [frozenset(n for i, n in enumerate(names) if code >> i & 1) for code in range(16)]
    game = {some: rng.standard_normal(7) for some in subsets}
    whole = game[frozenset(names)] - game[frozenset()]
    np.testing.assert_allclose(shapley(names, game).sum(0), whole)
    worth = dict(zip(names, rng.standard_normal(4), strict=True))
    additive = {some: np.array([sum(worth[name] for name in some)]) for some in subsets}
    np.testing.assert_allclose(shapley(names, additive)[:, 0], list(worth.values()))


def test_choosing_on_test_images_never_scores_below_the_sound_choice(run: Any) -> None:
    table = apply_recipe(run, VLMCLASSIFIER).table.dropna(subset="site")
    assert table["what"].tolist() == ["encoder", "projector", LAST]
    assert (table["accuracy"].to_numpy() >= table["sound"].to_numpy()).all()
    kept = run.read_json("recipes/vlmclassifier")
    assert "test images" in kept["recipe"]["flaws"][0]
    assert kept["scores"][0]["accuracy"] == pytest.approx(table["accuracy"].iloc[0])


def test_a_second_call_reads_back_and_another_run_does_not(run: Any) -> None:
    first = bridge(run, SOUND, replace(SOUND, name="end", readout="image"))
    reads = run.reads
    second = bridge(run, SOUND, replace(SOUND, name="end", readout="image"))
    assert run.reads == reads
    assert second.json() == first.json()
    run.manifest["prompt"] = "And this?"
    bridge(run, SOUND, replace(SOUND, name="end", readout="image"))
    assert run.reads > reads


def test_what_cannot_be_done_is_said(run: Any) -> None:
    with pytest.raises(RunIncomplete, match="fgdiag recipe response-wide-shut"):
        apply_recipe(run, RESPONSE_WIDE_SHUT)
    with pytest.raises(RunMismatch, match="do not differ"):
        bridge(run, SOUND, SOUND)


def test_few_images_a_class_are_drawn_anew_by_seed(run: Any) -> None:
    labels = Labels.of(run)
    few = taught(labels, 4, 0)
    assert set(np.bincount(labels.fine[few])) == {4}
    assert set(few) <= set(labels.train)
    assert list(few) == list(taught(labels, 4, 0)) != list(taught(labels, 4, 1))


def test_a_trained_layer_is_reproducible_and_learns() -> None:
    X, y, test = clouds(4, 30, 8, apart=2.0)
    said = train_linear(X[~test], y[~test], X[test], classes=4, epochs=300)
    assert (said[-1] == y[test]).mean() > 0.8
    np.testing.assert_array_equal(said, train_linear(X[~test], y[~test], X[test], classes=4, epochs=300))


@pytest.mark.parametrize("recipe", [VLMCLASSIFIER, RESPONSE_WIDE_SHUT])
def test_every_recipe_names_flaws_and_what_is_assumed(recipe: Recipe) -> None:
    assert len(recipe.flaws) >= 3
    assert set(recipe.assumed) <= set(vars(recipe))
