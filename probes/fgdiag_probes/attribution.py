"""Maps of what in a picture a VLM's score rests on, each with the checks that tell whether it can be believed.

A map is made by a method at an entry: `ig@pixels`, `gradcam@vision`, `shapley@projector`. It always lies on the picture
as the user sees it. Of a contrast, what speaks for the first class is positive and what speaks for the second negative.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from PIL import Image
from scipy.ndimage import gaussian_filter

from fgdiag.errors import ClassNotFound, FgdiagError, ImageUnreadable
from fgdiag.progress import say, track
from fgdiag.prompts import spoken
from fgdiag.sites import Site
from fgdiag.store import RESULTS, Run, write_bytes
from fgdiag_probes import ablation, gradients
from fgdiag_probes.class_names import class_named
from fgdiag_probes.faithfulness import (
    ALIKE,
    Faithfulness,
    OnMarks,
    faithfulness,
    likeness,
    masks_of,
    shuffled_weights,
)
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels
from fgdiag_probes.layout import PixelLayout, TokenLayout, pixel_layout, token_layout
from fgdiag_probes.map_figure import STRONGEST, draw_checks, draw_map
from fgdiag_probes.rollout import attention_rollout
from fgdiag_probes.sampled import turn_by_turn
from fgdiag_probes.substitution import Entry, Substitution, entry_spec
from fgdiag_probes.targets import LetterTarget, NameTarget, ProbeTarget, Target, best_readout, probe_of

if TYPE_CHECKING:
    from fgdiag.images import ImageSet
    from fgdiag.vlm import VLM

FORMAT = 1
"""Changes whenever the same picture would get another map."""
SMOOTHING = 1.0
"""Standard deviation, in cells, by which maps of gradients at the pixels are smoothed: an encoder takes in whole
patches, and what is finer than these is noise."""
SHOWN_SIDE = 320
"""Longest side in pixels of the picture kept with a map."""
RUINED = 4
"""Pictures of which each method's map is made again with a ruined model."""
FEWEST_CLASSES = 5
"""True classes from which on intervals are about classes; with fewer they are about pictures of these."""

Layout = PixelLayout | TokenLayout


@dataclass(frozen=True)
class Method:
    """One way to make maps.

    Attributes
    ----------
    words
        What it is called.
    entries
        Where it can be used, the usual place first.
    make
        (substitution, layout, budget, seed) to cells (rows, columns).
    """

    words: str
    entries: tuple[Entry, ...]
    make: Callable[[Substitution, Layout, int, int], np.ndarray]


def _by_gradients(relevance: Callable[[Substitution], Any]) -> Callable[..., np.ndarray]:
    def make(given: Substitution, layout: Layout, _budget: int, _seed: int) -> np.ndarray:
        cells = layout.lay(relevance(given))
        return _smooth(cells) if given.entry == "pixels" else cells

    return make


def _smooth(cells: np.ndarray) -> np.ndarray:
    """Smooth what is seen; the sum stays."""
    seen = np.isfinite(cells)
    box = np.ix_(seen.any(1), seen.any(0))
    smooth = np.full_like(cells, np.nan)
    smooth[box] = gaussian_filter(np.nan_to_num(cells[box]), SMOOTHING, mode="reflect")
    return smooth


METHODS: dict[str, Method] = {
    "ig": Method(
        "integrated gradients",
        ("pixels", "projector", "vision"),
        _by_gradients(gradients.integrated_gradients),
    ),
    "ixg": Method(
        "input × gradient", ("pixels", "projector", "vision"), _by_gradients(gradients.input_times_gradient)
    ),
    "gradcam": Method("Grad-CAM", ("vision", "projector"), _by_gradients(gradients.grad_cam)),
    "occlusion": Method(
        "occlusion",
        ("pixels", "projector", "vision"),
        lambda given, layout, _budget, _seed: ablation.occlusion(given, layout),
    ),
    "shapley": Method("Shapley values", ("projector", "pixels", "vision"), ablation.shapley),
    "kernelshap": Method("KernelSHAP", ("projector", "pixels", "vision"), ablation.kernel_shap),
    "rollout": Method(
        "attention rollout (baseline: blind to the question)",
        ("projector",),
        _by_gradients(attention_rollout),
    ),
}
ENTRY_WORDS: dict[Entry, str] = {
    "pixels": "at the pixels",
    "vision": "at the encoder's tokens",
    "projector": "at the image tokens",
}


