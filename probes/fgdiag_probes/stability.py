"""Whether the verdict hangs on how the images happened to be dealt into training and test images.

All images are dealt anew several times, the depths are probed on each deal, and each deal is judged by itself.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import torch

from fgdiag.progress import track
from fgdiag.store import Run
from fgdiag_probes.answered import read_answers
from fgdiag_probes.curves import LayerCurves, Place, key_of, resolution_of
from fgdiag_probes.depths import Depth, comparable, sites_of
from fgdiag_probes.drops import drops_between, scores_at
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.linear import PENALTIES, STRONGER, WEAKER, Basis
from fgdiag_probes.reading import Reading
from fgdiag_probes.solver import follow
from fgdiag_probes.verdict import named

SPLITS = 10
TOLERANCE = 1e-4
METHOD = f"2: {SPLITS} splits to {TOLERANCE}"


@dataclass(frozen=True)
class Stability:
    """What other deals of the same images say.

    Attributes
    ----------
    stages
        The stage named by each deal.
    table
        One row a deal and depth: `split`, `depth`, `accuracy` in [0, 1], on how many `images`.
    """

    stages: tuple[str, ...]
    table: pd.DataFrame

    @classmethod
    def read(cls, run: Run) -> Self:
        """Read back what `deal_anew` kept; `RunIncomplete` where nothing is."""
        kept = run.read_json("stability")
        return cls(tuple(kept["stages"]), pd.DataFrame(kept["splits"]))

    def agreeing(self, stage: str) -> int:
        """Return how many deals name a stage."""
        return Counter(self.stages)[stage]

    def frame(self) -> pd.DataFrame:
        """One row a depth: mean `accuracy` over the deals, and the `spread` between them (standard deviation)."""
        by_depth = self.table.groupby("depth", sort=False)["accuracy"]
        return pd.DataFrame({"accuracy": by_depth.mean(), "spread": by_depth.std()}).reset_index()

    def json(self) -> dict[str, Any]:
        """Return the stages and the accuracies as plain values."""
        return {"stages": list(self.stages), "splits": json.loads(str(self.table.to_json(orient="records")))}


def deal_anew(run: Run, curves: LayerCurves, *, seed: int = 0) -> Stability:
    """Judge other deals of the images, as large as the given one; what was judged before is read back.

    At each depth the recorded readout speaks that is best on the given training images, with its penalty; so far
    the deals lean on the given one. Attention is left out: it would have to be learnt anew for each. Probed
    depths are compared on all test images of a deal. The model's answers are known for the given test images only, so
    the step to the answer is judged on those of them that the deal tests too: few, where few images are tested.

    Parameters
    ----------
    seed
        The first deal has the seed after this one.
    """
    level = curves.labels.levels[0]
    places = {
        name: place
        for name, sites in {"pixels": ["pixels"], **sites_of(curves)}.items()
        if (place := curves.best(level, sites, pooled=True))
    }
    key = _key(run, seed, places)
    if run.result_path("stability.json").exists() and run.read_json("stability")["key"] == key:
        return Stability.read(run)
    deals = [curves.labels.resplit(seed + number) for number in range(1, SPLITS + 1)]
    todo = list(dict.fromkeys(places.values()))
    readings = {
        place: list(_read(run, curves, place, deals, level))
        for place in track(todo, description="dealing the images anew", total=len(todo), unit="readouts")
    }
    stages, rows = [], []
    for number, deal in enumerate(deals):
        chain = [Depth(name, *place, readings[place][number]) for name, place in places.items()]
        stage, scores = _judge(run, chain, deal, level)
        stages.append(stage)
        rows.append(scores[["depth", "accuracy", "images"]].assign(split=number))
    found = Stability(tuple(stages), pd.concat(rows, ignore_index=True))
    run.write_json("stability", {"key": key, **found.json()})
    return found


def _key(run: Run, seed: int, places: Mapping[str, Place]) -> str:
    answered = run.result_path("answers.parquet").exists()
    made_of = json.dumps([METHOD, key_of(run, seed), list(places.items()), answered])
    return hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()


def _read(
    run: Run, curves: LayerCurves, place: Place, deals: Sequence[Labels], level: Level
) -> Iterator[Reading]:
    """Probe one place on every deal, all in one batch: they share the images and differ in whom they see."""
    choice = curves.readings[place][level].choice
    used = np.sort(np.concatenate([curves.labels.train, curves.labels.test]))
    features = run.activations(*place)[used]
    basis = Basis.of(features, resolution=resolution_of(run, place[0]))
    shown = torch.stack([torch.from_numpy(np.isin(used, deal.train)).float() for deal in deals])
    codes = torch.from_numpy(curves.labels.fine[used])
    path = [one for one in (*STRONGER, *PENALTIES, *WEAKER) if choice and choice.penalty <= one <= 1.0]
    shares = shown / shown.sum(1, keepdim=True)
    classes = len(curves.labels.fine_names)
    *_, last = follow(
        basis.design, codes, shares, path or [PENALTIES[0]], classes, tolerance=TOLERANCE, max_steps=400
    )
    for deal, weights in zip(deals, last.weights, strict=True):
        logits = basis.design[torch.from_numpy(np.isin(used, deal.test))] @ weights.T
        yield Reading.of_logits(logits.numpy(), deal, level, deal.test)


def _judge(run: Run, chain: list[Depth], deal: Labels, level: Level) -> tuple[str, pd.DataFrame]:
    asked = comparable(None, level, deal)
    scores = scores_at(chain, deal, level, asked)
    answers = read_answers(run, deal)
    if answers is not None and (answered := comparable(answers, level, deal)).any():
        answer = Depth("answer", "answer", "likelihood", answers[level])
        chain = [*chain, answer]
        scores = pd.concat([scores, scores_at([answer], deal, level, answered)], ignore_index=True)
    drops = drops_between([depth for depth in chain if depth.name != "pixels"], deal, level, asked)
    return named(drops, scores, level)[0], scores
