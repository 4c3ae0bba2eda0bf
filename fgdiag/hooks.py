"""Watch one forward pass: hooks pool each site on its device, and only the pooled vectors leave.

A site costs one (batch, readouts, width) tensor however long the sequence is, so memory does not grow with the
number of sites. The hooks always come off, and hooks that others have hung on the model are left alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fgdiag.anatomy import SiteSpec
from fgdiag.errors import SiteNeverRan
from fgdiag.family_table import quirk_of
from fgdiag.readouts import (
    averaging,
    mean_by_image,
    padding_last,
    pool_patches,
    pool_sequence,
    token_grid,
)
from fgdiag.sites import READOUTS, TOKENS, Readout

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


def capture(
    vlm: "VLM",
    inputs: Mapping[str, Any],
    *,
    sites: Sequence[str] | None = None,
    readouts: Sequence[str] = READOUTS,
    tokens: Sequence[str] = (),
    gradients: bool = False,
) -> dict[tuple[str, str], Tensor]:
    """Run one forward pass, without the language-model head, and pool what flows through.

    Parameters
    ----------
    vlm
        The opened model.
    inputs
        What `vlm.inputs` returned: one image for each text, padded on either side.
    sites
        Names of sites; by default all but the single encoder blocks.
    readouts
        Which of `image`, `last`, `pre`, `cls`. Each site gives those of them that it has.
    tokens
        Those of `sites` whose image tokens are also kept one by one; they must have some.
    gradients
        Whether gradients shall flow from what is captured back to `inputs`. The pass then ends with the last of the
        `sites`, for nothing behind it is asked for.

    Returns
    -------
    dict
        `{("llm.3", "image"): (batch, width) float32 on the site's device}`, and
        `{("llm.3", "tokens"): (batch, tokens, width) float16}`.

    Raises
    ------
    SiteNotFound
        Where the model has no such site.
    SiteNeverRan
        Where a site's module did not run in this forward pass.
    TokensVary
        Where `tokens` are asked of images that have different numbers of them.

    Examples
    --------
    >>> vectors = capture(vlm, vlm.inputs(images, vlm.chat(FINE_QUESTION)), sites=["vision", "llm.3"])
    ... # doctest: +SKIP
    """
    specs = [vlm.anatomy.site(name) for name in (vlm.anatomy.default_sites if sites is None else sites)]
    inputs = padding_last(inputs, quirk_of(vlm.anatomy.model_type).padding_last)
    with torch.inference_mode(not gradients):
        taps = list(_taps(vlm, inputs, specs, _Pools(vlm, inputs, readouts, tokens)))
        with _watching(vlm.model, taps, ends=gradients) as kept, suppress(_AllSeen):
            vlm.forward(inputs)
    return kept


def tokens_vary(vlm: "VLM", text: str) -> bool:
    """Whether the number of image tokens depends on the shape or the size of the image."""
    images = [Image.new("RGB", size) for size in ((224, 224), (448, 224), (300, 600), (900, 900))]
    return len(set(_image_shares(vlm, vlm.inputs(images, text)))) > 1


def _image_shares(vlm: "VLM", inputs: Mapping[str, Any]) -> list[int]:
    """How the encoder's tokens divide among the images of a batch, in units of tiles or of the LLM's tokens."""
    tiles_per_image = quirk_of(vlm.anatomy.model_type).tiles_per_image
    if tiles_per_image is None:
        return vlm.spans(inputs).image.sum(1).tolist()
    return tiles_per_image(inputs, vlm.model.config)


@dataclass(frozen=True)
class _Tap:
    """One hook: the module it hangs on, what it reads there, and how that is pooled."""

    site: str
    path: str
    on_entry: bool
    read: Callable[..., Tensor]
    """(args, kwargs) on entry, (output,) on leaving -> hidden states."""
    pool: Callable[[Tensor], Mapping[str, Tensor]]


class _AllSeen(Exception):
    """Every site has been seen, so the rest of the forward pass is not needed."""


@contextmanager
def _watching(
    model: nn.Module, taps: Sequence[_Tap], *, ends: bool = False
) -> Iterator[dict[tuple[str, str], Tensor]]:
    """Hang the hooks, yield what they keep, and take them off whatever happens; `ends`: raise once all have run."""
    kept: dict[tuple[str, str], Tensor] = {}
    ran: set[int] = set()

    def keep(tap: _Tap, hidden: Tensor) -> None:
        ran.add(id(tap))
        kept.update({(tap.site, name): vectors for name, vectors in tap.pool(hidden).items()})
        if ends and len(ran) == len(taps):
            raise _AllSeen

    handles = []
    try:
        for tap in taps:
            module = model.get_submodule(tap.path)
            if tap.on_entry:
                hook = partial(_entered, tap, keep)
                handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            else:
                handles.append(module.register_forward_hook(partial(_left, tap, keep)))
        yield kept
    finally:
        for handle in handles:
            handle.remove()
    silent = [f"{tap.site} (module {tap.path!r})" for tap in taps if id(tap) not in ran]
    if silent:
        raise SiteNeverRan(f"No output from {', '.join(silent)} in this forward pass; was an image given?")


@contextmanager
def replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Have a module run `forward` while the block runs.

    A model that is spread over devices has given its modules a forward of their own; they get that back.
    """
    changed: Any = module
    own = vars(module).get("forward")
    changed.forward = forward
    try:
        yield
    finally:
        del changed.forward
        if own is not None:
            changed.forward = own