def method_named(name: str) -> tuple[Method, Entry]:
    """Read `METHOD` or `METHOD@ENTRY`; `FgdiagError` where there is none of that name.

    Examples
    --------
    >>> method_named("gradcam")[1]
    'vision'
    """
    word, _, entry = name.partition("@")
    method = METHODS.get(word)
    if method is None:
        raise FgdiagError(f"No method {word!r}; expected one of {', '.join(METHODS)}.")
    if entry and entry not in method.entries:
        raise FgdiagError(f"{word} is used at {' or '.join(method.entries)}, not at {entry!r}.")
    return method, next(one for one in method.entries if entry in ("", one))


@dataclass(frozen=True, eq=False)
class Map:
    """What in one picture a score rests on.

    Attributes
    ----------
    values
        (rows, columns) float32 over the whole picture, in the unit of the target: positive where it speaks for the
        class, negative where against it; NaN where the model sees nothing.
    picture
        (height, width, 3) uint8, the picture made small.
    method, entry
        As in `METHODS`, and where values were put in.
    target, classes
        What is explained, and the classes it speaks for and against.
    score, blurred_score
        Of the picture, and of the picture blurred until only its colours are left.
    faithfulness
        None where that was not asked for.
    on_marks
        Where the map lies, in a field guide; None elsewhere.
    row, fine
        Row of the run and true class, where the picture is one of a run.
    """

    values: np.ndarray
    picture: np.ndarray
    method: str
    entry: Entry
    target: str
    classes: tuple[str, ...]
    score: float
    blurred_score: float
    faithfulness: Faithfulness | None = None
    on_marks: OnMarks | None = None
    row: int | None = None
    fine: str | None = None

    @property
    def name(self) -> str:
        """`METHOD@ENTRY`."""
        return f"{self.method}@{self.entry}"

    @property
    def method_words(self) -> str:
        """Method and entry, to be read."""
        return f"{METHODS[self.method].words[:1].upper()}{METHODS[self.method].words[1:]} {ENTRY_WORDS[self.entry]}"

    @property
    def strongest(self) -> float:
        """Size of a value that is drawn in full colour."""
        return float(np.nanpercentile(np.abs(self.values), STRONGEST)) or 1.0

    @property
    def remark(self) -> str:
        """Why the map should not be believed; empty where its checks pass or were not made."""
        if self.faithfulness is None or self.faithfulness.passed:
            return ""
        return (
            "Not to be believed: blurring what it marks changes the score no more than blurring other parts."
        )

    def frame(self) -> pd.DataFrame:
        """Return one row a cell: `row`, `column`, `value`."""
        row, column = np.indices(self.values.shape)
        return pd.DataFrame({"row": row.ravel(), "column": column.ravel(), "value": self.values.ravel()})

    def figure(self) -> go.Figure:
        """Draw the picture, and the map over it."""
        return draw_map(self)

    def json(self) -> dict[str, Any]:
        """Return everything but the cells and the picture as plain values."""
        kept = {name: one for name, one in vars(self).items() if name not in ("values", "picture")}
        checks = {name: kept[name].json() if kept[name] else None for name in ("faithfulness", "on_marks")}
        return kept | {"classes": list(self.classes)} | checks

    def save(self, path: Path, key: str) -> None:
        """Write a map whole or not at all; `key` says what it was made from."""
        buffer = BytesIO()
        about = np.array(json.dumps({"key": key, **self.json()}))
        np.savez_compressed(buffer, values=self.values, picture=self.picture, about=about)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def read(cls, path: Path, key: str | None = None) -> Self | None:
        """Read back what `save` wrote; None where there is nothing, or it was made from something else than `key`."""
        if not path.exists():
            return None
        with np.load(path) as kept:
            about = json.loads(str(kept["about"]))
            values, picture = kept["values"], kept["picture"]
        if about.pop("key") != key and key is not None:
            return None
        about["classes"] = tuple(about["classes"])
        if about["faithfulness"]:
            about["faithfulness"] = Faithfulness.of_json(about["faithfulness"])
        if about["on_marks"]:
            about["on_marks"] = OnMarks(**about["on_marks"])
        return cls(values, picture, **about)


