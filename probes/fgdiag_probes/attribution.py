"""Maps of what in a picture a VLM's score rests on, each with the checks that tell whether it can be believed.

A map is made by a method at an entry: `ig@pixels`, `gradcam@vision`, `shapley@projector`. It always lies on the picture
as the user sees it. Of a contrast, what speaks for the first class is positive and what speaks for the second negative.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from fgdiag.errors import ClassNotFound, FgdiagError, ImageUnreadable
from fgdiag.progress import say, track
from fgdiag.prompts import spoken
from fgdiag.sites import Site
from fgdiag.store import RESULTS, Run
from fgdiag_probes import ablation, faithfulness
from fgdiag_probes.class_names import class_named
from fgdiag_probes.faithfulness import OnMarks, likeness, masks_of, shuffled_weights
from fgdiag_probes.labels import Labels
from fgdiag_probes.layout import layout_at, pixel_layout
from fgdiag_probes.map_methods import method_named, versions_scored
from fgdiag_probes.maps import AttributionMaps, Map
from fgdiag_probes.sampled import turn_by_turn
from fgdiag_probes.substitution import Entry, Substitution, entry_spec
from fgdiag_probes.targets import LetterTarget, NameTarget, ProbeTarget, Target, best_readout, probe_of

if TYPE_CHECKING:
    from fgdiag.images import ImageSet
    from fgdiag.vlm import VLM

FORMAT = 1
"""Changes whenever the same picture would get another map."""
SHOWN_SIDE = 320
"""Longest side in pixels of the picture kept with a map."""
RUINED = 4
"""Pictures of which each method's map is made again with a ruined model."""

Told = Callable[[int, int], None]
"""Called while a map is made: how many versions of the picture have been scored, of about how many."""


def attribute_image(
    vlm: "VLM",
    image: Image.Image,
    target: Target,
    method: str = "ig",
    *,
    checked: bool = True,
    budget: int = ablation.BUDGET,
    seed: int = 0,
    told: Told | None = None,
) -> Map:
    """Make the map of one picture.

    Parameters
    ----------
    vlm
        The opened model. Gradients are finer in float32 than in 16 bits.
    image
        RGB.
    target
        What is explained; see `fgdiag_probes.targets`.
    method
        `METHOD` or `METHOD@ENTRY`; see `METHODS`.
    checked
        Whether deletion and insertion are measured too, which takes some 110 scores.
    budget
        Forward passes that `shapley` and `kernelshap` may take.
    seed
        Of what they draw, and of the maps that this one is compared with.
    told
        Called before each batch of versions of the picture; what it raises stops the work there.

    Raises
    ------
    FgdiagError
        There is no such method, or not there; or the target does not depend on what enters there.
    ModelNotSupported
        Image tokens of this model lie nowhere in the picture.
    """
    how, entry = method_named(method)
    _check_behind(vlm, entry, target)
    pixels, layout = pixel_layout(vlm, image.size), layout_at(vlm, image.size, entry)
    total = versions_scored(how, layout, budget) + checked * faithfulness.VERSIONS
    scored = _counting(told, total) if told else None
    given = Substitution(vlm, image, target, entry, scored=scored)
    values = how.make(given, layout, budget, seed)
    at_pixels = given if entry == "pixels" else Substitution(vlm, image, target, "pixels", scored=scored)
    score, blurred_score = at_pixels.scores_of([at_pixels.original[0], at_pixels.blurred[0]]).tolist()
    shown = image.convert("RGB")
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    return Map(
        values=values.astype(np.float32),
        picture=np.asarray(shown),
        method=method.partition("@")[0],
        entry=entry,
        target=target.words,
        classes=target.classes,
        score=score,
        blurred_score=blurred_score,
        faithfulness=faithfulness.faithfulness(at_pixels, pixels, values, seed=seed) if checked else None,
    )


def _counting(told: Told, total: int) -> Callable[[int], None]:
    done = 0

    def scored(versions: int) -> None:
        nonlocal done
        told(min(done, total), total)
        done += versions

    return scored


