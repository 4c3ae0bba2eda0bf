"""Scenes: what is asked about them is what is drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ImageChops

from fgdiag.errors import ImagesNotUsable
from fgdiag.fieldguide import GENERA, TOPICS, draw_scene, write_scenes
from fgdiag.fieldguide import scenes as room
from fgdiag.images import open_images


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """(species, cover on the whole picture) of every bird, in the order of drawing."""
    found: list[tuple[Any, Any]] = []
    real = room.paint_bird

    def paint_bird(species: Any, figure: Any, *rest: Any) -> Any:
        bird = real(species, figure, *rest)
        whole = np.zeros((figure.size, figure.size), bool)
        whole[figure.window] = bird.cover > 0.5
        found.append((species, whole))
        return bird

    monkeypatch.setattr(room, "paint_bird", paint_bird)
    return found


@pytest.mark.parametrize("number", range(4))
def test_as_many_birds_as_said_are_seen_apart(number: int, drawn: list[tuple[Any, Any]]):
    answer = TOPICS["count"].answers[number]
    for seed in range(6):
        drawn.clear()
        draw_scene(TOPICS["count"].birds(answer, np.random.default_rng(seed)), seed=seed, size=128)
        covers = np.stack([cover for _, cover in drawn])
        assert len(covers) == number + 1
        assert covers.sum(0).max() == 1, "birds overlap"
        assert covers.sum((1, 2)).min() > 150


def test_the_bird_on_the_left_is_of_the_genus_said(drawn: list[tuple[Any, Any]]):
    for seed, genus in enumerate(GENERA):
        drawn.clear()
        draw_scene(TOPICS["left"].birds(genus, np.random.default_rng(seed)), seed=seed, size=128)
        (left, one), (right, other) = drawn
        assert left.genus == genus != right.genus
        assert np.flatnonzero(one.any(0)).max() < np.flatnonzero(other.any(0)).min()


def test_colour_and_ring_are_those_said_whatever_the_genus():
    rng = np.random.default_rng(0)
    for colour in TOPICS["colour"].answers:
        assert {TOPICS["colour"].birds(colour, rng)[0].crown for _ in range(9)} == {colour}
    for answer, look in (("yes", "white"), ("no", "plain")):
        birds = [TOPICS["part"].birds(answer, rng)[0] for _ in range(40)]
        assert {bird.eye_ring for bird in birds} == {look}
        assert len({bird.genus for bird in birds}) > 4


def test_a_seed_gives_one_scene():
    birds = TOPICS["count"].birds("three", np.random.default_rng(1))
    one, same, other = (draw_scene(birds, seed=seed, size=64) for seed in (5, 5, 6))
    assert ImageChops.difference(one, same).getbbox() is None
    assert ImageChops.difference(one, other).getbbox() is not None


def test_the_folders_are_labelled_images_with_their_questions(tmp_path: Path):
    out = write_scenes(tmp_path / "scenes", per_answer=1, seed=3, size=64)
    assert json.loads((out / "questions.json").read_text()) == {n: t.question for n, t in TOPICS.items()}
    for name, topic in TOPICS.items():
        images = open_images(out / name)
        assert set(images.table["fine"]) == set(topic.answers)
        assert set(images.table["split"]) == {"train", "val", "test"}
        assert images.table["id"].is_unique
    assert write_scenes(out, per_answer=1, seed=3, size=64) == out
    with pytest.raises(ImagesNotUsable, match=r"a set of scenes with seed 3 \(asked: 4\)"):
        write_scenes(out, per_answer=1, seed=4, size=64)
