"""Where in the picture, as the user sees it, each pixel and each image token of a VLM lies.

Processors resize, crop, tile, pad and pack in their own ways, and encoders merge, shuffle and reorder patches. None of
that is written down here; it is seen. Ramps of grey sent through the processor say of every number that comes out which
column and row of the picture it shows. And bands of white, sent through an encoder whose blocks hand on what they are
given, say which part of the picture each token is made of, before attention spreads it.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fgdiag.errors import ModelNotSupported
from fgdiag.hooks import replaced_forward
from fgdiag.prompts import FINE_QUESTION
from fgdiag_probes.substitution import AT_ONCE, Entry, copies, entry_spec, tokens_at

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

CELLS = 56
"""Cells of a map along the longer side of the picture; fewer where the model sees less than that."""
FAINT = 0.1
"""Share of its strongest response below which a token does not count as made of a band."""
EVERYWHERE = 0.6
"""Share of the picture from which on a token is said to look at all of it."""


@dataclass(frozen=True)
class PixelLayout:
    """Where the numbers that the processor makes of a picture lie.

    Attributes
    ----------
    shape
        Rows and columns of cells.
    cell
        (numbers,) int64, the cell that each shows, row by row; the number of cells where it shows nothing (padding).
    black, white
        What the processor makes of a black and of a white picture, in the shape that the model takes.
    """

    shape: tuple[int, int]
    cell: np.ndarray
    black: Tensor
    white: Tensor

    @cached_property
    def seen(self) -> np.ndarray:
        """(rows, columns) bool: what the model gets to see; the rest is cropped away."""
        return (np.bincount(self.cell, minlength=self._cells + 1)[:-1] > 0).reshape(self.shape)

    def lay(self, relevance: Tensor) -> np.ndarray:
        """Sum a relevance of every number over the cells: (rows, columns) float64, NaN where nothing is seen."""
        numbers = relevance.detach().double().cpu().numpy().reshape(-1)
        total = np.bincount(self.cell, numbers, self._cells + 1)[:-1].reshape(self.shape)
        return np.where(self.seen, total, np.nan)

    def numbers_in(self, cells: np.ndarray) -> Tensor:
        """Which numbers lie in cells (rows, columns) bool: bool in the shape that the model takes."""
        chosen = np.append(cells.reshape(-1), False)[self.cell]
        return torch.from_numpy(chosen).reshape(self.black.shape).to(self.black.device)

    @property
    def _cells(self) -> int:
        return self.shape[0] * self.shape[1]


@dataclass(frozen=True)
class TokenLayout:
    """Where the image tokens at a site lie.

    Attributes
    ----------
    rows, columns
        (tokens, rows) and (tokens, columns) float64: how much of each row and column of cells a token is made of,
        summing to one; all zero where a token stands for nothing in the picture (a line break between tiles).
    seen
        (rows, columns) bool, see `PixelLayout`.
    """

    rows: np.ndarray
    columns: np.ndarray
    seen: np.ndarray

    def lay(self, relevance: Tensor) -> np.ndarray:
        """Spread a relevance (tokens,) over the cells: (rows, columns) float64, NaN where nothing is seen."""
        numbers = relevance.detach().double().cpu().numpy().reshape(-1)
        total = np.einsum("t,tr,tc->rc", numbers, self.rows, self.columns)
        return np.where(self.seen, total, np.nan)


_pixels: "WeakKeyDictionary[VLM, dict[Any, PixelLayout]]" = WeakKeyDictionary()
_tokens: "WeakKeyDictionary[VLM, dict[Any, TokenLayout]]" = WeakKeyDictionary()
KEPT = 16
"""Layouts kept for each model; pictures of one size share theirs."""


def pixel_layout(vlm: "VLM", size: tuple[int, int]) -> PixelLayout:
    """Find where the processor's numbers lie in pictures of a size (width, height)."""
    known = _pixels.setdefault(vlm, {})
    if size not in known:
        _make_room(known)
        known[size] = _find_pixels(vlm, size)
    return known[size]


def token_layout(vlm: "VLM", size: tuple[int, int], entry: Entry) -> TokenLayout:
    """Find where the image tokens at an entry lie in pictures of a size (width, height).

    Raises
    ------
    ModelNotSupported
        Each token looks at the whole picture, as the query tokens of a Q-Former do, so none lies anywhere.
    """
    known = _tokens.setdefault(vlm, {})
    if (size, entry) not in known:
        _make_room(known)
        known[size, entry] = _find_tokens(vlm, size, entry)
    return known[size, entry]


def layout_at(vlm: "VLM", size: tuple[int, int], entry: Entry) -> PixelLayout | TokenLayout:
    """Find where what enters at an entry lies; see `pixel_layout` and `token_layout`."""
    return pixel_layout(vlm, size) if entry == "pixels" else token_layout(vlm, size, entry)


def _make_room(known: dict[Any, Any]) -> None:
    if len(known) >= KEPT:
        del known[next(iter(known))]