def _check_behind(vlm: "VLM", entry: Entry, target: Target) -> None:
    """Refuse a probe that reads before the entry, or reads a class token beside it."""
    if entry == "pixels" or not isinstance(target, ProbeTarget):
        return
    if target.readout == "cls" or Site.parse(target.site) < entry_spec(vlm, entry).site:
        raise FgdiagError(
            f"The {target.words} does not depend on the image tokens at {entry}: use a method at the pixels, such as "
            "ig@pixels."
        )


def attribute(
    run: Run,
    vlm: "VLM",
    images: "ImageSet",
    pairs: Sequence[tuple[str, str]],
    *,
    methods: Sequence[str] = ("ig",),
    target: str = "name",
    count: int = 20,
    checked: bool = True,
    ruined: int = RUINED,
    budget: int = ablation.BUDGET,
    seed: int = 0,
) -> AttributionMaps:
    """Make maps of test images of pairs of classes; each is kept in `results/attribution/` as soon as it is made.

    Parameters
    ----------
    run, vlm, images
        A run, its model and its images.
    pairs
        Classes, as they are on disk or as they are spoken. The contrast of an image is its own class against the other.
    methods
        See `attribute_image`.
    target
        `name`, the log-odds of the names; `letter`, of the letters of a question with these two options; or
        `probe:SITE` or `probe:SITE/READOUT`, the difference of the logits of the run's probe there.
    count
        Test images a pair, half of each class where there are as many.
    checked, budget, seed
        See `attribute_image`; `seed` also draws the images.
    ruined
        Pictures of which each method's map is made again by the model with its weights shuffled.

    Raises
    ------
    ClassNotFound
        The run has no such class, or no test image of it.
    """
    asked = contrasts(run, pairs, count=count, seed=seed)
    make = MapMaker(run, vlm, images, target_of(run, target, seed), checked, budget, seed)
    kept = {one: make.kept(*one) for one in ((method, *about) for method in methods for about in asked)}
    missing = [one for one, found in kept.items() if found is None]
    done = len(kept) - len(missing)
    for one in track(missing, description="making maps", total=len(kept), unit="maps", done=done):
        kept[one] = make.make(*one)
    maps = tuple(found for found in kept.values() if found is not None)
    return AttributionMaps(maps, _ruined(make, methods, asked[:ruined]))


def contrasts(
    run: Run, pairs: Sequence[tuple[str, str]], *, count: int = 20, seed: int = 0
) -> list[tuple[int, str, str]]:
    """Draw the images of pairs of classes; see `attribute`.

    Returns
    -------
    list
        (row of the run, own class, other class), the classes as they are on disk.
    """
    labels = Labels.of(run, seed=run.manifest.get("seed", 0))
    known = labels.fine_names.tolist()
    named = [(class_named(first, known), class_named(second, known)) for first, second in pairs]
    return [one for first, second in named for one in _drawn(labels, first, second, count, seed)]


def _drawn(labels: Labels, first: str, second: str, count: int, seed: int) -> Iterator[tuple[int, str, str]]:
    """(row, own class, other class) of test images, the two classes taking turns."""
    codes = labels.fine[labels.test]
    both = [int(np.flatnonzero(labels.fine_names == name)[0]) for name in (first, second)]
    for name, code in zip((first, second), both, strict=True):
        if not (codes == code).any():
            raise ClassNotFound(f"The run has no test image of {name!r}; choose another pair.")
    rows = labels.test[np.isin(codes, both)]
    for row in rows[turn_by_turn(labels.fine[rows], seed)[:count]]:
        own = str(labels.fine_names[labels.fine[row]])
        yield int(row), own, second if own == first else first


def target_of(run: Run, target: str, seed: int = 0) -> Callable[[str, str], Target]:
    """Read `target` as `attribute` takes it; return a call from an image's own class and another to their contrast."""
    question = run.manifest["prompt"]
    kind, _, place = target.partition(":")
    if kind == "name" and not place:
        return lambda own, other: NameTarget(spoken(own), spoken(other), question)
    if kind == "letter" and not place:
        return lambda own, other: _letters(own, other, question)
    if kind == "probe" and place:
        site, _, readout = place.partition("/")
        readout = readout or best_readout(run, site)
        probe = probe_of(run, site, readout, seed=seed)
        return lambda own, other: ProbeTarget.of(probe, site, readout, own, other, question=question)
    raise FgdiagError(f"The target is {target!r}; expected name, letter, probe:SITE or probe:SITE/READOUT.")


