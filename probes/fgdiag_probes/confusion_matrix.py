"""Which class is named how often for which, at any site or in the answer, look-alikes side by side."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import RunIncomplete, SiteNotFound
from fgdiag.store import Run
from fgdiag_probes.answered import read_answers
from fgdiag_probes.curves import LayerCurves, probe_layers
from fgdiag_probes.depths import Depth, comparable, depth_at, sites_of
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.matrix_figure import draw_matrices
from fgdiag_probes.similarity import ClassOrder, class_order


@dataclass(frozen=True)
class ConfusionMatrix:
    """Counts of test images by their class and by what was named.

    Attributes
    ----------
    counts
        (classes, classes) int64: images of the class of the row that were named as the class of the column.
    classes
        (classes,) names, the same for rows and columns; similar ones are neighbours.
    blocks
        Name of a coarse class, first position and the position after the last; one block without a name where there
        are no coarse classes.
    site, readout
        Who named; `answer` and `likelihood` for the model itself.
    level
        `fine`: named among all classes; `fine|coarse`: among those of the image's kind.
    """

    counts: np.ndarray
    classes: np.ndarray
    blocks: tuple[tuple[str, int, int], ...]
    site: str
    readout: str
    level: Level

    @property
    def shares(self) -> np.ndarray:
        """(classes, classes) float64 in [0, 1]: the counts as shares of a row; NaN where a class was not tested."""
        images = self.counts.sum(1, keepdims=True)
        return self.counts / np.where(images > 0, images, np.nan)

    def frame(self) -> pd.DataFrame:
        """Return the counts with the class names on both sides."""
        return pd.DataFrame(self.counts, index=self.classes, columns=self.classes)

    def json(self) -> dict[str, Any]:
        """Return counts, names and blocks as plain values."""
        return {
            "site": self.site,
            "readout": self.readout,
            "level": self.level,
            "classes": self.classes.tolist(),
            "blocks": [{"coarse": name, "start": start, "end": end} for name, start, end in self.blocks],
            "counts": self.counts.tolist(),
        }

    def figure(self) -> go.Figure:
        """Draw the shares of each row: what is right in grey, what is confused in colour, kinds framed."""
        return draw_matrices([self])


def confusion_matrix(
    run: Run,
    *,
    at: str = "answer",
    readout: str | None = None,
    level: Level = "fine",
    order: ClassOrder | None = None,
    seed: int = 0,
) -> ConfusionMatrix:
    """Count what is named for what, at one place.

    Parameters
    ----------
    run
        An extracted run; probed first where that was not done.
    at
        A site, a depth such as `last llm layer`, or `answer`.
    readout
        Of the site. Default: the one that reads best on held-out training images.
    level
        `fine` or `fine|coarse`.
    order
        Of the classes. Default: by similarity at the vision encoder, or at the first site where there is no other.
    seed
        See `probe_layers`.

    Raises
    ------
    SiteNotFound
        The run has no such site or readout.
    RunIncomplete
        The answers are asked for, and the model has not been asked.
    """
    curves = probe_layers(run, seed=seed)
    labels = curves.labels
    place = _depth(run, curves, at, readout, level)
    order = order or class_order(run, curves)
    asked = comparable(None, level, labels) & (place.reading.said >= 0)
    counts = np.zeros((len(labels.fine_names),) * 2, np.int64)
    np.add.at(counts, (labels.fine[labels.test[asked]], place.reading.said[asked]), 1)
    return ConfusionMatrix(
        counts=counts[np.ix_(order.classes, order.classes)],
        classes=labels.fine_names[order.classes],
        blocks=tuple(_blocks(order, labels)),
        site=place.site,
        readout=place.readout,
        level=level,
    )


def side_by_side(*matrices: ConfusionMatrix) -> go.Figure:
    """Draw several matrices of one run in a row; they must share the order of classes."""
    return draw_matrices(matrices)


def _depth(run: Run, curves: LayerCurves, at: str, readout: str | None, level: Level) -> Depth:
    if at == "answer":
        answers = read_answers(run, curves.labels)
        if answers is None:
            raise RunIncomplete(f"{run.path} has no answers yet; `fgdiag answer {run.path}` asks the model.")
        return Depth("answer", "answer", "likelihood", answers[level])
    if readout is None:
        found = depth_at(curves, level, at, sites_of(curves).get(at, [at]))
        if found is not None:
            return found
        raise SiteNotFound.among(at, {site for site, _ in curves.readings})
    if (at, readout) not in curves.readings:
        known = ", ".join(f"{site}/{name}" for site, name in curves.readings if site == at)
        raise SiteNotFound(f"No readout {readout!r} at {at!r} in this run; it has {known or 'no such site'}.")
    return Depth(at, at, readout, curves.readings[at, readout][level])


def _blocks(order: ClassOrder, labels: Labels) -> list[tuple[str, int, int]]:
    named = "coarse" in labels.levels
    return [
        (str(labels.coarse_names[kind]) if named else "", start, end) for kind, start, end in order.blocks
    ]
