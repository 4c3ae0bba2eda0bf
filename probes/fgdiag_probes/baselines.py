"""Image-only baselines: how far what the VLM answers stays behind what plain readers see in the same images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import FgdiagError, RunIncomplete
from fgdiag.image_features import record_features
from fgdiag.image_models import ImageModel
from fgdiag.image_set import ImageSet
from fgdiag.store import Run
from fgdiag_probes.answered import read_answers
from fgdiag_probes.baseline_figures import draw_accuracies, draw_gaps
from fgdiag_probes.depths import comparable
from fgdiag_probes.image_only import Baseline, best_reference, read_baselines
from fgdiag_probes.intervals import accuracies, clustered_means, holm
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Readings
from fgdiag_probes.zero_shot import embed_names

VLM = "the VLM's answer"
GAP_COLUMNS = [
    *("level", "model", "readout", "method", "reference", "by", "of", "images", "fine_classes"),
    *("accuracy", "vlm_accuracy", "gap", "low", "high", "p_value"),
]


@dataclass(frozen=True)
class Baselines:
    """Accuracy of image-only baselines, and the gap between each and the VLM's own answers.

    Attributes
    ----------
    table
        One row a level and baseline, `model`, `readout`, `method`, and one for `the VLM's answer` where it has
        answered. `accuracy` in [0, 1] with its 95 % interval (`low`, `high`; clustered by fine class), `bits`,
        `chance`, `images`. `gap`: by how many points the baseline names more images right than the VLM, paired on
        the same images, with `gap_low`, `gap_high` and `p_value` (Holm-corrected over the baselines of the level).
        `cv_accuracy`: on held-out training images. `reference`: whether it is the image-only reference.
    gaps
        The gap by class: one row a level, baseline, and class; `by` says whether `of` is a coarse or a fine class.
        `images`, `fine_classes` they are of, `accuracy`, `vlm_accuracy`, `gap` in points with `low`, `high`,
        `p_value` (Holm-corrected over the classes). Empty where the VLM has not answered. Intervals of
        a coarse class are clustered by its fine classes; of a fine class, or of a coarse class with a single fine
        one, they are those of images. `reference`: see `table`.
    labels
        Who was trained and tested.
    """

    table: pd.DataFrame
    gaps: pd.DataFrame
    labels: Labels

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read back what `compare_baselines` kept; `RunIncomplete` where nothing was compared."""
        labels = Labels.of(run, seed=run.manifest["seed"])
        return cls(run.read_table("baselines"), run.read_table("baseline_gaps"), labels)

    def frame(self) -> pd.DataFrame:
        """Return the accuracies and gaps over all test images; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return both tables as plain values."""
        return {
            "baselines": json.loads(str(self.table.to_json(orient="records"))),
            "gaps": json.loads(str(self.gaps.to_json(orient="records"))),
        }

    def worst(self, level: Level | None = None, *, by: Level | None = None, top: int = 10) -> pd.DataFrame:
        """Return the classes in which the VLM stays furthest behind the reference; rows of `gaps`.

        Parameters
        ----------
        level
            Default: the finest there is, `fine|coarse` or else `fine`.
        by
            `coarse` or `fine`. Default: coarse classes where there are any.
        """
        level = level or self.labels.levels[0]
        by = by or ("coarse" if "coarse" in self.labels.levels else "fine")
        asked = (self.gaps["level"] == level) & (self.gaps["by"] == by) & self.gaps["reference"].astype(bool)
        rows = self.gaps.loc[asked]
        return rows.iloc[np.argsort(-rows["gap"].to_numpy(float), kind="stable")[:top]].reset_index(drop=True)

    def figure(self, level: Level | None = None) -> go.Figure:
        """Draw the accuracy of each baseline with its interval, and the VLM's as a line.

        Parameters
        ----------
        level
            Default: the finest there is, `fine|coarse` or else `fine`.
        """
        level = level or self.labels.levels[0]
        return draw_accuracies(self.table.query("level == @level"), level, vlm=VLM)

    def gap_figure(self, level: Level | None = None, *, by: Level | None = None, top: int = 20) -> go.Figure:
        """Draw the classes in which the VLM stays furthest behind the image-only reference.

        Parameters
        ----------
        level, by, top
            As in `worst`.
        """
        level = level or self.labels.levels[0]
        return draw_gaps(self.worst(level, by=by, top=top), level)


