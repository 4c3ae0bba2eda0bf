"""The marks that truly tell two species of the field guide apart, and whether small ones are the confused ones.

The field guide is drawn, so it is known by which parts two species differ and how much of the bird these take up.
Where a model confuses what differs little, pairs with small marks are confused most; where it confuses them whatever
the size, something else is at work, such as names that are likely anyhow.
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from scipy.stats import rankdata

from fgdiag.errors import ImagesNotUsable
from fgdiag.fieldguide import differing_parts, load_masks, species_named
from fgdiag.fieldguide.species import MARKED_PARTS
from fgdiag.prompts import spoken
from fgdiag.store import Run
from fgdiag_probes.confusion import SHOWN, confused_pairs
from fgdiag_probes.style import BLUE, GREEN, TEMPLATE, VERMILION

SHUFFLES = 4999


@dataclass(frozen=True)
class MarkSizes:
    """Pairs of species of one genus: how large the marks are that tell them apart, and how often they are confused.

    Attributes
    ----------
    table
        One row a pair: `first`, `second`, `genus`, `marks` in words, `parts`, how many parts differ, `size`, what
        these take up of the bird that can be seen (% of its pixels, mean of test images), and a column a depth:
        images of either species taken for the other there, in % of both.
    ranks
        One row a depth: `correlation`, Spearman's, of size and confusion over all pairs (below zero: small marks are
        confused more), and its two-sided `p_value`. Pairs share species, so species are shuffled within their genus
        to see what luck does (Mantel 1967).
    """

    table: pd.DataFrame
    ranks: pd.DataFrame

    def frame(self) -> pd.DataFrame:
        """Return the pairs as a table; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return pairs and rank correlations as plain values."""
        return {
            "pairs": json.loads(str(self.table.to_json(orient="records"))),
            "ranks": json.loads(str(self.ranks.to_json(orient="records"))),
        }

    def figure(self) -> go.Figure:
        """Draw how often a pair is confused against the size of its marks, a colour a depth."""
        figure = go.Figure(layout={"template": TEMPLATE})
        names = [
            f"{spoken(a)} / {spoken(b)}<br>{marks}"
            for a, b, marks in self.table[["first", "second", "marks"]].to_numpy()
        ]
        colours = dict(zip(SHOWN, (GREEN, BLUE, VERMILION), strict=True))
        for rank in self.ranks.to_dict("records"):
            luck = "p < 0.001" if rank["p_value"] < 0.001 else f"p = {rank['p_value']:.3f}"
            figure.add_scatter(
                x=self.table["size"],
                y=self.table[rank["depth"]],
                mode="markers",
                name=f"{rank['depth']} (rank correlation {rank['correlation']:.2f}, {luck})",
                text=names,
                hovertemplate="%{text}: %{y:.0f} %<extra></extra>",
                marker={"color": colours[rank["depth"]], "size": 8, "opacity": 0.6},
            )
        return figure.update_layout(
            title_text="Are small marks confused more?",
            xaxis={"title_text": "parts that differ (% of the bird)", "rangemode": "tozero"},
            yaxis={"title_text": "taken for one another (% of test images)", "rangemode": "tozero"},
            legend={"orientation": "v"},
            margin={"t": 120},
            hovermode="closest",
        )


def marks_between(first: str, second: str) -> str | None:
    """Say by which marks two species of the field guide differ; None where one is none.

    Examples
    --------
    >>> marks_between("Ringed-Larkfinch", "Barred-Larkfinch")
    'eye ring white / plain, wing plain / bars'
    >>> marks_between("Ringed-Larkfinch", "Ringed-Mossthrush")
    'all parts: Larkfinch / Mossthrush'
    """
    try:
        one, other = species_named(first), species_named(second)
    except KeyError:
        return None
    if one.genus != other.genus:
        return f"all parts: {one.genus} / {other.genus}"
    return ", ".join(
        f"{part.replace('_', ' ')} {one.marks[part]} / {other.marks[part]}"
        for part in differing_parts(one, other)
    )


def mark_sizes(run: Run, *, seed: int = 0) -> MarkSizes:
    """Compare how often species are confused with the size of the marks that tell them apart.

    Parameters
    ----------
    run
        A run on a field guide that still lies where it was drawn; its masks are read.
    seed
        See `probe_layers`; also of the shuffles.

    Raises
    ------
    ImagesNotUsable
        The images are no field guide, or it is not there any more.
    """
    confused = confused_pairs(run, seed=seed)
    depths = [name for name in SHOWN if name in confused.table]
    areas = _areas(run)
    counts = {(row["truth"], row["said"]): row for row in confused.table.to_dict("records")}
    tested = Counter(run.images.query("split == 'test' and status == 'ok'")["fine"])
    rows = []
    for first, second in _pairs(areas):
        parts = differing_parts(species_named(first), species_named(second))
        both = [counts.get(pair) for pair in ((first, second), (second, first))]
        images = tested[first] + tested[second]
        rows.append(
            {
                "first": first,
                "second": second,
                "genus": species_named(first).genus,
                "marks": marks_between(first, second),
                "parts": len(parts),
                "size": 50 * sum(areas[name][part] for name in (first, second) for part in parts),
                **{
                    depth: 100 * sum(row[depth] for row in both if row is not None) / images
                    for depth in depths
                },
            }
        )
    table = pd.DataFrame(rows)
    ranks = [{"depth": depth, **_rank_correlation(table, depth, seed)} for depth in depths]
    return MarkSizes(table, pd.DataFrame(ranks))


def _pairs(areas: dict[str, dict[str, float]]) -> list[tuple[str, str]]:
    names = sorted(areas)
    return [
        (first, second)
        for at, first in enumerate(names)
        for second in names[at + 1 :]
        if species_named(first).genus == species_named(second).genus
    ]


def _areas(run: Run) -> dict[str, dict[str, float]]:
    """For each species how much of the bird each part takes up, as a share of what can be seen of it."""
    guide = Path(run.manifest["images"]["source"])
    tested = run.images.query("split == 'test' and status == 'ok'")
    found: dict[str, list[dict[str, float]]] = {}
    for name, source in tested[["fine", "source"]].itertuples(index=False):
        if marks_between(name, name) is None:
            raise ImagesNotUsable(
                f"{name!r} is no species of the field guide, so its marks are not known; expected a run on images of "
                "`fgdiag fieldguide` or `fgdiag demo`."
            )
        path = Path(source)
        masks = load_masks(guide, str(path.relative_to(guide) if path.is_absolute() else path))
        bird = max(1, int(masks["bird"].sum()))
        found.setdefault(name, []).append({part: masks[part].sum() / bird for part in MARKED_PARTS})
    return {
        name: {part: float(np.mean([one[part] for one in seen])) for part in MARKED_PARTS}
        for name, seen in found.items()
    }


def _rank_correlation(table: pd.DataFrame, depth: str, seed: int) -> dict[str, float]:
    """Spearman's correlation, and how many shuffles of the species within their genus reach it."""
    species = {name: at for at, name in enumerate(sorted({*table["first"], *table["second"]}))}
    first, second = (np.array([species[name] for name in table[end]]) for end in ("first", "second"))
    size, confused = (_centred_ranks(table[name].to_numpy(float)) for name in ("size", depth))
    square = np.zeros((len(species),) * 2)
    square[first, second] = square[second, first] = size
    genus = np.array([species_named(name).genus for name in species])
    rng, shuffled = np.random.default_rng(seed), np.empty(SHUFFLES)
    for at in range(SHUFFLES):
        order = np.arange(len(species))
        for one in np.unique(genus):
            members = np.flatnonzero(genus == one)
            order[members] = rng.permutation(members)
        shuffled[at] = square[order[first], order[second]] @ confused
    scale = float(np.sqrt((size @ size) * (confused @ confused)))
    seen = float(size @ confused)
    reached = int((np.abs(shuffled) >= abs(seen) - 1e-9).sum())
    return {"correlation": seen / scale if scale else 0.0, "p_value": (reached + 1) / (SHUFFLES + 1)}


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    ranks = rankdata(values)
    return ranks - ranks.mean()
