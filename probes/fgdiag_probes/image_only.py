"""What can be read from the images without the VLM's language model, by several readers and image models.

All are given the training and test images of the run, and linear probes the folds and penalties of the layer-wise
ones. What was read is kept in the run.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from fgdiag.image_features import ImageFeatures, recorded_features
from fgdiag.progress import track
from fgdiag.store import Run
from fgdiag_probes import reading
from fgdiag_probes.class_means import class_means
from fgdiag_probes.curves import FOLDS, RELATIVE_ROUNDING, key_of, resolution_of
from fgdiag_probes.depths import OWN, REFERENCE, Depth
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.neighbours import nearest
from fgdiag_probes.reading import Readings
from fgdiag_probes.zero_shot import zero_shot

METHOD = 1
"""Raised when the same features would be read differently."""

PIXELS = "pixels"
LINEAR, NEAREST, MEANS, ZERO_SHOT = "linear probe", "nearest neighbours", "class means", "zero-shot"
READERS: dict[str, Callable[..., Readings]] = {LINEAR: reading.read, NEAREST: nearest, MEANS: class_means}
JOINED = ("cls", "image", "embed")
"""Readouts of one model that are read side by side, as one vector."""


@dataclass(frozen=True)
class Baseline:
    """One way of naming the images, and what it says of every test image.

    Attributes
    ----------
    model
        Whose features: `own encoder`, `pixels`, or an image model as it was asked for.
    readout
        Which of them, such as `cls+image`.
    method
        `linear probe`, `nearest neighbours`, `class means` or `zero-shot`.
    """

    model: str
    readout: str
    method: str
    readings: Readings

    @property
    def is_reference(self) -> bool:
        """Whether it may speak for what the images hold: linear, and not only what the VLM is given anyway.

        A probe on the VLM's own encoder may, for it is given the class token beside the patches. A zero-shot
        classifier is linear too: its weights are embeddings of texts.
        """
        return self.model != PIXELS and self.method in (LINEAR, ZERO_SHOT)


@dataclass(frozen=True)
class Source:
    """Features of one model, loaded when they are asked for.

    Attributes
    ----------
    digest
        Changes with the features, as far as the run does not say so.
    load
        Returns (images, width) float32.
    resolution
        See `fgdiag_probes.linear.Basis.of`.
    """

    model: str
    readout: str
    digest: str
    load: Callable[[], np.ndarray]
    resolution: float


def read_baselines(run: Run, labels: Labels, *, seed: int, only_references: bool = False) -> list[Baseline]:
    """Read everything that is recorded in a run: its own encoder, its pixels, every image model.

    Parameters
    ----------
    seed
        Of the folds.
    only_references
        Leave out what `Baseline.is_reference` would be false of.
    """
    folds = labels.folds(folds=FOLDS, seed=seed)
    asked = [
        (source, method, reader)
        for source, method, reader in _all(run, labels, folds)
        if not only_references or Baseline(source.model, source.readout, method, {}).is_reference
    ]
    keys = [_key(run, source, method, seed) for source, method, _ in asked]
    kept = {key: reading.load(_path(run, key), key, labels) for key in keys}
    todo = [(key, reader) for key, (_, _, reader) in zip(keys, asked, strict=True) if kept[key] is None]
    done = len(asked) - len(todo)
    for key, reader in track(
        todo, description="reading the baselines", total=len(asked), unit="readers", done=done
    ):
        kept[key] = found = reader()
        reading.save(_path(run, key), key, found)
    read = zip(asked, (kept[key] for key in keys), strict=True)
    return [Baseline(source.model, source.readout, method, of) for (source, method, _), of in read if of]


def image_only_reference(run: Run, *, seed: int = 0) -> dict[Level, Depth]:
    """Choose what speaks, at each level, for how much the images hold.

    The one that names most training images right when they are held out, of the linear probes on the VLM's own
    encoder (class token and mean of the patches) and on every image model recorded in the run, and of their
    zero-shot classifiers. Where no image model was asked for it is the own encoder.

    Returns
    -------
    dict
        By level a depth named `image-only reference`: its `site` is the model, its `readout` says how it was read.
        Empty where the run has recorded neither its encoder nor an image model.
    """
    labels = Labels.of(run, seed=seed)
    found = read_baselines(run, labels, seed=seed, only_references=True)
    return {level: best_reference(found, level) for level in labels.levels} if found else {}


def best_reference(found: list[Baseline], level: Level) -> Depth:
    """Return the best of those that may be a reference, by held-out training images."""

    def merit(baseline: Baseline) -> tuple[float, float]:
        choice = baseline.readings[level].choice
        return (choice.accuracy, -choice.bits) if choice else (0.0, 0.0)

    best = max((one for one in found if one.is_reference), key=merit)
    return Depth(REFERENCE, best.model, f"{best.readout}, {best.method}", best.readings[level])


def _all(run: Run, labels: Labels, folds: np.ndarray) -> Iterator[tuple[Source, str, Callable[[], Readings]]]:
    """Every source with every method that it can be read by; of the pixels a linear probe is enough."""
    recorded = recorded_features(run)
    for source in [*_own(run), *map(_of_model, recorded)]:
        for method, reader in READERS.items():
            if source.model != PIXELS or method == LINEAR:
                yield source, method, partial(_apply, reader, source, labels, folds)
    for features in recorded:
        if features.read_texts() is not None:
            yield _of_texts(features), ZERO_SHOT, partial(zero_shot, features, labels)


def _apply(reader: Callable[..., Readings], source: Source, labels: Labels, folds: np.ndarray) -> Readings:
    return reader(source.load(), labels, folds, resolution=source.resolution)


def _own(run: Run) -> Iterator[Source]:
    """What the run itself has recorded of the images."""
    sites = {str(site) for site in run.sites}
    for model, site in ((OWN, "vision"), (PIXELS, "pixels")):
        if site in sites:
            names = [name for name in JOINED if name in run.readouts(site)]
            if not names:
                continue
            load = partial(_joined, partial(run.activations, site), names)
            yield Source(model, "+".join(names), "", load, resolution_of(run, site))


def _of_model(features: ImageFeatures) -> Source:
    names = [name for name in JOINED if name in features.readouts]
    load = partial(_joined, features.read, names)
    rounding = RELATIVE_ROUNDING.get(features.dtype, 1e-5)
    return Source(features.name, "+".join(names), features.fingerprint, load, rounding)


def _of_texts(features: ImageFeatures) -> Source:
    texts = features.read_texts() or ([], None)
    digest = f"{features.fingerprint} {texts[0]}"
    return Source(features.name, "embed", digest, partial(features.read, "embed"), 0.0)


def _joined(read: Callable[[str], np.ndarray], names: list[str]) -> np.ndarray:
    return np.hstack([read(name) for name in names])


def _key(run: Run, source: Source, method: str, seed: int) -> str:
    """Changes with everything that a reading hangs on."""
    made_of = json.dumps([METHOD, key_of(run, seed), source.model, source.readout, source.digest, method])
    return hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()


def _path(run: Run, key: str) -> Path:
    return run.result_path(f"baselines/readings/{key}.npz")
