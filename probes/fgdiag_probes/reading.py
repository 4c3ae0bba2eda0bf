"""What one readout says about every test image: the outcome of its probes, kept for paired comparisons."""

import json
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Self

import numpy as np

from fgdiag.store import write_bytes
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.linear import Basis, ChosenProbe, fit_at, fit_probe


@dataclass(frozen=True)
class Choice:
    """How a probe was chosen and how it did on training images held out by cross-validation.

    Every later choice (of a readout, of a layer) goes by `accuracy`, never by test images.
    """

    accuracy: float
    bits: float
    penalty: float
    at_edge: bool
    converged: bool
    gradient_norm: float


@dataclass(frozen=True)
class Reading:
    """Answers at one level for the test images of `Labels`.

    Attributes
    ----------
    said
        (test,) int32, code of the class named; -1 where nothing was asked.
    bits
        (test,) float32, minus log2 of the probability given to the right class; NaN where nothing was asked.
    choice
        None where there was nothing to fit, as for the model's own answers.
    control
        (test,) bool, whether a probe of the same kind named the random kind right; at level `coarse` only.
    """

    said: np.ndarray
    bits: np.ndarray
    choice: Choice | None = None
    control: np.ndarray | None = None

    def correct(self, labels: Labels, level: Level) -> np.ndarray:
        """(test,) float64: 1 where the right class was named."""
        return (self.said == labels.codes(level)[labels.test]).astype(float)

    @classmethod
    def of_logits(cls, logits: np.ndarray, labels: Labels, level: Level, rows: np.ndarray) -> Self:
        """Let each row's candidates compete.

        Parameters
        ----------
        logits
            (rows, classes) unnormalised log-probabilities over all classes of the level.
        rows
            Rows of the run that `logits` is about.
        """
        logits = np.where(labels.candidates(level, rows), logits, -np.inf).astype(np.float64)
        top = logits.max(1, keepdims=True)
        log_total = top + np.log(np.exp(logits - top).sum(1, keepdims=True))
        own = np.take_along_axis(logits, labels.codes(level)[rows, None], 1)
        bits = (log_total - own)[:, 0] / np.log(2)
        asked = labels.asked(level, rows)
        said = np.where(asked, logits.argmax(1), -1).astype(np.int32)
        return cls(said, np.where(asked, bits, np.nan).astype(np.float32))


Readings = dict[Level, Reading]


def choice_of(
    logits: np.ndarray,
    labels: Labels,
    level: Level,
    *,
    penalty: float,
    at_edge: bool = False,
    converged: bool = True,
    gradient_norm: float = float("nan"),
) -> Choice:
    """Score a reader by what it says of training images that it did not see.

    Parameters
    ----------
    logits
        (train, classes) unnormalised log-probabilities over all classes of the level, each row from a reader that
        did not see it.
    labels, level
        What was asked.
    penalty
        Strength of the regularisation; NaN where a reader has none, as nearest neighbours.
    at_edge
        Whether what was chosen lies at an end of what was on offer.
    converged
        Whether the fit was finished.
    gradient_norm
        Of the objective at the end of the fit; NaN where that says nothing.
    """
    seen = Reading.of_logits(logits, labels, level, labels.train)
    asked = labels.asked(level, labels.train)
    correct = seen.said == labels.codes(level)[labels.train]
    return Choice(
        accuracy=float(correct[asked].mean()),
        bits=float(seen.bits[asked].mean()),
        penalty=penalty,
        at_edge=at_edge,
        converged=converged,
        gradient_norm=gradient_norm,
    )


def choice_of_probe(probe: ChosenProbe, labels: Labels, level: Level) -> Choice:
    """`choice_of` for a linear probe."""
    return choice_of(
        probe.cv_logits,
        labels,
        level,
        penalty=probe.penalty,
        at_edge=probe.at_edge,
        converged=probe.converged,
        gradient_norm=probe.gradient_norm,
    )


def read(features: np.ndarray, labels: Labels, folds: np.ndarray, *, resolution: float) -> Readings:
    """Probe one readout at every level; the test images are touched here, once.

    Beside the coarse level stands its control task, with the penalty of the probe that it controls; see
    `fgdiag_probes.labels.Labels.random_kinds`.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    folds
        (train,) fold of each training image.
    resolution
        Relative rounding of the features; see `fgdiag_probes.linear.Basis.of`.
    """
    basis, tested = Basis.of(features[labels.train], resolution=resolution), features[labels.test]
    readings: Readings = {}
    fine = fit_probe(basis, labels.fine[labels.train], folds=folds)
    for level in labels.levels:
        probe = fit_probe(basis, labels.coarse[labels.train], folds=folds) if level == "coarse" else fine
        seen = Reading.of_logits(probe.logits(tested), labels, level, labels.test)
        readings[level] = replace(seen, choice=choice_of_probe(probe, labels, level))
    if "coarse" in labels.levels:
        kinds, coarse = labels.random_kinds[labels.fine], readings["coarse"]
        control = fit_at(basis, kinds[labels.train], coarse.choice.penalty if coarse.choice else 1.0)
        readings["coarse"] = replace(coarse, control=control.predict(tested) == kinds[labels.test])
    return readings


def save(path: Path, key: str, readings: Readings) -> None:
    """Write readings whole or not at all; `key` says what they were made from."""
    arrays: dict[str, np.ndarray] = {"key": np.array(key)}
    for level, reading in readings.items():
        arrays[f"{level}:said"] = reading.said
        arrays[f"{level}:bits"] = reading.bits
        if reading.choice is not None:
            arrays[f"{level}:choice"] = np.array(json.dumps(asdict(reading.choice)))
        if reading.control is not None:
            arrays[f"{level}:control"] = reading.control
    buffer = BytesIO()
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, buffer.getvalue())


def load(path: Path, key: str, labels: Labels) -> Readings | None:
    """Read back what `save` wrote; None where there is nothing or it was made from something else."""
    if not path.exists():
        return None
    with np.load(path) as arrays:
        if str(arrays["key"]) != key:
            return None
        return {
            level: Reading(
                arrays[f"{level}:said"],
                arrays[f"{level}:bits"],
                Choice(**json.loads(str(arrays[f"{level}:choice"]))),
                arrays.get(f"{level}:control"),
            )
            for level in labels.levels
        }
