"""Which classes are taken for which others, at the encoder, at the last layer and in the answers."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag.errors import SiteNotFound
from fgdiag.store import Run
from fgdiag_probes.answered import read_answers
from fgdiag_probes.curves import probe_layers
from fgdiag_probes.depths import Depth, comparable, depth_at, depths_of
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.style import BLUE, GREEN, GREY, ORANGE, TEMPLATE, VERMILION

SHOWN = ("vision", "last llm layer", "answer")
EXAMPLES = 6
"""Test images remembered a pair."""


@dataclass(frozen=True)
class ConfusedPairs:
    """Ordered pairs of classes, most confused first.

    Attributes
    ----------
    table
        One row a pair: images of `truth`, of kind `coarse`, taken for `said`. `images` is the number of test
        images of `truth`; a column a depth (`vision`, `last llm layer`, `answer`) how many were taken for
        `said` there; `rows` are some rows of the run so confused at the ranking depth.
    level
        Level of the confusions: `fine|coarse` (among look-alikes) where there are kinds, else `fine`.
    ranked_by
        The depth or site by which the pairs are ordered.
    """

    table: pd.DataFrame
    level: Level
    ranked_by: str

    def frame(self) -> pd.DataFrame:
        """Return the pairs as a table; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return the pairs as plain values."""
        pairs = json.loads(str(self.table.to_json(orient="records")))
        return {"level": self.level, "ranked_by": self.ranked_by, "pairs": pairs}

    def figure(self, top: int = 10) -> go.Figure:
        """Draw how often the `top` pairs are confused at each depth, in % of the images of the true class."""
        rows = self.table.head(top).iloc[::-1]
        pairs = [f"{truth} → {said}" for truth, said in zip(rows["truth"], rows["said"], strict=True)]
        figure = go.Figure(layout={"template": TEMPLATE})
        depths = [name for name in dict.fromkeys([*SHOWN, self.ranked_by]) if name in rows]
        shares = 100 * rows[depths].to_numpy(float) / rows[["images"]].to_numpy(float)
        for y, across in enumerate(shares):
            figure.add_scatter(
                x=[across.min(), across.max()],
                y=[pairs[y]] * 2,
                mode="lines",
                line={"color": GREY, "width": 1},
                hoverinfo="skip",
                showlegend=False,
            )
        for name, share, colour in zip(depths, shares.T, (GREEN, BLUE, VERMILION, ORANGE), strict=False):
            figure.add_scatter(
                x=share,
                y=pairs,
                mode="markers",
                name=name,
                marker={"size": 10, "color": colour},
                hovertemplate="%{x:.0f} %",
            )
        return figure.update_layout(
            title_text="Most often taken for another",
            xaxis={
                "title_text": "taken for the other (% of test images)",
                "range": [-3, 1.06 * shares.max(initial=10)],
            },
            yaxis={"type": "category"},
            hovermode="y unified",
            height=160 + 34 * max(1, len(rows)),
        )


def confused_pairs(run: Run, *, site: str | None = None, seed: int = 0) -> ConfusedPairs:
    """Count which fine classes are taken for which, at the encoder, at the last layer and in the answers.

    Parameters
    ----------
    run
        An extracted run; probed first where that was not done.
    site
        Rank the pairs by what the best readout of this site says. Default: by the answers, or without them by
        the last layer.
    seed
        See `probe_layers`.

    Raises
    ------
    SiteNotFound
        The run has no such site.
    """
    curves = probe_layers(run, seed=seed)
    labels, level = curves.labels, curves.labels.levels[0]
    answers = read_answers(run, labels)
    depths = [depth for depth in depths_of(curves, answers, level) if depth.name in SHOWN]
    if site is not None:
        chosen = depth_at(curves, level, site, [site])
        if chosen is None:
            raise SiteNotFound.among(site, {name for name, _ in curves.readings})
        depths.append(chosen)
    counts = _count(depths, labels, comparable(answers, level, labels))
    return ConfusedPairs(counts, level, depths[-1].name)


def _count(depths: list[Depth], labels: Labels, asked: np.ndarray) -> pd.DataFrame:
    tested = labels.test[asked]
    truth = labels.fine[tested]
    said = {depth.name: depth.reading.said[asked] for depth in depths}
    ranked_by = depths[-1].name
    size = len(labels.fine_names)
    confusion = {name: np.zeros((size, size), np.int64) for name in said}
    for name, codes in said.items():
        known = codes >= 0
        np.add.at(confusion[name], (truth[known], codes[known]), 1)
    errors = sum(confusion.values()) * ~np.eye(size, dtype=bool)
    pairs = [(int(a), int(b)) for a, b in np.argwhere(errors)]
    rows = [
        {
            "truth": str(labels.fine_names[a]),
            "said": str(labels.fine_names[b]),
            "coarse": str(labels.coarse_names[labels.coarse[tested[truth == a][0]]]),
            "images": int((truth == a).sum()),
            **{name: int(matrix[a, b]) for name, matrix in confusion.items()},
            "rows": tested[(truth == a) & (said[ranked_by] == b)][:EXAMPLES].tolist(),
        }
        for a, b in pairs
    ]
    columns = ["truth", "said", "coarse", "images", *confusion, "rows"]
    order = [ranked_by, *(name for name in confusion if name != ranked_by)]
    return pd.DataFrame(rows, columns=columns).sort_values(
        order, ascending=False, kind="stable", ignore_index=True
    )
