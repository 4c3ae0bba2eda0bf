"""Scenes with a question whose answer is known: how many birds, which is left, what colour, is a part there, what kind.

What such questions need is no fine detail, so they stand for what a model can do in general. Each topic is a folder of
labelled images whose labels answer its question.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from zlib import crc32

import numpy as np
from joblib import Parallel, delayed
from PIL import Image

from fgdiag.fieldguide.backdrop import BACKDROPS, paint_backdrop
from fgdiag.fieldguide.bird import paint_bird
from fgdiag.fieldguide.brush import paint
from fgdiag.fieldguide.builds import BUILDS
from fgdiag.fieldguide.drawn_folder import DrawnFolder, check_settings, whole_folder
from fgdiag.fieldguide.figure import Figure, Pose
from fgdiag.fieldguide.light import draw_light, through_the_lens
from fgdiag.fieldguide.species import GENERA, SPECIES, Species
from fgdiag.progress import track

_FOLDER = DrawnFolder("set of scenes", "scenes.json")
_QUESTIONS = "questions.json"
_NUMBERS = ("one", "two", "three", "four")
_CROWNS = ("black", "red", "yellow", "white")
_SIZES = {1: (0.5, 0.7), 2: (0.42, 0.48), 3: (0.3, 0.42), 4: (0.3, 0.4)}
"""Longest side of each bird as a share of the picture's, by how many there are."""
_PLACES = {
    1: ((0.5, 0.5),),
    2: ((0.04, 0.5), (0.96, 0.5)),
    3: ((0.03, 0.12), (0.97, 0.2), (0.5, 0.93)),
    4: ((0.05, 0.08), (0.95, 0.12), (0.06, 0.9), (0.94, 0.92)),
}
_JPEG_QUALITY = 92


@dataclass(frozen=True)
class Topic:
    """A question, the answers there are, and the birds to draw for one of them, from left to right."""

    question: str
    answers: tuple[str, ...]
    birds: Callable[[str, np.random.Generator], list[Species]]


def _any_birds(rng: np.random.Generator, count: int) -> list[Species]:
    return [SPECIES[k] for k in rng.integers(len(SPECIES), size=count)]


def _of(genus: str, rng: np.random.Generator) -> Species:
    own = [species for species in SPECIES if species.genus == genus]
    return own[int(rng.integers(len(own)))]


def _left(genus: str, rng: np.random.Generator) -> list[Species]:
    others = [other for other in GENERA if other != genus]
    return [_of(genus, rng), _of(str(rng.choice(others)), rng)]


def _crowned(colour: str, rng: np.random.Generator) -> list[Species]:
    return [replace(_unmarked(rng), crown=colour)]


def _ringed(answer: str, rng: np.random.Generator) -> list[Species]:
    return [replace(_unmarked(rng), eye_ring="white" if answer == "yes" else "plain")]


def _unmarked(rng: np.random.Generator) -> Species:
    """A bird of any genus without a mark, so that its kind says nothing of the answer."""
    return Species("", GENERA[int(rng.integers(len(GENERA)))])


TOPICS = MappingProxyType(
    {
        "count": Topic(
            "How many birds are there?", _NUMBERS, lambda a, rng: _any_birds(rng, _NUMBERS.index(a) + 1)
        ),
        "left": Topic("Which bird is on the left?", GENERA, _left),
        "colour": Topic("Which colour is the crown of the bird?", _CROWNS, _crowned),
        "part": Topic("Does the bird have a white ring around its eye?", ("yes", "no"), _ringed),
        "kind": Topic("What kind of bird is this?", GENERA, lambda a, rng: [_of(a, rng)]),
    }
)


def draw_scene(birds: list[Species], *, seed: int, size: int = 256) -> Image.Image:
    """Draw up to four birds side by side before one backdrop, the first on the left where there are two.

    Parameters
    ----------
    birds
        1 to 4.
    seed
        Not negative. The same seed gives the same picture, bit for bit.
    size
        Side of the picture in pixels.
    """
    pose_rng, scene_rng, plume_rng, lens_rng = (np.random.default_rng((seed, k)) for k in range(4))
    background = str(scene_rng.choice(tuple(BACKDROPS)))
    light, blur = draw_light(scene_rng), float(scene_rng.uniform(0, 0.8)) * size / 256
    canvas = paint_backdrop(BACKDROPS[background], size, scene_rng)
    for species, (x, y) in zip(birds, _PLACES[len(birds)], strict=True):
        shift = pose_rng.uniform(-0.03, 0.03, 2)
        pose = replace(
            Pose.draw(pose_rng),
            fill=float(pose_rng.uniform(*_SIZES[len(birds)])),
            x=float(np.clip(x + shift[0], 0, 1)),
            y=float(np.clip(y + shift[1], 0, 1)),
        )
        figure = Figure(BUILDS[species.genus], pose, size)
        bird = paint_bird(species, figure, light.towards, plume_rng)
        paint(canvas[figure.window], bird.cover, bird.colour)
    return through_the_lens(canvas, light, blur, lens_rng)


def write_scenes(
    out: Path | str,
    *,
    per_answer: int = 20,
    test_per_answer: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    size: int = 256,
) -> Path:
    """Draw scenes into a folder: `<topic>/{train,val,test}/<answer>/NNN.jpg`, and the questions beside them.

    The folder is complete or absent; the same settings give the same bytes. Training, validation (a tenth as many as
    training) and test scenes are others.

    Parameters
    ----------
    out
        The folder to make; its `questions.json` has the question of each topic.
    per_answer, test_per_answer
        Scenes for each answer to train on and to test on; by default half as many for testing, and at least 2.
    seed
        What all scenes are drawn from.
    workers
        Processes that draw; by default one for each core.
    size
        Side of the pictures in pixels.

    Raises
    ------
    ImagesNotUsable
        `out` exists and is something else, or has other settings.
    NoSpace
        The disk is full, or the folder cannot be written.
    """
    tested = max(2, per_answer // 2) if test_per_answer is None else test_per_answer
    settings = {"per_answer": per_answer, "test_per_answer": tested, "seed": seed, "size": size}
    check_settings(settings, {"per_answer": 1, "test_per_answer": 1, "seed": 0, "size": 64})
    counts = {"train": per_answer, "val": max(1, per_answer // 10), "test": tested}
    orders = [
        (name, split, answer, index)
        for name, topic in TOPICS.items()
        for split, count in counts.items()
        for answer in topic.answers
        for index in range(count)
    ]

    def draw(draft: Path) -> None:
        for name, split, answer, _ in orders:
            (draft / name / split / answer).mkdir(parents=True, exist_ok=True)
        pool = Parallel(n_jobs=workers or os.cpu_count() or 1, return_as="generator")
        drawn = pool(delayed(_draw_one)(draft, seed, size, *order) for order in orders)
        list(track(drawn, description="drawing scenes", total=len(orders)))
        questions = {name: topic.question for name, topic in TOPICS.items()}
        (draft / _QUESTIONS).write_text(json.dumps(questions, indent=2) + "\n")

    return whole_folder(Path(out), _FOLDER, settings, draw)


def _draw_one(draft: Path, seed: int, size: int, topic: str, split: str, answer: str, index: int) -> None:
    own = np.random.SeedSequence((seed, crc32(f"{topic}/{split}/{answer}".encode()), index))
    rng = np.random.default_rng(own)
    picture = draw_scene(TOPICS[topic].birds(answer, rng), seed=int(own.generate_state(1)[0]), size=size)
    picture.save(draft / topic / split / answer / f"{index:03d}.jpg", quality=_JPEG_QUALITY)