@dataclass(frozen=True)
class AttributionMaps:
    """Maps of several pictures by one or more methods, and how far each method is to be believed.

    Attributes
    ----------
    maps
        One a picture and method.
    ruined
        By method: rank correlations of maps with those of the same pictures by the model with its weights shuffled.
    """

    maps: tuple[Map, ...]
    ruined: dict[str, list[float]] = field(default_factory=dict)

    @property
    def by_detail(self) -> Self:
        """Those of pictures that the target decides rightly, and whose detail speaks for that.

        Elsewhere there is no reason why a map should lie on what truly tells the classes apart: the target is wrong, or
        the blurred picture, which a map starts from, speaks for the class even more.
        """
        return replace(self, maps=tuple(one for one in self.maps if one.score > max(0, one.blurred_score)))

    def of(self, row: int) -> list[Map]:
        """Maps of one image."""
        return [one for one in self.maps if one.row == row]

    def frame(self) -> pd.DataFrame:
        """One row a method.

        `images`; `deletion` and `insertion`, means over pictures in the unit of the target; `over_moved` and
        `over_centre`, by how much insertion minus deletion exceeds that of the map moved elsewhere and of the centre,
        each with its 95 % interval (`_low`, `_high`; clustered by class where there are 5 or more); `ruined`, mean rank
        correlation with maps of the ruined model; over pictures whose marks are known, means of what `OnMarks` holds,
        and `marks_over_area` and `worn_over_area`, by how much they exceed the share of the bird's area, with interval;
        `passed`, whether a method beats both other maps significantly and is not blind to the ruin.
        """
        names = dict.fromkeys(one.name for one in self.maps)
        return pd.DataFrame([self._row(name) for name in names])

    def json(self) -> dict[str, Any]:
        """Return the methods and the checks of every map as plain values."""
        return {
            "methods": json.loads(str(self.frame().to_json(orient="records"))),
            "maps": [one.json() for one in self.maps],
        }

    def figure(self) -> go.Figure:
        """Draw by how much each method beats moved maps and the centre."""
        return draw_checks(self.frame())

    def sentences(self) -> list[str]:
        """What is to be said of methods that failed a check."""
        rows = self.frame().to_dict("records")
        return [_failure(row) for row in rows if not row["passed"] and not np.isnan(row["over_moved"])]

    def _row(self, name: str) -> dict[str, Any]:
        maps = [one for one in self.maps if one.name == name]
        checked = [(one, one.faithfulness) for one in maps if one.faithfulness]
        row: dict[str, Any] = {"method": name, "images": len(maps)}
        row |= {
            side: _mean([getattr(seen, side) for _, seen in checked]) for side in ("deletion", "insertion")
        }
        row |= _estimate("over_moved", [(one, seen.gain - seen.moved_gains.mean()) for one, seen in checked])
        row |= _estimate("over_centre", [(one, seen.gain - seen.centre_gain) for one, seen in checked])
        row["ruined"] = _mean(self.ruined.get(name, []))
        marked = [(one, one.on_marks) for one in maps if one.on_marks]
        sides = ("on_marks", "marks_of_bird", "on_worn", "worn_of_bird", "on_bird", "marks_of_picture")
        row |= {side: _mean([getattr(seen, side) for _, seen in marked]) for side in sides}
        row |= _estimate(
            "marks_over_area", [(one, seen.on_marks - seen.marks_of_bird) for one, seen in marked]
        )
        row |= _estimate("worn_over_area", [(one, seen.on_worn - seen.worn_of_bird) for one, seen in marked])
        row["passed"] = bool(
            row["over_moved_low"] > 0 and row["over_centre_low"] > 0 and not abs(row["ruined"]) >= ALIKE
        )
        return row


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else np.nan


def _estimate(name: str, values: list[tuple[Map, float]]) -> dict[str, float]:
    if not values:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    classes = [one.fine for one, _ in values]
    few = len(set(classes)) < FEWEST_CLASSES
    clusters = np.arange(len(values)) if few else np.array(classes, str)
    found = clustered_means(np.array([[value for _, value in values]]), clusters, step=0.0)
    return {
        name: float(found.mean[0]),
        f"{name}_low": float(found.low[0]),
        f"{name}_high": float(found.high[0]),
    }