def target_words(run: Run, target: str, own: str, other: str) -> str:
    """Return what `Map.target` says of a map whose target is called `target`; nothing is fitted for that."""
    kind, _, place = target.partition(":")
    if kind == "probe":
        site, _, readout = place.partition("/")
        classes = (spoken(own), spoken(other))
        return ProbeTarget(site, readout or best_readout(run, site), classes, torch.empty(0), 0.0).words
    return target_of(run, target)(own, other).words


def _letters(own: str, other: str, question: str) -> LetterTarget:
    """The options in alphabetical order, so that the letter says nothing of which one is right."""
    options = tuple(spoken(name) for name in sorted((own, other)))
    chosen = options.index(spoken(own))
    return LetterTarget(options, chosen, 1 - chosen, question)


@dataclass(frozen=True)
class MapMaker:
    """Makes the maps of a run, or reads them back."""

    run: Run
    vlm: "VLM"
    images: "ImageSet"
    target_of: Callable[[str, str], Target]
    checked: bool
    budget: int
    seed: int

    def kept(self, method: str, row: int, own: str, other: str, *, ruined: bool = False) -> Map | None:
        """Read a map back; None where it has not been made."""
        key = self._key(method, own, other)
        return Map.read(self._path(row, key, ruined), key)

    def make(
        self, method: str, row: int, own: str, other: str, *, ruined: bool = False, told: Told | None = None
    ) -> Map | None:
        """Make a map and keep it; None where the image cannot be read any more. `told` as in `attribute_image`."""
        try:
            picture = self.images.open(row)
        except ImageUnreadable as error:
            say(f"image {row} is left out: {error}")
            return None
        how = {"checked": self.checked and not ruined, "budget": self.budget, "seed": self.seed}
        found = attribute_image(self.vlm, picture, self.target_of(own, other), method, told=told, **how)
        masks = masks_of(self.images.source, str(self.images.table["source"].iloc[row]), own, other)
        marks = OnMarks.of(found.values, masks) if masks else None
        found = replace(found, row=row, fine=own, on_marks=marks)
        key = self._key(method, own, other)
        found.save(self._path(row, key, ruined), key)
        return found

    def _key(self, method: str, own: str, other: str) -> str:
        how, entry = method_named(method)
        made_of = [
            FORMAT,
            self.run.manifest["fingerprint"],
            str(self.vlm.dtype),
            self.target_of(own, other).key,
        ]
        made_of += [how.words, entry, self.checked, self.budget if how.sampled else None, self.seed]
        return blake2b(json.dumps(made_of).encode(), digest_size=8).hexdigest()

    def _path(self, row: int, key: str, ruined: bool) -> Path:
        folder = "attribution/ruined" if ruined else "attribution"
        return self.run.result_path(f"{folder}/{row:07d}.{key}.npz")


def _ruined(
    make: MapMaker, methods: Sequence[str], asked: Sequence[tuple[int, str, str]]
) -> dict[str, list[float]]:
    """Rank correlations of maps with those of the ruined model, by method."""
    todo = [(method, *one) for method in methods for one in asked]
    missing = [one for one in todo if make.kept(*one, ruined=True) is None]
    for method, row, *_ in missing:  # where things lie is seen in the whole model
        layout_at(make.vlm, make.images.open(row).size, method_named(method)[1])
    if missing:
        with shuffled_weights(make.vlm, make.seed):
            for one in track(missing, description="ruining the model", total=len(missing), unit="maps"):
                make.make(*one, ruined=True)
    found: dict[str, list[float]] = {}
    for one in todo:
        whole, broken = make.kept(*one), make.kept(*one, ruined=True)
        if whole is not None and broken is not None:
            found.setdefault(whole.name, []).append(likeness(whole.values, broken.values))
    return found


def kept_maps(run: Run, row: int) -> list[Map]:
    """Maps of one image that `attribute` has kept."""
    folder = run.path / RESULTS / "attribution"
    found = [Map.read(path) for path in sorted(folder.glob(f"{row:07d}.*.npz"))]
    return [one for one in found if one is not None]