def compare_baselines(
    run: Run,
    models: Sequence[ImageModel] = (),
    images: ImageSet | None = None,
    *,
    templates: Sequence[str] | None = None,
    seed: int = 0,
) -> Baselines:
    """Read a run's images without its language model, and compare with what the VLM answered.

    Reads the VLM's own encoder and the pixels as they are recorded, and every image model that the images were
    ever shown to; `models` are shown them first. Writes `results/baselines.parquet`,
    `results/baseline_gaps.parquet`, `results/baselines.json` and what it was made of under `results/baselines/`.

    Parameters
    ----------
    run
        An extracted run. Without `results/answers.parquet` there are accuracies and no gaps.
    models
        Image models to compare with.
    images
        The images of the run, row by row; needed for `models`.
    templates
        Phrasings of a class name for models that read texts; see `fgdiag_probes.zero_shot.embed_names`.
    seed
        Of the cross-validation folds.

    Raises
    ------
    FgdiagError
        There are models but no images.
    """
    labels = Labels.of(run, seed=seed)
    for model in models:
        if images is None:
            raise FgdiagError("Image models were given but no images; give those that the run was made of.")
        features = record_features(run, model, images)
        if model.reads_texts:
            embed_names(model, features, labels, templates)
    found = read_baselines(run, labels, seed=seed)
    if not found:
        raise RunIncomplete(
            f"{run.path} recorded nothing that could be read without the language model; name an image model (--model)."
        )
    answers = read_answers(run, labels)
    table = pd.concat([_scores(level, found, answers, labels) for level in labels.levels], ignore_index=True)
    gaps = pd.concat(
        [_gaps_by_class(level, found, answers, labels) for level in labels.levels], ignore_index=True
    )
    baselines = Baselines(table, gaps, labels)
    run.write_table("baselines", table)
    run.write_table("baseline_gaps", gaps)
    run.write_json("baselines", baselines.json())
    return baselines


def _scores(level: Level, found: list[Baseline], answers: Readings | None, labels: Labels) -> pd.DataFrame:
    asked = comparable(answers, level, labels)
    clusters = labels.fine[labels.test][asked]
    readings = [one.readings[level] for one in found]
    correct = np.stack([one.correct(labels, level)[asked] for one in readings])
    table = _named(found, level).assign(
        **accuracies(correct, clusters),
        bits=[one.bits[asked].mean() for one in readings],
        chance=labels.chance[level][0],
        images=int(asked.sum()),
        cv_accuracy=[one.choice.accuracy if one.choice else np.nan for one in readings],
    )
    if answers is None:
        return table.assign(gap=np.nan, gap_low=np.nan, gap_high=np.nan, p_value=np.nan)
    answered = answers[level].correct(labels, level)[asked]
    gap = clustered_means(100 * (correct - answered), clusters, step=100.0)
    table = table.assign(gap=gap.mean, gap_low=gap.low, gap_high=gap.high, p_value=holm(gap.p_value))
    vlm = {
        "level": level,
        "model": VLM,
        "readout": "answer",
        "method": "likelihood",
        "reference": False,
        **accuracies(answered[None], clusters),
        "bits": answers[level].bits[asked].mean(),
        "chance": labels.chance[level][0],
        "images": int(asked.sum()),
    }
    return pd.concat([table, pd.DataFrame(vlm)], ignore_index=True)


def _named(found: list[Baseline], level: Level) -> pd.DataFrame:
    """One row a baseline: what it is, and whether it is the reference of the level."""
    rivals = [one for one in found if one.is_reference]
    best = best_reference(rivals, level).reading if rivals else None
    return pd.DataFrame(
        {
            "level": level,
            "model": [one.model for one in found],
            "readout": [one.readout for one in found],
            "method": [one.method for one in found],
            "reference": [one.readings[level] is best for one in found],
        }
    )


def _gaps_by_class(
    level: Level, found: list[Baseline], answers: Readings | None, labels: Labels
) -> pd.DataFrame:
    if answers is None:
        return pd.DataFrame(columns=GAP_COLUMNS)
    asked = comparable(answers, level, labels)
    tested = labels.test[asked]
    correct = np.stack([one.readings[level].correct(labels, level)[asked] for one in found])
    answered = answers[level].correct(labels, level)[asked]
    rows = []
    for by in ("coarse", "fine") if "coarse" in labels.levels else ("fine",):
        codes, names = labels.codes(by)[tested], labels.names(by)
        for code in np.unique(codes):
            mine = codes == code
            behind = 100 * (correct - answered)[:, mine]
            rows.append(
                _named(found, level).assign(
                    by=by,
                    of=str(names[code]),
                    images=int(mine.sum()),
                    accuracy=correct[:, mine].mean(1),
                    vlm_accuracy=answered[mine].mean(),
                    **_gaps(behind, labels.fine[tested][mine]),
                )
            )
    table = pd.concat(rows, ignore_index=True)
    families = table.groupby(["model", "method", "by"], sort=False)["p_value"]
    return table.assign(p_value=families.transform(lambda p: holm(p.to_numpy()))).loc[:, GAP_COLUMNS]


def _gaps(behind: np.ndarray, fine: np.ndarray) -> dict[str, Any]:
    """Mean gap in one class, in points; (baselines, images) by how much the VLM is behind on each image.

    Clustered by fine class; where there is but one, images are what is counted.
    """
    classes = len(np.unique(fine))
    gap = clustered_means(behind, fine if classes > 1 else np.arange(len(fine)), step=100.0)
    low, high = gap.low.clip(-100, 100), gap.high.clip(-100, 100)
    return {"fine_classes": classes, "gap": gap.mean, "low": low, "high": high, "p_value": gap.p_value}