def _failure(row: dict[str, Any]) -> str:
    reasons = []
    if not row["over_moved_low"] > 0:
        reasons.append("they are not significantly better than the same maps moved elsewhere")
    if not row["over_centre_low"] > 0:
        reasons.append("they are not significantly better than the centre of the picture")
    if abs(row["ruined"]) >= ALIKE:
        reasons.append("they hardly change when the model's weights are shuffled")
    return f"Maps of {row['method']} are not to be believed here: {'; '.join(reasons)}."


# --- making them ----------------------------------------------------------------------------------------------------


def attribute_image(
    vlm: "VLM",
    image: Image.Image,
    target: Target,
    method: str = "ig",
    *,
    checked: bool = True,
    budget: int = ablation.BUDGET,
    seed: int = 0,
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

    Raises
    ------
    FgdiagError
        There is no such method, or not there; or the target does not depend on what enters there.
    ModelNotSupported
        Image tokens of this model lie nowhere in the picture.
    """
    how, entry = method_named(method)
    _check_behind(vlm, entry, target)
    pixels = pixel_layout(vlm, image.size)
    layout = pixels if entry == "pixels" else token_layout(vlm, image.size, entry)
    given = Substitution(vlm, image, target, entry)
    values = how.make(given, layout, budget, seed)
    at_pixels = given if entry == "pixels" else Substitution(vlm, image, target, "pixels")
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
        faithfulness=faithfulness(at_pixels, pixels, values, seed=seed) if checked else None,
    )


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
    labels = Labels.of(run, seed=run.manifest.get("seed", 0))
    named = [
        (class_named(a, labels.fine_names.tolist()), class_named(b, labels.fine_names.tolist()))
        for a, b in pairs
    ]
    asked = [one for first, second in named for one in _drawn(labels, first, second, count, seed)]
    make = _Maker(run, vlm, images, _targets(run, target, seed), checked, budget, seed)
    kept = {one: make.kept(*one) for one in ((method, *about) for method in methods for about in asked)}
    missing = [one for one, found in kept.items() if found is None]
    done = len(kept) - len(missing)
    for one in track(missing, description="making maps", total=len(kept), unit="maps", done=done):
        kept[one] = make.make(*one)
    maps = tuple(found for found in kept.values() if found is not None)
    return AttributionMaps(maps, _ruined(make, methods, asked[:ruined]))


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


def _targets(run: Run, target: str, seed: int) -> Callable[[str, str], Target]:
    """From an image's own class and another to the contrast of the two."""
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


def _letters(own: str, other: str, question: str) -> LetterTarget:
    """The options in alphabetical order, so that the letter says nothing of which one is right."""
    options = tuple(spoken(name) for name in sorted((own, other)))
    chosen = options.index(spoken(own))
    return LetterTarget(options, chosen, 1 - chosen, question)


@dataclass(frozen=True)
class _Maker:
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

    def make(self, method: str, row: int, own: str, other: str, *, ruined: bool = False) -> Map | None:
        """Make a map and keep it; None where the image cannot be read any more."""
        try:
            picture = self.images.open(row)
        except ImageUnreadable as error:
            say(f"image {row} is left out: {error}")
            return None
        how = {"checked": self.checked and not ruined, "budget": self.budget, "seed": self.seed}
        found = attribute_image(self.vlm, picture, self.target_of(own, other), method, **how)
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
        made_of += [how.words, entry, self.checked, self.budget, self.seed]
        return blake2b(json.dumps(made_of).encode(), digest_size=8).hexdigest()

    def _path(self, row: int, key: str, ruined: bool) -> Path:
        folder = "attribution/ruined" if ruined else "attribution"
        return self.run.result_path(f"{folder}/{row:07d}.{key}.npz")


def _ruined(
    make: _Maker, methods: Sequence[str], asked: Sequence[tuple[int, str, str]]
) -> dict[str, list[float]]:
    """Rank correlations of maps with those of the ruined model, by method."""
    todo = [(method, *one) for method in methods for one in asked]
    missing = [one for one in todo if make.kept(*one, ruined=True) is None]
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
