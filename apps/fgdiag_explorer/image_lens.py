"""The token lens of one image: what its tokens mean in words at each layer, on the image, and where the names stand."""

import json
from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import html
from dash.development.base_component import Component
from fgdiag_probes.lens import kept_lens
from fgdiag_probes.token_lens import LEVELS, WAYS, TokenLens, Way

from fgdiag_explorer import parts
from fgdiag_explorer.choices import Choices, choice, link
from fgdiag_explorer.library import Library
from fgdiag_explorer.panel import Made, panel
from fgdiag_explorer.results import Results
from fgdiag_explorer.tasks import LensTask

KIND = "lens"
VIEW = "lens-view"
KEYS = ("layer", "read", "name", "grid")
"""What in the address says how the lens is looked at."""
MARKED = 6
"""Layers with a mark on the slider."""
WORDS: dict[Way, str] = {"logits": "Logit lens", "nearest": "Nearest word vector"}
EXPLAINED = (
    "The residual stream at every image token, read by the model's own final norm and head (logit lens), or as the "
    "word whose input vector points the same way. Neither was trained: a word that does not show may still be there."
)


def part(results: Results, choices: Choices, library: Library) -> list[Component]:
    """The button, or the slider and the lens."""
    return [panel(KIND, MADE, results, choices, library)]


def view(results: Results, choices: Choices, _library: Library | None = None) -> list[Component]:
    """The words on the image at the chosen layer, and the ranks of the names along the layers."""
    lens = _kept(results, choices)
    if lens is None:
        return []
    site, way, name, grid = _chosen(lens, choices)
    words = lens.figure(site, way, name=name, grid=grid)
    curve = lens.curve(way)
    curve.add_vline(x=lens.sites.index(site), line={"color": "#8A8F98", "width": 1})
    file = f"{results.name}-image-{lens.row}-lens"
    csv = link("tables/lens.csv", run=results.name, image=lens.row, layer=site, read=way)
    return [
        html.Div(
            [
                html.Div(
                    parts.figure_card(words, f"{WORDS[way]} at {site}", name=f"{file}-{site}"),
                    className="on-picture",
                ),
                parts.figure_card(
                    curve, "Rank of the names' first tokens in the vocabulary", name=f"{file}-ranks"
                ),
            ],
            className="two",
        ),
        html.P([_begins(lens), " ", parts.csv_link(csv, f"Words at {site}")], className="lead below"),
    ]


def table(results: Results, choices: Choices, _library: Library | None = None) -> pd.DataFrame:
    """Return the words of every token at the chosen layer, and the ranks of the names there."""
    lens = _kept(results, choices)
    if lens is None:
        return pd.DataFrame()
    site, way, *_ = _chosen(lens, choices)
    at, layer = list(WAYS).index(way), lens.sites.index(site)
    boxes = pd.DataFrame(lens.boxes, columns=["left", "top", "right", "bottom"])
    ranks = {f"rank of {name}": lens.ranks[at, layer, n] for n, name in enumerate(lens.names)}
    words = {f"word {n + 1}": lens.words[at, layer, :, n] for n in range(lens.words.shape[-1])}
    return boxes.assign(**words, **ranks)


def _kept(results: Results, choices: Choices) -> TokenLens | None:
    row = choices.number("image", 0, len(results.images) - 1)
    return None if row is None else kept_lens(results.run, row)


def _chosen(lens: TokenLens, choices: Choices) -> tuple[str, Way, int, int]:
    """Site, way of reading, index of the name that colours the tokens, and grid."""
    name = choices.one("name", LEVELS[: len(lens.names)])
    grid = choices.one("grid", [str(at + 1) for at in range(max(1, lens.grids))])
    site, way = choices.one("layer", lens.sites, lens.sites[-1]), choices.one("read", list(WAYS))
    return site, way, LEVELS.index(name), int(grid) - 1


def _task(results: Results, choices: Choices) -> LensTask | None:
    row = choices.number("image", 0, len(results.images) - 1)
    if row is None or results.column("status")[row] != "ok":
        return None
    return LensTask(str(results.run.path), row, results.run)


def _there(results: Results, choices: Choices) -> bool:
    return _kept(results, choices) is not None


def _show(results: Results, choices: Choices) -> list[Component]:
    lens = _kept(results, choices)
    if lens is None:
        return [html.P("The tokens of this image have not been read as words yet.", className="lead")]
    shown = html.Div(view(results, choices), id={"type": "part", "key": VIEW})
    return [_controls(lens, choices), shown]


MADE = Made("Read the tokens as words", _task, _show, _there)


def _controls(lens: TokenLens, choices: Choices) -> Component:
    site, way, name, grid = _chosen(lens, choices)
    slider = dmc.Slider(
        id=choice("layer"),
        value=lens.sites.index(site),
        min=0,
        max=len(lens.sites) - 1,
        step=1,
        marks=_marks(lens.sites),
        label=None,
        updatemode="mouseup",
        thumbLabel="Layer, in the order of the forward pass",
        className="sites",
    )
    steps = parts.marked(html.Div(slider), data_steps_of="layer", data_steps=json.dumps(lens.sites))
    chosen = [
        parts.labelled("Layer", steps),
        parts.switch("read", "Read by", list(WORDS.items()), way),
    ]
    if len(lens.names) > 1:
        names = list(zip(LEVELS, lens.names, strict=False))
        chosen.append(parts.switch("name", "Deeper in colour the higher it ranks", names, LEVELS[name]))
    if lens.grids > 1:
        sizes = [(str(at + 1), f"{(lens.grid == at).sum()} tokens") for at in range(lens.grids)]
        chosen.append(parts.switch("grid", "Crops or whole picture", sizes, str(grid + 1)))
    return parts.controls(*chosen)


def _marks(sites: tuple[str, ...]) -> Any:
    at = sorted({round(n * (len(sites) - 1) / (MARKED - 1)) for n in range(MARKED)})
    return [{"value": n, "label": sites[n]} for n in at]


def _begins(lens: TokenLens) -> str:
    """By which tokens the names are found: a first token of a letter or two says little."""
    told = [f"“{name}” by {_listed(firsts)}" for name, firsts in zip(lens.names, lens.spellings, strict=True)]
    return (
        f"A name is found by its first token: {'; '.join(told)}. Rank 1 of {lens.vocabulary:,} is the likeliest word; "
        f"a token that knows nothing stands at about {lens.by_chance(0):,.0f}."
    )


def _listed(words: tuple[str, ...]) -> str:
    return ", ".join(f"“{word}”" for word in dict.fromkeys(words))