def _find_pixels(vlm: "VLM", size: tuple[int, int]) -> PixelLayout:
    width, height = size
    black, white, across, down = (
        _processed(vlm, np.broadcast_to(grey, (height, width)))
        for grey in (0, 255, np.linspace(0, 255, width), np.linspace(0, 255, height)[:, None])
    )
    span = (white - black).double()
    shows = (span.abs() > 0.1 * span.abs().max()).cpu().numpy().reshape(-1)
    x, y = (
        (
            ((ramp - black).double() / span).nan_to_num().clip(0, 1).cpu().numpy().reshape(-1) * (side - 1)
            + 0.5
        )
        / side
        for ramp, side in ((across, width), (down, height))
    )
    cells = CELLS
    while True:
        rows, columns = (max(1, round(cells * side / max(size))) for side in (height, width))
        row, column = (
            np.minimum((y * rows).astype(int), rows - 1),
            np.minimum((x * columns).astype(int), columns - 1),
        )
        cell = np.where(shows, row * columns + column, rows * columns)
        found = PixelLayout((rows, columns), cell, black, white)
        if cells <= 4 or not _has_holes(found.seen):
            return found
        cells //= 2


def _processed(vlm: "VLM", grey: np.ndarray) -> Tensor:
    picture = Image.fromarray(np.repeat(np.round(grey)[..., None], 3, 2).astype(np.uint8))
    return vlm.inputs([picture], vlm.chat(FINE_QUESTION))["pixel_values"]


def _has_holes(seen: np.ndarray) -> bool:
    """Whether there is an unseen cell between seen ones."""
    return not seen[np.ix_(seen.any(1), seen.any(0))].all() or any(
        np.diff(np.flatnonzero(seen.any(axis))).max(initial=1) > 1 for axis in (0, 1)
    )


@torch.no_grad()
def _find_tokens(vlm: "VLM", size: tuple[int, int], entry: Entry) -> TokenLayout:
    pixels, spec = pixel_layout(vlm, size), entry_spec(vlm, entry)
    inputs = vlm.inputs([Image.new("RGB", size)], vlm.chat(FINE_QUESTION))
    rows, columns = pixels.shape
    row, column = np.indices(pixels.shape)
    bands = [row == at for at in range(rows)] + [column == at for at in range(columns)]
    with _blocks_passed_over(vlm, inputs):
        dark = tokens_at(vlm, spec, inputs)
        responses = []
        for start in range(0, len(bands), AT_ONCE):
            lot = bands[start : start + AT_ONCE]
            lit = [torch.where(pixels.numbers_in(band), pixels.white, pixels.black) for band in lot]
            given = copies(inputs, len(lot)) | {"pixel_values": torch.cat(lit)}
            responses.append((tokens_at(vlm, spec, given, len(lot)) - dark).float().norm(dim=-1).cpu())
    response = torch.cat(responses).T.double().numpy()
    found = TokenLayout(_shares(response[:, :rows]), _shares(response[:, rows:]), pixels.seen)
    reach = (found.rows > 0).mean(1) * (found.columns > 0).mean(1)
    if len(reach) > 1 and reach[reach > 0].mean() > EVERYWHERE * pixels.seen.mean():
        raise ModelNotSupported(
            f"Each image token of {vlm.name} at {spec.site} looks at the whole picture, so nothing that is known "
            "of them can be laid on it. Maps made at the pixels can: ig@pixels, occlusion@pixels."
        )
    return found


def _shares(response: np.ndarray) -> np.ndarray:
    """(tokens, bands) shares summing to one, without what is faint."""
    response = np.where(response > FAINT * response.max(1, keepdims=True), response, 0)
    total = response.sum(1, keepdims=True)
    return np.divide(response, total, out=np.zeros_like(response), where=total > 0)


@contextmanager
def _blocks_passed_over(vlm: "VLM", inputs: Mapping[str, Any]) -> Iterator[None]:
    """Let every block of the vision encoder hand on what it is given, where it keeps the shape."""
    paths = [spec.path for name in vlm.anatomy.encoder_block_sites for spec in [vlm.anatomy.site(name)]]
    blocks = [vlm.model.get_submodule(path) for path in paths]
    with ExitStack() as stack:
        for block, output in _outputs(vlm, blocks, inputs):
            stack.enter_context(replaced_forward(block, _handing_on(output)))
        yield


def _outputs(vlm: "VLM", blocks: list[nn.Module], inputs: Mapping[str, Any]) -> list[tuple[nn.Module, Any]]:
    """What each block that keeps the shape of its hidden states puts out."""
    seen: dict[nn.Module, Any] = {}

    def look(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        leaving = output if isinstance(output, Tensor) else output[0]
        if _hidden(args, kwargs).shape == leaving.shape:
            seen[block] = output

    handles = [block.register_forward_hook(look, with_kwargs=True) for block in blocks]
    try:
        tokens_at(vlm, entry_spec(vlm, "projector"), inputs)
    finally:
        for handle in handles:
            handle.remove()
    return list(seen.items())


def _handing_on(output: Any) -> Any:
    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden = _hidden(args, kwargs)
        return hidden if isinstance(output, Tensor) else (hidden, *[None] * (len(output) - 1))

    return forward


def _hidden(args: Any, kwargs: Mapping[str, Any]) -> Tensor:
    return args[0] if args else kwargs["hidden_states"]
