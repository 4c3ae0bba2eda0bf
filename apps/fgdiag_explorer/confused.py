"""Which classes are taken for which, from what every place said of each test image."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from fgdiag_probes.confusion_matrix import ConfusionMatrix
from fgdiag_probes.curves import Place
from fgdiag_probes.labels import Labels, Level
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from fgdiag_explorer.results import Results

EXAMPLES = 6


def counts(results: Results, place: Place, level: Level) -> np.ndarray:
    """(classes, classes) images of a class named as another, at one place; codes of the level."""
    labels = results.labels
    said, truth = results.reading(place, level).said, labels.codes(level)[labels.test]
    size = len(labels.names(level))
    known = said >= 0
    return np.bincount(truth[known] * size + said[known], minlength=size * size).reshape(size, size)


def matrix_at(results: Results, site: str, level: Level, kinds: Sequence[str] = ()) -> ConfusionMatrix | None:
    """Return what is named for what at a site, classes in the order of similarity.

    Parameters
    ----------
    kinds
        Keep fine classes of these coarse classes; all where there are none.

    Returns
    -------
    ConfusionMatrix or None
        None where fewer than two classes are left to confuse.
    """
    labels, place = results.labels, results.best(level, site)
    kept = results.order(level)
    kind_of = labels.siblings.argmax(0)
    if level != "coarse":
        wanted = (
            np.isin(labels.coarse_names, list(kinds)) if kinds else np.ones(len(labels.coarse_names), bool)
        )
        if level == "fine|coarse":
            wanted &= labels.siblings.sum(1) > 1
        kept = kept[wanted[kind_of[kept]]]
    if len(kept) < 2:
        return None
    return ConfusionMatrix(
        counts=counts(results, place, level)[np.ix_(kept, kept)],
        classes=labels.names(level)[kept],
        blocks=() if level == "coarse" or "coarse" not in labels.levels else _blocks(kind_of[kept], labels),
        site=place[0],
        readout=place[1],
        level=level,
    )


def _blocks(kinds: np.ndarray, labels: Labels) -> tuple[tuple[str, int, int], ...]:
    ends = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    return tuple((str(labels.coarse_names[kinds[start]]), start, end) for start, end in pairwise(ends))


def in_order(results: Results, level: Level) -> np.ndarray:
    """Codes of the classes, those side by side that are taken for one another at the depths; kinds stay together."""
    places = [
        place for (asked, depth), place in results.depths.items() if asked == level and depth != "pixels"
    ]
    if not places:
        places = [results.best(level, site) for site in results.sites[-1:]]
    total = np.sum([counts(results, place, level) for place in places], axis=0)
    alike = total + total.T
    if level == "coarse" or "coarse" not in results.labels.levels:
        return _leaves(alike)
    siblings = results.labels.siblings
    kinds = _leaves(siblings @ alike @ siblings.T)
    members = [np.flatnonzero(siblings[kind]) for kind in kinds]
    return np.concatenate([some[_leaves(alike[np.ix_(some, some)])] for some in members])


def most_confused(results: Results) -> tuple[pd.DataFrame, str]:
    """Return pairs of fine classes, most confused first at the last depth there is, and its name."""
    level = results.finest
    depths = [depth for asked, depth in results.depths if asked == level]
    place = results.depths[level, depths[-1]]
    return pairs(results, place, level), depths[-1]


def pairs(results: Results, place: Place, level: Level) -> pd.DataFrame:
    """One row a pair of classes: images of `truth` `taken` for `said`, of how many `images`, and some `rows`."""
    labels = results.labels
    names, matrix = labels.names(level), counts(results, place, level)
    found = matrix * ~np.eye(len(matrix), dtype=bool)
    truth, said = np.nonzero(found)
    order = np.argsort(-found[truth, said], kind="stable")
    table = pd.DataFrame(
        {"truth": names[truth[order]], "said": names[said[order]], "taken": found[truth, said][order]}
    )
    table["images"] = matrix.sum(1)[truth[order]]
    named, codes = results.reading(place, level).said, labels.codes(level)[labels.test]
    table["rows"] = [
        labels.test[(codes == a) & (named == b)][:EXAMPLES].tolist() if at < EXAMPLES else []
        for at, (a, b) in enumerate(zip(truth[order], said[order], strict=True))
    ]
    return table


def along_sites(results: Results, level: Level, truth: int, said: int) -> pd.DataFrame:
    """Return how many test images of two classes are taken for the other at each site, in % of each class.

    Returns
    -------
    DataFrame
        One row a site: `site`, `readout` (the one that speaks for it), `there` (`truth` taken for `said`) and
        `back` (`said` taken for `truth`).
    """
    codes = results.labels.codes(level)[results.labels.test]
    rows = []
    for site in results.sites:
        place = results.best(level, site)
        named = results.reading(place, level).said
        there, back = named[codes == truth] == said, named[codes == said] == truth
        shares = [100 * float(some.mean()) if len(some) else np.nan for some in (there, back)]
        rows.append([*place, *shares])
    return pd.DataFrame(rows, columns=["site", "readout", "there", "back"])


def _leaves(alike: np.ndarray) -> np.ndarray:
    """Order by a tree of averages, the most alike side by side."""
    if len(alike) < 3:
        return np.arange(len(alike))
    distance = 1 / (1 + alike.astype(float))
    np.fill_diagonal(distance, 0)
    return leaves_list(
        linkage(squareform(distance, checks=False), "average", optimal_ordering=len(alike) <= 300)
    )
