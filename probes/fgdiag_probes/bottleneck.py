"""The loss budget: what is still readable at each depth of the model, and the verdict on where it is lost.

At each depth the best of all readouts speaks, chosen on held-out training images: detail that moved from one
token to another is not lost. All depths are compared on the same test images.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.store import Run
from fgdiag_probes.answered import read_answers
from fgdiag_probes.budget_figure import draw_budget
from fgdiag_probes.curves import probe_layers
from fgdiag_probes.depths import LOSING_STAGE, Depth, comparable, depth_at, depths_of
from fgdiag_probes.intervals import clustered_means, holm
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.verdict import SIGNIFICANT, Verdict, judge


@dataclass(frozen=True)
class LossBudget:
    """What is left of the labels at each depth, and the drops between them.

    Attributes
    ----------
    drops
        One row a level and pair of consecutive depths: `from`, `to`, the `stage` in between, `drop` in points
        of accuracy with its 95 % interval (`low`, `high`; paired, bootstrap clustered by fine class),
        `drop_bits` likewise, `p_value` (Holm-corrected over the drops of the level), `significant`, and
        `made_good`: a later depth is not significantly below `from`, so nothing was lost for good.
    depths
        One row a level and depth, and the pixel baseline: `site` and `readout` that speak for it, `accuracy`
        in [0, 1] with `low` and `high`, `bits`, `chance`, and whether it is significantly `above_chance` and
        `above_pixels`.
    verdict
        The stage that loses the fine detail, in one sentence.
    """

    drops: pd.DataFrame
    depths: pd.DataFrame
    verdict: Verdict

    def frame(self) -> pd.DataFrame:
        """Return the drops as a table; see `drops`."""
        return self.drops

    def json(self) -> dict[str, Any]:
        """Return the verdict, the budget (drops in points of accuracy) and the depths as plain values."""
        return {
            **self.verdict.json(),
            "budget": json.loads(str(self.drops.to_json(orient="records"))),
            "depths": json.loads(str(self.depths.to_json(orient="records"))),
        }

    def figure(self) -> go.Figure:
        """Draw the accuracy left at each depth, a line a level, with the drops written between."""
        return draw_budget(self.depths, self.drops)


def loss_budget(run: Run, *, seed: int = 0) -> LossBudget:
    """Compare what linear probes and the model's answers name right, depth by depth, and judge.

    Probes the layers first where that was not done. Writes `results/verdict.json`. Without
    `results/answers.parquet` the budget ends at the last layer, and the verdict says so.

    Parameters
    ----------
    run
        An extracted run.
    seed
        See `probe_layers`.

    Raises
    ------
    ControlFailed
        See `probe_layers`.
    """
    curves = probe_layers(run, seed=seed)
    labels = curves.labels
    answers = read_answers(run, labels)
    drops, depths = [], []
    for level in labels.levels:
        chain = depths_of(curves, answers, level)
        asked = comparable(answers, level, labels)
        drops.append(_drops(chain, labels, level, asked, seed))
        pixels = depth_at(curves, level, "pixels", ["pixels"])
        depths.append(_scores([pixels, *chain] if pixels else chain, labels, level, asked, seed))
    drop_table, depth_table = pd.concat(drops, ignore_index=True), pd.concat(depths, ignore_index=True)
    fed = bool(run.manifest.get("class_token_fed", True))
    verdict = judge(drop_table, depth_table, curves, answered=answers is not None, class_token_fed=fed)
    budget = LossBudget(drop_table, depth_table, verdict)
    run.write_json("verdict", budget.json())
    return budget


def _drops(
    chain: Sequence[Depth], labels: Labels, level: Level, asked: np.ndarray, seed: int
) -> pd.DataFrame:
    correct = np.stack([depth.reading.correct(labels, level)[asked] for depth in chain])
    bits = np.stack([depth.reading.bits[asked] for depth in chain])
    pairs = [(i, j) for i in range(len(chain)) for j in range(i + 1, len(chain))]
    first, second = (list(side) for side in zip(*pairs, strict=True))
    clusters = labels.fine[labels.test][asked]
    fall = clustered_means(100 * (correct[first] - correct[second]), clusters, seed=seed)
    rise = clustered_means(bits[second] - bits[first], clusters, seed=seed)
    at = [pairs.index((i, i + 1)) for i in range(len(chain) - 1)]
    p_value = holm(fall.p_value[at])
    lasting = (fall.p_value < SIGNIFICANT) & (fall.mean > 0)
    made_good = [
        any(not lasting[pairs.index((i, j))] for j in range(i + 2, len(chain))) for i in range(len(chain) - 1)
    ]
    return pd.DataFrame(
        {
            "level": level,
            "from": [depth.name for depth in chain[:-1]],
            "to": [depth.name for depth in chain[1:]],
            "stage": [LOSING_STAGE[depth.name] for depth in chain[1:]],
            "drop": fall.mean[at],
            "low": fall.low[at],
            "high": fall.high[at],
            "drop_bits": rise.mean[at],
            "low_bits": rise.low[at],
            "high_bits": rise.high[at],
            "p_value": p_value,
            "significant": (p_value < SIGNIFICANT) & (fall.mean[at] > 0),
            "made_good": made_good,
        }
    )


def _scores(
    chain: Sequence[Depth], labels: Labels, level: Level, asked: np.ndarray, seed: int
) -> pd.DataFrame:
    clusters = labels.fine[labels.test][asked]
    correct = np.stack([depth.reading.correct(labels, level)[asked] for depth in chain])
    chance, chance_bits = labels.chance[level]
    pixels = correct[0] if chain[0].name == "pixels" else np.full(correct.shape[1], chance)
    accuracy = clustered_means(correct, clusters, seed=seed)
    above_chance = clustered_means(correct - chance, clusters, seed=seed)
    above_pixels = clustered_means(correct - pixels, clusters, seed=seed)
    return pd.DataFrame(
        {
            "level": level,
            "depth": [depth.name for depth in chain],
            "site": [depth.site for depth in chain],
            "readout": [depth.readout for depth in chain],
            "accuracy": accuracy.mean,
            "low": accuracy.low.clip(0, 1),
            "high": accuracy.high.clip(0, 1),
            "bits": [depth.reading.bits[asked].mean() for depth in chain],
            "chance": chance,
            "chance_bits": chance_bits,
            "above_chance": (above_chance.p_value < SIGNIFICANT) & (above_chance.mean > 0),
            "above_pixels": (above_pixels.p_value < SIGNIFICANT) & (above_pixels.mean > 0),
            "images": int(asked.sum()),
        }
    )
