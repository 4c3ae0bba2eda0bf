"""What the image tokens of a picture mean in words, layer by layer: the result of `fgdiag_probes.lens`."""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from fgdiag_probes.kept_arrays import read_arrays, write_arrays
from fgdiag_probes.lens_figure import draw_ranks, draw_words

Way = Literal["logits", "nearest"]
WAYS: dict[Way, str] = {"logits": "logit lens", "nearest": "nearest word vector"}
"""How a token is read: by the model's own final norm and head, or by the input embedding it points to most."""
LEVELS = ("fine", "coarse")
NUMBERS = ("rank", "best", "rank_among", "best_among", "chance")
ARRAYS = ("picture", "boxes", "grid", "words", "scores", "ranks", "ranks_among")


@dataclass(frozen=True, eq=False)
class TokenLens:
    """The image tokens of one picture, read as words at every layer of the language model.

    Attributes
    ----------
    sites
        `projector`, what enters the language model, and the residual stream behind each of its blocks.
    names
        The picture's class names as they are spoken: the fine one and, where there are kinds, the coarse one.
    words
        (ways, sites, tokens, top) str: the likeliest words, the first one first; ways as in `WAYS`.
    scores
        (ways, sites, tokens, top) float32: their probability, or their cosine.
    ranks
        (ways, sites, names, tokens) float32: rank of a name's first token in the vocabulary, 1 is the first; of
        its spellings (with and without a blank before it, as written and in lower case) the best one counts.
    ranks_among
        The same among the first tokens of all class names of that level.
    vocabulary, among
        How many tokens, and how many different first tokens of class names of each level, are ranked.
    spellings
        For each name its first tokens, one a spelling.
    boxes
        (tokens, 4) float32: left, top, right and bottom of what a token is made of, as shares of the picture; NaN
        where it lies nowhere (a line break between tiles).
    grid
        (tokens,) int: tokens of one grid lie side by side; a model that sees crops and the whole picture has two.
        -1 for those that lie nowhere.
    picture
        (height, width, 3) uint8, the picture made small.
    row, fine, coarse
        Row of the run and true classes, where the picture is one of a run.
    """

    sites: tuple[str, ...]
    names: tuple[str, ...]
    words: np.ndarray
    scores: np.ndarray
    ranks: np.ndarray
    ranks_among: np.ndarray
    vocabulary: int
    among: tuple[int, ...]
    spellings: tuple[tuple[str, ...], ...]
    boxes: np.ndarray
    grid: np.ndarray
    picture: np.ndarray
    row: int | None = None
    fine: str | None = None
    coarse: str | None = None

    @property
    def grids(self) -> int:
        """How many grids the tokens lie in."""
        return int(self.grid.max()) + 1

    def by_chance(self, name: int) -> float:
        """Rank that the best spelling of a name has where nothing is known: that of the least of as many draws."""
        return (self.vocabulary + 1) / (len(self.spellings[name]) + 1)

    def frame(self) -> pd.DataFrame:
        """One row a way, site and name.

        `way`, `site`, `level` (fine or coarse), `name`; `rank` and `rank_among`, medians over the tokens; `best` and
        `best_among`, of the token that has the name first; `chance`, the rank of a token that knows nothing.
        """
        rows = []
        for (at, way), (layer, site), (n, name) in product(*map(enumerate, (WAYS, self.sites, self.names))):
            here, among = self.ranks[at, layer, n], self.ranks_among[at, layer, n]
            numbers = [np.median(here), here.min(), np.median(among), among.min(), self.by_chance(n)]
            rows.append([way, site, LEVELS[n], name, *map(float, numbers)])
        return pd.DataFrame(rows, columns=["way", "site", "level", "name", *NUMBERS])

    def figure(
        self, site: str | None = None, way: Way = "logits", *, name: int = 0, grid: int = 0
    ) -> go.Figure:
        """Draw the words on the picture at one site, by default the last; see `lens_figure.draw_words`."""
        return draw_words(
            self, len(self.sites) - 1 if site is None else self.sites.index(site), way, name, grid
        )

    def curve(self, way: Way = "logits") -> go.Figure:
        """Draw the ranks of the names along the layers."""
        return draw_ranks(self.frame().query("way == @way"), self.sites)

    def json(self) -> dict[str, Any]:
        """Return everything but the arrays as plain values, and the table of ranks."""
        return self._about() | {"layers": json.loads(str(self.frame().to_json(orient="records")))}

    def save(self, path: Path, key: str) -> None:
        """Write it whole or not at all; `key` says what it was made from."""
        write_arrays(path, key, self._about(), {name: getattr(self, name) for name in ARRAYS})

    @classmethod
    def read(cls, path: Path, key: str | None = None) -> Self | None:
        """Read back what `save` wrote; None where there is nothing, or it was made from something else than `key`."""
        kept = read_arrays(path, key)
        if kept is None:
            return None
        about, arrays = kept
        about |= {name: tuple(about[name]) for name in ("sites", "names", "among")}
        about["spellings"] = tuple(tuple(one) for one in about["spellings"])
        return cls(**about, **arrays)

    def _about(self) -> dict[str, Any]:
        return {name: one for name, one in vars(self).items() if name not in ARRAYS}


@dataclass(frozen=True)
class TokenLenses:
    """Several pictures read as words.

    Attributes
    ----------
    lenses
        One a picture.
    """

    lenses: tuple[TokenLens, ...]

    def frame(self) -> pd.DataFrame:
        """One row a way, site and level: medians over pictures of `TokenLens.frame`, and how many these are."""
        tables = pd.concat([one.frame() for one in self.lenses])
        medians = tables.groupby(["way", "site", "level"], sort=False)[list(NUMBERS)].median().reset_index()
        return medians.assign(name=medians["level"] + " name", images=len(self.lenses))

    def figure(self, way: Way = "logits") -> go.Figure:
        """Draw the median ranks of the names along the layers."""
        return draw_ranks(self.frame().query("way == @way"), self.lenses[0].sites)

    def json(self) -> dict[str, Any]:
        """Return the table of ranks and what was read of each picture, without its words."""
        layers = json.loads(str(self.frame().to_json(orient="records")))
        return {"rows": [one.row for one in self.lenses], "layers": layers}
