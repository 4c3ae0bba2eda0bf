"""The loss budget: what is still readable at each depth of the model, and the verdict on where it is lost.

At each depth the best of all readouts speaks, chosen on held-out training images: detail that moved from one
token to another is not lost. All depths are compared on the same test images. Before them stands what can be named
without the VLM's language model, behind them what the model says in words.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Self

import pandas as pd
import plotly.graph_objects as go

from fgdiag.sites import ATTENTION
from fgdiag.store import Run
from fgdiag_probes.answered import read_answers
from fgdiag_probes.budget_figure import draw_budget
from fgdiag_probes.curves import LayerCurves, probe_layers
from fgdiag_probes.depths import Depth, comparable, depth_at, depths_of, sites_of
from fgdiag_probes.drops import drops_between, scores_at
from fgdiag_probes.image_only import image_only_reference
from fgdiag_probes.labels import Level
from fgdiag_probes.stability import deal_anew
from fgdiag_probes.upper_bound import network as read_by_network
from fgdiag_probes.upper_bound import upper_chain
from fgdiag_probes.verdict import Verdict, judge, named
from fgdiag_probes.words import COLUMNS, steps_to_words


@dataclass(frozen=True)
class LossBudget:
    """What is left of the labels at each depth, and the drops between them.

    Attributes
    ----------
    drops
        One row a level and pair of consecutive depths: `from`, `to`, the `stage` in between, `drop` in points
        of accuracy with its 95 % interval (`low`, `high`; paired, clustered by fine class), `drop_bits`
        likewise, `p_value` (Holm-corrected over the drops of the level), `significant`, and `made_good`: a later
        depth rises significantly above `to` and is not significantly below `from`, so nothing was lost for good.
        `drop_nonlinear` and its interval: the same where the better of the linear probe and a small network
        speaks; `by_network`: whether it is the network at one end at least; `lost`: whether that is seen to fall
        too. Where it is not, it may fall unseen.
    depths
        One row a level and depth, and the pixel baseline: `site` and `readout` that speak for it, `accuracy`
        in [0, 1] with `low` and `high`, `bits`, `chance`, whether it is significantly `above_chance` and
        `above_pixels`, `gain_high`: by how much it may be above the better of the two (upper end of the 95 %
        interval), `nonlinear`: the accuracy of the better of the linear probe and a small network, and `by_network`:
        whether that is the network. `attended`: whether attention was learnt at `site`, though another readout may
        speak.
    verdict
        The stage that loses the fine detail, in one sentence.
    words
        One row a level and way of answering in words; see `fgdiag_probes.words.steps_to_words`. Empty where the model
        was asked for likelihoods only.
    """

    drops: pd.DataFrame
    depths: pd.DataFrame
    verdict: Verdict
    words: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS))

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read back what `loss_budget` kept; `RunIncomplete` where nothing is."""
        kept = run.read_json("verdict")
        drops, depths = pd.DataFrame(kept["budget"]), pd.DataFrame(kept["depths"])
        words = pd.DataFrame(kept.get("words") or [], columns=COLUMNS)
        return cls(drops, depths, Verdict.of_json(kept), words)

    def frame(self) -> pd.DataFrame:
        """Return the drops as a table; see `drops`."""
        return self.drops

    def json(self) -> dict[str, Any]:
        """Return the verdict, the budget (drops in points of accuracy) and the depths as plain values."""
        return {
            **self.verdict.json(),
            "budget": json.loads(str(self.drops.to_json(orient="records"))),
            "depths": json.loads(str(self.depths.to_json(orient="records"))),
            "words": json.loads(str(self.words.to_json(orient="records"))),
        }

    @property
    def heading(self) -> str:
        """The verdict in some words, which never claim more than its sentence."""
        stage, drop = named(self.drops, self.depths, str(self.drops["level"].iloc[0]))
        if stage == "none":
            words = "No significant loss"
        elif drop is None:
            words = f"Not readable after the {stage}"
        elif drop.get("lost", True):
            words = f"Lost in the {stage}"
        else:
            words = "Not said in the answer" if stage == "answer" else f"Harder to read after the {stage}"
        if self.verdict.stable or not self.verdict.agreeing:
            return words
        agreeing, deals = self.verdict.agreeing
        return f"{words} · not stable: {agreeing} of {deals} other deals agree"

    def figure(self, level: Level | None = None) -> go.Figure:
        """Draw the waterfall of a level: what is left at each depth, and what was lost on the way.

        Parameters
        ----------
        level
            Default: the finest there is, `fine|coarse` or else `fine`.
        """
        return draw_budget(self.depths, self.drops, self.words, level or str(self.depths["level"].iloc[0]))


def loss_budget(run: Run, *, seed: int = 0, network: bool = True, splits: bool = True) -> LossBudget:
    """Compare what linear probes and the model's answers name right, depth by depth, and judge.

    Probes the layers first where that was not done. Writes `results/verdict.json`. Without
    `results/answers.parquet` the budget ends at the last layer, and the verdict says so.

    Parameters
    ----------
    run
        An extracted run.
    seed
        See `probe_layers`.
    network
        Whether a small network reads the depths too. Without it, what a linear probe no longer reads counts as lost.
    splits
        Whether the images are also dealt anew, to see if the verdict is stable; see `deal_anew`.

    Raises
    ------
    ControlFailed
        See `probe_layers`.
    """
    curves = probe_layers(run, seed=seed)
    labels = curves.labels
    answers = read_answers(run, labels)
    drops, depths = [], []
    references = image_only_reference(run, seed=seed)
    for level in labels.levels:
        chain = depths_of(curves, answers, level)
        if level in references and chain and chain[0].name == "vision":
            chain = [references[level], *chain]
        upper = _upper(run, curves, chain, level, seed) if network else None
        asked = comparable(answers, level, labels)
        drops.append(drops_between(chain, labels, level, asked, upper))
        pixels = depth_at(curves, level, "pixels", ["pixels"])
        depths.append(scores_at([pixels, *chain] if pixels else chain, labels, level, asked, upper))
    drop_table, depth_table = pd.concat(drops, ignore_index=True), pd.concat(depths, ignore_index=True)
    depth_table["attended"] = [(site, ATTENTION) in curves.readings for site in depth_table["site"]]
    stability = deal_anew(run, curves, seed=seed) if splits else None
    words = steps_to_words(run, labels, answers) if answers else pd.DataFrame(columns=COLUMNS)
    verdict = judge(
        drop_table, depth_table, curves, answered=answers is not None, stability=stability, words=words
    )
    budget = LossBudget(drop_table, depth_table, verdict, words)
    run.write_json("verdict", budget.json())
    return budget


def _upper(run: Run, curves: LayerCurves, chain: list[Depth], level: Level, seed: int) -> list[Depth]:
    sites = sites_of(curves)
    pooled = [
        curves.best(level, sites[depth.name], pooled=True) if depth.name in sites else None for depth in chain
    ]
    return upper_chain(chain, pooled, level, lambda place: read_by_network(run, curves, place, seed=seed))
