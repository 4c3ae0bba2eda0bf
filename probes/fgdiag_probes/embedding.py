"""Maps of the images at several sites, aligned so that an image moves from site to site rather than jumps.

A map shows who is near whom. It is made to be looked at; nothing is decided by it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from fgdiag.errors import SiteNotFound
from fgdiag.progress import say
from fgdiag.sites import Site
from fgdiag.store import Run
from fgdiag_probes.labels import Labels
from fgdiag_probes.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, TEMPLATE, VERMILION

MOST_IMAGES = 20_000
"""Images on a map; of more a sample is drawn, evenly over the fine classes."""
NEIGHBOURS = 15
DIRECTIONS = 50
"""Principal directions that the map is made from; what is left out is mostly noise, and makes neighbours alike."""
CHECKED = 2_000
"""Images on which trustworthiness is measured: its cost grows with their square."""
METHOD = "AlignedUMAP"


@dataclass(frozen=True)
class Embedding:
    """Maps of the images, one a site.

    Attributes
    ----------
    table
        One row a `site` and image: `row` of the run, and its place on the map, `x` and `y`, without unit.
    trust
        Trustworthiness by site, in [0, 1]: how far the 15 nearest on the map are near at the site too (Venna & Kaski
        2001).
    images
        How many images there were to draw from.
    """

    table: pd.DataFrame
    trust: dict[str, float]
    images: int

    def frame(self) -> pd.DataFrame:
        """Return the places; see `table`."""
        return self.table

    def json(self) -> dict[str, Any]:
        """Return what there is to know of the maps, without the places."""
        drawn = len(np.unique(self.table["row"]))
        return {"method": METHOD, "trustworthiness": self.trust, "images": self.images, "drawn": drawn}

    def figure(self, coarse: np.ndarray) -> go.Figure:
        """Draw the maps side by side, coloured by kind.

        Parameters
        ----------
        coarse
            (images,) kind of each image of the run; the six largest have colours of their own.
        """
        titles = [f"{site}, trust {trust:.2f}" for site, trust in self.trust.items()]
        figure = make_subplots(cols=len(titles), subplot_titles=titles, horizontal_spacing=0.02)
        figure.update_layout(
            template=TEMPLATE, title_text="Images that a site takes to be alike lie near one another"
        )
        names, sizes = np.unique(coarse, return_counts=True)
        colours = dict(
            zip(names[np.argsort(-sizes)], (BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY), strict=False)
        )
        by_site = dict(iter(self.table.groupby("site")))
        for column, site in enumerate(self.trust, start=1):
            points = by_site[site]
            shades = [colours.get(kind, GREY) for kind in coarse[points["row"].to_numpy()]]
            figure.add_scattergl(
                x=points["x"],
                y=points["y"],
                mode="markers",
                marker={"color": shades, "size": 4, "opacity": 0.7},
                showlegend=False,
                col=column,
                row=1,
            )
        return figure.update_xaxes(visible=False).update_yaxes(visible=False)


def embed(run: Run, sites: Sequence[str] | None = None, *, seed: int = 0) -> Embedding:
    """Lay the images out on a plane at several sites; write `results/embedding.parquet` and `.json`.

    Each site is read by the mean over its image tokens, or what else it has, in 50 principal directions.

    Parameters
    ----------
    run
        An extracted run.
    sites
        Names of recorded sites. Default: what the projector is fed and gives, and four LLM layers to the last.
    seed
        Of the sample and the layout: the same seed gives the same maps.

    Raises
    ------
    SiteNotFound
        The run has not recorded a site.

    References
    ----------
    L. McInnes, J. Healy, J. Melville, "UMAP", arXiv 1802.03426; aligned as in `umap.AlignedUMAP`.
    """
    names = [str(run_site) for run_site in run.sites]
    for name in sites or ():
        if name not in names:
            raise SiteNotFound(f"{SiteNotFound.among(name, names)} This run recorded {', '.join(names)}.")
    chosen = sorted(sites, key=Site.parse) if sites else telling_sites(run)
    labels = Labels.of(run, seed=seed)
    rows = _drawn(labels, seed)
    say(f"laying out {len(rows):,} images at {', '.join(chosen)}; this takes some minutes")
    seen = [_directions(_read(run, site)[rows], seed) for site in chosen]
    places = _laid_out(seen, seed)
    checked = np.sort(np.random.default_rng(seed).permutation(len(rows))[:CHECKED])
    near = min(NEIGHBOURS, len(checked) // 2 - 1)
    trust = {
        site: float(trustworthiness(vectors[checked], place[checked], n_neighbors=near))
        for site, vectors, place in zip(chosen, seen, places, strict=True)
    }
    tables = [
        pd.DataFrame({"site": site, "row": rows, "x": place[:, 0], "y": place[:, 1]})
        for site, place in zip(chosen, places, strict=True)
    ]
    found = Embedding(pd.concat(tables, ignore_index=True), trust, len(labels.train) + len(labels.test))
    run.write_table("embedding", found.table)
    run.write_json("embedding", found.json())
    return found


def telling_sites(run: Run) -> list[str]:
    """What the projector is fed and gives, and four layers of the language model, the last among them."""
    vision = [str(site) for site in run.sites if site == Site("vision")]
    projectors = [str(site) for site in run.sites if site.part == "projector"]
    layers = [str(site) for site in run.sites if site.part == "llm"]
    at = np.unique(np.linspace(0, len(layers) - 1, 4).round().astype(int)) if layers else []
    return [*vision, *projectors[:1], *(layers[index] for index in at)]


def _read(run: Run, site: str) -> np.ndarray:
    readouts = run.readouts(site)
    return run.activations(site, "image" if "image" in readouts else readouts[0])


def _drawn(labels: Labels, seed: int) -> np.ndarray:
    """Rows of the images on the map: all, or a sample that is even over the fine classes."""
    rows = np.sort(np.concatenate([labels.train, labels.test]))
    if len(rows) <= MOST_IMAGES:
        return rows
    shuffled = np.random.default_rng(seed).permutation(rows)
    turn = pd.Series(labels.fine[shuffled]).groupby(labels.fine[shuffled]).cumcount().to_numpy()
    return np.sort(shuffled[np.argsort(turn, kind="stable")[:MOST_IMAGES]])


def _directions(vectors: np.ndarray, seed: int) -> np.ndarray:
    """(images, 50) float32: principal directions of the standardised vectors."""
    wide = (vectors - vectors.mean(0)) / np.maximum(vectors.std(0), 1e-6)
    count = min(DIRECTIONS, *wide.shape)
    return PCA(count, random_state=seed).fit_transform(wide).astype(np.float32)


def _laid_out(seen: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """(images, 2) a site, each image held near its own place at the sites beside."""
    import umap

    images = len(seen[0])
    neighbours = min(NEIGHBOURS, images - 1)
    if len(seen) == 1:
        one = umap.UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1)
        return [np.asarray(one.fit_transform(seen[0]))]
    same = dict(zip(range(images), range(images), strict=True))
    aligned = umap.AlignedUMAP(n_neighbors=neighbours, alignment_window_size=2, random_state=seed)
    return [
        np.asarray(place) for place in aligned.fit_transform(list(seen), relations=[same] * (len(seen) - 1))
    ]
