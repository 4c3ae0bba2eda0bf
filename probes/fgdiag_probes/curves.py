"""Layer-wise probes: how well each site and readout of a run names the classes of the test images."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import ControlFailed, RunIncomplete
from fgdiag.progress import track
from fgdiag.sites import ATTENTION, Site
from fgdiag.store import Run
from fgdiag_probes import reading
from fgdiag_probes.attention_pooling import attend
from fgdiag_probes.controls import Control, tokens_before_the_image
from fgdiag_probes.curve_figure import draw_curves
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.linear import PENALTIES, TOLERANCE
from fgdiag_probes.reading import Readings

FOLDS = 3
METHOD = f"5: penalties {PENALTIES} and beyond, {FOLDS} folds to {TOLERANCE}, control task"
"""Changes whenever the same activations would be read differently, so that no old reading passes for new."""
RELATIVE_ROUNDING = {"float32": 1e-5, "float16": 4 * 2**-10, "bfloat16": 4 * 2**-7}
"""Rounding noise of a model computing in this dtype, as a share of the numbers it computes with."""

Place = tuple[str, str]
"""Names of a site and of a readout."""


@dataclass(frozen=True)
class LayerCurves:
    """Scores of linear probes at every site and readout of a run.

    Attributes
    ----------
    table
        One row a level, site and readout, sites in the order of the forward pass. `accuracy` in [0, 1] and
        `bits` (log-loss) on the test images, each with its 95 % interval (`low`, `high`, `bits_low`,
        `bits_high`; clustered by fine class) and what chance scores (`chance`, `chance_bits`). `balanced`:
        accuracy where every class counts the same. `control`: accuracy on the control task, and
        `selectivity`, by how much the coarse classes are named better; at level `coarse` only.
        `cv_accuracy`, `cv_bits`: the same on training images held out by cross-validation, by which every
        choice is made. `penalty`, `at_edge`, `converged`, `gradient_norm`: the fit.
    labels
        Who was trained and tested.
    readings
        What every place said about every test image.
    control
        Outcome of the negative control: tokens before the image.
    class_token_fed
        Whether the projector is fed the class token, where the encoder has one. One that is not fed is shown, but
        does not speak for the encoder: what only it holds, the model never gets.
    llm_blocks
        How many blocks the language model has, recorded or not; None where the run does not say.
    """

    table: pd.DataFrame
    labels: Labels
    readings: Mapping[Place, Readings]
    control: Control
    class_token_fed: bool = True
    llm_blocks: int | None = None

    def frame(self) -> pd.DataFrame:
        """Return the scores as a table; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return the scores as plain numbers: a list of rows, the control, and how many images."""
        return {
            "curves": json.loads(str(self.table.to_json(orient="records"))),
            "control": self.control.json(),
            "images": {"train": len(self.labels.train), "test": len(self.labels.test)},
        }

    def best(self, level: Level, sites: Iterable[str], *, pooled: bool = False) -> Place | None:
        """Return the place among `sites` that reads a level best on held-out *training* images, if any.

        The control readout `pre` never competes, nor does a class token that goes nowhere.

        Parameters
        ----------
        pooled
            Leave out attention, of which no vectors are recorded.
        """
        among = set(sites)
        mute = {"pre", *([] if self.class_token_fed else ["cls"]), *([ATTENTION] if pooled else [])}
        columns = ["level", "site", "readout", "cv_accuracy", "cv_bits"]
        scored = [
            (accuracy, -bits, (site, readout))
            for at, site, readout, accuracy, bits in self.table[columns].itertuples(index=False, name=None)
            if at == level and site in among and readout not in mute and not np.isnan(accuracy)
        ]
        return max(scored, key=lambda one: one[:2])[2] if scored else None

    def row(self, level: Level, place: Place) -> dict[str, Any]:
        """Return the scores of one place at one level, by column of `table`."""
        rows = zip(self.table["level"], self.table["site"], self.table["readout"], strict=True)
        return self.table.iloc[list(rows).index((level, *place))].to_dict()

    def figure(self, level: Level | None = None, metric: str = "accuracy") -> go.Figure:
        """Draw accuracy along the forward pass, with intervals, chance and the pixel baseline.

        Parameters
        ----------
        level
            Default: the finest there is, `fine|coarse` or else `fine`.
        metric
            Another score instead, one of `fgdiag_probes.curve_figure.METRICS`.
        """
        return draw_curves(self.table, level or self.labels.levels[0], metric)


def probe_layers(run: Run, *, seed: int = 0) -> LayerCurves:
    """Probe every site and readout of a run, at every level; what was probed before is read back.

    Writes `results/probes.parquet`, `results/probes.json`, and under `results/probes/` what each place said
    about each test image.

    Parameters
    ----------
    run
        An extracted run.
    seed
        Of the cross-validation folds, the random kinds of the control task and the first queries of attention.

    Raises
    ------
    ControlFailed
        In a causal model, tokens before the image name its class better than chance.
    RunIncomplete
        Nothing was recorded of the model, which is served elsewhere and was only asked.
    """
    if not run.sites:
        raise RunIncomplete(
            f"{run.path} holds answers alone, for nothing can be recorded of {run.manifest['model']}; record an open "
            "model with `fgdiag extract`."
        )
    labels = Labels.of(run, seed=seed)
    readings = _read_all(run, labels, seed)
    table = pd.concat([_scores(level, readings, labels) for level in labels.levels], ignore_index=True)
    control = tokens_before_the_image(
        {place: found["fine"] for place, found in readings.items() if place[1] == "pre"},
        labels,
        applies=bool(run.manifest.get("causal", True)),
    )
    fed = bool(run.manifest.get("class_token_fed", True))
    curves = LayerCurves(table, labels, readings, control, fed, run.manifest.get("llm_blocks"))
    run.write_table("probes", table)
    run.write_json("probes", curves.json())
    if not control.passed:
        raise ControlFailed(control.sentence)
    return curves


def _read_all(run: Run, labels: Labels, seed: int) -> dict[Place, Readings]:
    """Readings of all places in the order of the forward pass, each kept on disk as soon as it is made."""
    folds = labels.folds(folds=FOLDS, seed=seed)
    key = key_of(run, seed)
    places = [(str(site), readout) for site in run.sites for readout in _readouts(run, str(site))]
    kept = {place: reading.load(_path(run, place), key, labels) for place in places}
    todo = [place for place in places if kept[place] is None]
    done = len(places) - len(todo)
    for place in track(todo, description="probing the layers", total=len(places), unit="readouts", done=done):
        kept[place] = found = _read(run, place, labels, folds, seed)
        reading.save(_path(run, place), key, found)
    return {place: found for place, found in kept.items() if found is not None}


def _readouts(run: Run, site: str) -> list[str]:
    return [*run.readouts(site), *([ATTENTION] if run.has_tokens(site) else [])]


def _read(run: Run, place: Place, labels: Labels, folds: np.ndarray, seed: int) -> Readings:
    resolution = resolution_of(run, place[0])
    if place[1] == ATTENTION:
        return attend(run.tokens(place[0]), labels, folds, seed=seed, resolution=resolution)
    return reading.read(run.activations(*place), labels, folds, resolution=resolution)


def key_of(run: Run, seed: int) -> str:
    """What a reading depends on, apart from the place."""
    manifest = run.manifest
    made_of = [manifest.get(name) for name in ("fingerprint", "prompt", "dtype")]
    made_of.append(manifest["images"].get("digest"))
    return hashlib.blake2b(json.dumps([METHOD, seed, *made_of]).encode(), digest_size=16).hexdigest()


def _path(run: Run, place: Place) -> Path:
    return run.result_path(f"probes/{place[0]}.{place[1]}.npz")


def resolution_of(run: Run, site: str) -> float:
    """Relative rounding of the activations at a site; see `fgdiag_probes.linear.Basis.of`."""
    if site == "pixels":
        return 0.0
    return RELATIVE_ROUNDING.get(str(run.manifest.get("dtype")).removeprefix("torch."), 1e-5)


def _scores(level: Level, readings: dict[Place, Readings], labels: Labels) -> pd.DataFrame:
    asked = labels.asked(level, labels.test)
    found = [places[level] for places in readings.values()]
    correct = np.stack([one.correct(labels, level)[asked] for one in found])
    clusters = labels.fine[labels.test][asked]
    accuracy = clustered_means(correct, clusters, step=1.0)
    bits = clustered_means(np.stack([one.bits[asked] for one in found]), clusters, step=0.0)
    control = np.array([np.nan if one.control is None else one.control.mean() for one in found])
    choices = pd.DataFrame([vars(one.choice) for one in found])
    chance, chance_bits = labels.chance[level]
    table = pd.DataFrame(
        {
            "level": level,
            "site": [site for site, _ in readings],
            "readout": [readout for _, readout in readings],
            "stage": [Site.parse(site).stage for site, _ in readings],
            "accuracy": accuracy.mean,
            "low": accuracy.low.clip(0, 1),
            "high": accuracy.high.clip(0, 1),
            "chance": chance,
            "balanced": _balanced(correct, labels.codes(level)[labels.test][asked]),
            "control": control,
            "selectivity": accuracy.mean - control,
            "bits": bits.mean,
            "bits_low": bits.low.clip(0),
            "bits_high": bits.high,
            "chance_bits": chance_bits,
            "images": int(asked.sum()),
        }
    )
    return table.join(choices.rename(columns={"accuracy": "cv_accuracy", "bits": "cv_bits"}))


def _balanced(correct: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(places,) mean over classes of the share named right."""
    _, codes, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    return np.stack([np.bincount(codes, row) / sizes for row in correct]).mean(1)
