"""Where each image token lies on the picture, as one box, and which tokens lie side by side."""

import numpy as np

from fgdiag_probes.layout import TokenLayout

OVERLAP = 0.3
"""Share of a token that may lie on tokens of the same grid."""
NEAR = 0.4
"""Share of a token's side within which edges of neighbours are one edge."""


def boxes_of(layout: TokenLayout) -> tuple[np.ndarray, np.ndarray]:
    """Return the box of each token, and the grid that it belongs to.

    Returns
    -------
    (tokens, 4) float32
        Left, top, right and bottom as shares of the picture; NaN where a token lies nowhere.
    (tokens,) int64
        Tokens of one grid lie side by side, so those of a crop and of the whole picture are in two; -1 for nowhere.
    """
    tall, wide = _extent(layout.rows), _extent(layout.columns)
    grid, taken = np.full(len(tall), -1), list[np.ndarray]()
    for token in np.flatnonzero(np.isfinite(tall + wide).all(1)):
        cells = np.outer(layout.rows[token] > 0, layout.columns[token] > 0)
        free = [(there & cells).sum() <= OVERLAP * cells.sum() for there in taken]
        grid[token] = free.index(True) if any(free) else len(taken)
        if not any(free):
            taken.append(np.zeros(cells.shape, bool))
        taken[grid[token]] |= cells
    for at in range(len(taken)):
        for extent in (tall, wide):
            extent[grid == at] = _snapped(extent[grid == at])
    return np.stack([wide[:, 0], tall[:, 0], wide[:, 1], tall[:, 1]], 1).astype(np.float32), grid


def _extent(shares: np.ndarray) -> np.ndarray:
    """(tokens, 2) where what each token is made of begins and ends, as shares of the side; NaN for nowhere.

    Of the outermost bands it takes as much as it has of them, measured by the band next to them; those at the border
    of the picture it takes whole.
    """
    found = np.full((len(shares), 2), np.nan)
    for token, share in enumerate(shares):
        at = np.flatnonzero(share)
        if len(at):
            first, last = (min(1.0, share[edge] / share[inner]) for edge, inner in _ends(at))
            found[token] = at[0] and at[0] + 1 - first, at[-1] + (last if at[-1] + 1 < len(share) else 1)
    return found / shares.shape[1]


def _ends(at: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Outermost bands, each with the one next to it."""
    return (at[0], at[min(1, len(at) - 1)]), (at[-1], at[max(-2, -len(at))])


def _snapped(extent: np.ndarray) -> np.ndarray:
    """Let neighbours (tokens, 2) meet: edges that are nearly one are put at their mean."""
    edges = np.unique(extent)
    group = np.cumsum(np.diff(edges, prepend=edges[0]) > NEAR * np.median(np.diff(extent, axis=1)))
    means = np.bincount(group, edges) / np.bincount(group)
    return means[group[np.searchsorted(edges, extent)]]
