"""Maps of what in a picture a score rests on, with the checks that tell whether they can be believed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.faithfulness import ALIKE, Faithfulness, OnMarks
from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.kept_arrays import read_arrays, write_arrays
from fgdiag_probes.map_figure import STRONGEST, draw_checks, draw_map
from fgdiag_probes.map_methods import ENTRY_WORDS, METHODS
from fgdiag_probes.substitution import Entry

FEWEST_CLASSES = 5
"""True classes from which on intervals are about classes; with fewer they are about pictures of these."""


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

    def figure(self, *, beside: bool = True) -> go.Figure:
        """Draw the map over the picture, by default with the picture beside it."""
        return draw_map(self, beside=beside)

    def json(self) -> dict[str, Any]:
        """Return everything but the cells and the picture as plain values."""
        kept = {name: one for name, one in vars(self).items() if name not in ("values", "picture")}
        checks = {name: kept[name].json() if kept[name] else None for name in ("faithfulness", "on_marks")}
        return kept | {"classes": list(self.classes)} | checks

    def save(self, path: Path, key: str) -> None:
        """Write a map whole or not at all; `key` says what it was made from."""
        write_arrays(path, key, self.json(), {"values": self.values, "picture": self.picture})

    @classmethod
    def read(cls, path: Path, key: str | None = None) -> Self | None:
        """Read back what `save` wrote; None where there is nothing, or it was made from something else than `key`."""
        kept = read_arrays(path, key)
        if kept is None:
            return None
        about, arrays = kept
        about["classes"] = tuple(about["classes"])
        if about["faithfulness"]:
            about["faithfulness"] = Faithfulness.of_json(about["faithfulness"])
        if about["on_marks"]:
            about["on_marks"] = OnMarks(**about["on_marks"])
        return cls(arrays["values"], arrays["picture"], **about)


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