def _entered(
    tap: _Tap, keep: Callable[[_Tap, Tensor], None], _module: nn.Module, args: Any, kwargs: Any
) -> None:
    keep(tap, tap.read(args, kwargs))


def _left(
    tap: _Tap, keep: Callable[[_Tap, Tensor], None], _module: nn.Module, _args: Any, output: Any
) -> None:
    keep(tap, tap.read(output))


def _taps(
    vlm: "VLM", inputs: Mapping[str, Any], specs: Sequence[SiteSpec], pools: "_Pools"
) -> Iterator[_Tap]:
    """Make the hooks of one forward pass, with the spans of this very batch."""
    for spec in specs:
        read = what_enters if spec.reads == "input" else _what_leaves
        yield _Tap(str(spec.site), spec.path, spec.reads == "input", read, pools.of(spec))
        if spec.class_path is not None and "cls" in pools.readouts:
            selected = partial(_selected_states, vlm.model.config)
            yield _Tap(str(spec.site), spec.class_path, False, selected, pools.class_tokens)


class _Pools:
    """How each kind of site is pooled in one batch."""

    def __init__(
        self, vlm: "VLM", inputs: Mapping[str, Any], readouts: Sequence[str], tokens: Sequence[str]
    ) -> None:
        self.inputs, self.readouts, self.config = inputs, readouts, vlm.model.config
        self.kept_whole = frozenset(tokens)
        self.quirk = quirk_of(vlm.anatomy.model_type)
        spans = vlm.spans(inputs)
        self.image, self.masks = spans.image, spans.masks(readouts)
        self.shares = _image_shares(vlm, inputs)
        self.weights: dict[tuple[Readout, ...], Tensor] = {}

    def of(self, spec: SiteSpec) -> Callable[[Tensor], Mapping[str, Tensor]]:
        pool = self.pooling(spec)
        if str(spec.site) not in self.kept_whole:
            return pool
        return lambda hidden: {**pool(hidden), TOKENS: self.grid(spec, hidden)}

    def pooling(self, spec: SiteSpec) -> Callable[[Tensor], Mapping[str, Tensor]]:
        if spec.tokens == "answer":
            return self.answer
        if spec.tokens == "patches":
            return partial(self.patches, spec)
        return partial(self.prompt, tuple(name for name in spec.readouts if name in self.masks))

    def answer(self, hidden: Tensor) -> Mapping[str, Tensor]:
        return {"last": hidden[:, -1].float()} if "last" in self.readouts else {}

    def prompt(self, names: tuple[Readout, ...], hidden: Tensor) -> Mapping[str, Tensor]:
        if not names:
            return {}
        if names not in self.weights:
            self.weights[names] = averaging([self.masks[name] for name in names])
        return dict(zip(names, pool_sequence(hidden, self.weights[names]).unbind(1), strict=True))

    def patches(self, spec: SiteSpec, hidden: Tensor) -> Mapping[str, Tensor]:
        pooled = pool_patches(self.tiles(hidden), self.shares, class_token=spec.class_token)
        return {name: vectors for name, vectors in pooled.items() if name in self.readouts}

    def grid(self, spec: SiteSpec, hidden: Tensor) -> Tensor:
        if spec.tokens == "patches":
            return token_grid(self.tiles(hidden)[:, int(spec.class_token) :].flatten(0, 1), self.shares)
        return token_grid(hidden[self.image.to(hidden.device)], self.image.sum(1).tolist())

    def class_tokens(self, hidden: Tensor) -> Mapping[str, Tensor]:
        return {"cls": mean_by_image(self.tiles(hidden)[:, 0], self.shares)}

    def tiles(self, hidden: Tensor) -> Tensor:
        if self.quirk.unpack is not None:
            return self.quirk.unpack(hidden, self.inputs, self.config)
        return hidden if hidden.ndim == 3 else hidden.unsqueeze(0)


def what_enters(args: tuple, kwargs: Mapping[str, Any]) -> Tensor:
    """Take the image features a projector is fed, or the embeddings an LLM is given."""
    for name in ("inputs_embeds", "encoder_hidden_states"):
        if isinstance(kwargs.get(name), Tensor):
            return kwargs[name]
    return next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor))


def _what_leaves(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def changing_output(module: nn.Module, change: Callable[[Tensor], Tensor]) -> RemovableHandle:
    """Hang a hook that changes the hidden states or the logits that a module gives."""

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        new = change(_what_leaves(output))
        return new if isinstance(output, Tensor) else (new, *output[1:])

    return module.register_forward_hook(hook)


def _selected_states(config: Any, output: Any) -> Tensor:
    """Take the encoder states that the model selects from, with the class token that it then drops."""
    layers = config.vision_feature_layer
    if isinstance(layers, int):
        last = layers == -1 and config.model_type == "internvl"
        return output.last_hidden_state if last else output.hidden_states[layers]
    return torch.cat([output.hidden_states[layer] for layer in layers], dim=-1)
