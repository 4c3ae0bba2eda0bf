"""Other looks at the depths of a run, which a single accuracy cannot give.

At each depth, beside the linear probe: a small network and nearest neighbours, the probe at matched width and on few
images, the codelength of the labels, and shuffled labels, which must be at chance. Between encoder and
projector: how many neighbours stay, and how much can be rebuilt.
"""

import json
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from fgdiag.errors import ControlFailed
from fgdiag.progress import track
from fgdiag.store import Run
from fgdiag_probes.controls import Control, Shuffled, learn_shuffled, shuffled_labels
from fgdiag_probes.curves import FOLDS, LayerCurves, Place, key_of, probe_layers, resolution_of
from fgdiag_probes.depths import sites_of
from fgdiag_probes.few_images import few_shot
from fgdiag_probes.labels import Labels
from fgdiag_probes.matched import read_at_width
from fgdiag_probes.neighbours import nearest
from fgdiag_probes.prequential import codelength
from fgdiag_probes.projector import NeighbourOverlap, Reconstruction, neighbour_overlap, reconstruction
from fgdiag_probes.reading import Readings
from fgdiag_probes.upper_bound import network

METHOD = "1"


@dataclass(frozen=True)
class Evidence:
    """What other readers and less data show at the depths.

    Attributes
    ----------
    readers
        One row a depth and level: `site` and `readout` (the best recorded one), and test accuracy in [0, 1] of the
        `linear` probe, the `network`, the `nearest` neighbours, the linear probe at `matched` width (the least
        of all depths, `width`), and after `few_1`, `few_5`, `few_20` images a class; `codelength` in bits
        an image against `uniform` without features, and their quotient `compression`.
    shuffled
        Whether probes taught shuffled labels stay at chance.
    overlap, rebuilt
        Of the projector; None where the run has no encoder or projector.
    """

    readers: pd.DataFrame
    shuffled: Control
    overlap: NeighbourOverlap | None
    rebuilt: Reconstruction | None

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read back what `gather` kept; `RunIncomplete` where nothing is."""
        kept = run.read_json("evidence")
        overlap, rebuilt = kept["overlap"], kept["reconstruction"]
        return cls(
            pd.DataFrame(kept["readers"]),
            Control(**kept["shuffled"]),
            overlap and NeighbourOverlap(**overlap),
            rebuilt and Reconstruction(**rebuilt),
        )

    def frame(self) -> pd.DataFrame:
        """Return what the readers read; see `readers`."""
        return self.readers

    def json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "readers": json.loads(str(self.readers.to_json(orient="records"))),
            "shuffled": self.shuffled.json(),
            "overlap": self.overlap and self.overlap.json(),
            "reconstruction": self.rebuilt and self.rebuilt.json(),
        }


def gather(run: Run, *, seed: int = 0) -> Evidence:
    """Look at each depth in every way; what was done before is read back.

    Probes the layers first where that was not done. Writes `results/evidence.json`.

    Raises
    ------
    ControlFailed
        See `probe_layers`; or probes that were taught shuffled labels name the right ones.
    """
    curves = probe_layers(run, seed=seed)
    labels = curves.labels
    places = places_at_depths(curves)
    width = min(run.activations(*place).shape[1] for place in places.values())
    seen: dict[Place, _Look] = {}
    todo = list(dict.fromkeys(places.values()))
    for place in track(todo, description="looking closer", total=len(todo), unit="readouts"):
        seen[place] = _look(run, curves, place, width, seed)
    readers = [
        row for name, place in places.items() for row in _rows(name, place, seen[place], curves, width)
    ]
    shuffled = shuffled_labels({place: look.shuffled for place, look in seen.items()}, labels)
    found = Evidence(pd.DataFrame(readers), shuffled, *_projector(run, labels, seed))
    run.write_json("evidence", found.json())
    if not shuffled.passed:
        raise ControlFailed(shuffled.sentence)
    return found


def places_at_depths(curves: LayerCurves) -> dict[str, Place]:
    """Return the best recorded readout at each depth, at the finest level."""
    level = curves.labels.levels[0]
    found = {name: curves.best(level, sites, pooled=True) for name, sites in sites_of(curves).items()}
    return {name: place for name, place in found.items() if place}


@dataclass(frozen=True)
class _Look:
    """Accuracy by level and way of reading, and what shuffled labels taught."""

    by_level: dict[str, dict[str, float]]
    shuffled: Shuffled


def _look(run: Run, curves: LayerCurves, place: Place, width: int, seed: int) -> _Look:
    path = run.result_path(f"evidence/{place[0]}.{place[1]}.json")
    key = f"{METHOD} {width} {key_of(run, seed)}"
    if path.exists() and (kept := json.loads(path.read_text()))["key"] == key:
        return _Look(kept["by_level"], Shuffled(**kept["shuffled"]))
    labels, features = curves.labels, run.activations(*place)
    folds, resolution = labels.folds(folds=FOLDS, seed=seed), resolution_of(run, place[0])
    ways: dict[str, Readings] = {
        "network": network(run, curves, place, seed=seed),
        "nearest": nearest(features, labels, folds, resolution=resolution),
        "matched": read_at_width(features, labels, folds, width, resolution=resolution),
    }
    by_level = {
        level: {way: _accuracy(read, labels, level) for way, read in ways.items()} for level in labels.levels
    }
    for row in few_shot(features, labels, seed=seed, resolution=resolution).table.to_dict("records"):
        by_level[row["level"]][f"few_{row['shots']}"] = row["accuracy"]
    for row in codelength(features, labels, seed=seed, resolution=resolution).totals.to_dict("records"):
        sent = {"codelength": row["bits_an_image"], "uniform": row["uniform_bits"] / row["images"]}
        by_level[row["level"]] |= {**sent, "compression": row["compression"]}
    choice = curves.readings[place]["fine"].choice
    shuffled = learn_shuffled(
        features, labels, penalty=choice.penalty if choice else 1.0, seed=seed, resolution=resolution
    )
    run.write_json(
        f"evidence/{place[0]}.{place[1]}", {"key": key, "by_level": by_level, "shuffled": vars(shuffled)}
    )
    return _Look(by_level, shuffled)


def _accuracy(readings: Readings, labels: Labels, level: Any) -> float:
    asked = labels.asked(level, labels.test)
    return float(readings[level].correct(labels, level)[asked].mean())


def _rows(name: str, place: Place, look: _Look, curves: LayerCurves, width: int) -> list[dict[str, Any]]:
    return [
        {
            "level": level,
            "depth": name,
            "site": place[0],
            "readout": place[1],
            "linear": curves.row(level, place)["accuracy"],
            **look.by_level[level],
            "width": width,
        }
        for level in curves.labels.levels
    ]


def _projector(run: Run, labels: Labels, seed: int) -> tuple[NeighbourOverlap | None, Reconstruction | None]:
    sites = [str(site) for site in run.sites]
    after = next(
        (site for site in sites if site.startswith("projector") and "image" in run.readouts(site)), None
    )
    if after is None or "vision" not in sites or "image" not in run.readouts("vision"):
        return None, None
    fed, put_out = run.activations("vision", "image"), run.activations(after, "image")
    used = np.concatenate([labels.train, labels.test])
    of_test = labels.fine[labels.test]
    overlap = neighbour_overlap(fed[used], put_out[used], clusters=labels.fine[used])
    rebuilt = reconstruction(
        fed,
        put_out,
        labels.train,
        labels.test,
        folds=labels.folds(folds=FOLDS, seed=seed),
        clusters=of_test,
        resolution=resolution_of(run, after),
    )
    return overlap, rebuilt
