"""Attention rollout: a baseline that looks at attention alone, and so is the same whatever the target is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fgdiag.errors import ModelNotSupported
from fgdiag_probes.substitution import Substitution

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


def attention_rollout(given: Substitution) -> Tensor:
    """How much of the last prompt token comes from each image token, were attention all there is.

    Abnar & Zuidema (2020, arXiv 2005.00928) over the blocks of the LLM: attention averaged over heads, half of it for
    the residual stream, multiplied from the first block to the last.

    Returns
    -------
    Tensor
        (1, tokens), not negative.

    Raises
    ------
    ModelNotSupported
        The model gives no attention over one sequence that holds the image tokens.
    """
    vlm = given.vlm
    image, last = vlm.spans(given.inputs).image[0], vlm.spans(given.inputs).last[0]
    with torch.no_grad(), _eager(vlm):
        out = vlm.model(**given.inputs, use_cache=False, output_attentions=True)
    layers = [layer[0] for layer in getattr(out, "attentions", None) or () if layer is not None]
    if not layers or any(layer.shape[-1] != len(image) for layer in layers) or not image.any():
        raise ModelNotSupported(
            f"{vlm.name} gives no attention over one sequence with its image tokens, so there is no rollout. "
            "Use another method."
        )
    return roll_out(torch.stack([layer.float().mean(0) for layer in layers]))[last][:, image]


def roll_out(attention: Tensor) -> Tensor:
    """Multiply attention (layers, tokens, tokens), its rows summing to one: (tokens, tokens)."""
    identity = torch.eye(attention.shape[-1], device=attention.device)
    rolled = identity
    for layer in attention:
        rolled = (layer + identity) / 2 @ rolled
    return rolled


@contextmanager
def _eager(vlm: "VLM") -> Iterator[None]:
    """Compute attention in the way that keeps its weights."""
    config = vlm.model.config
    before = {name: getattr(config, name)._attn_implementation for name in config.sub_configs}
    before[""] = config._attn_implementation
    vlm.model.set_attn_implementation("eager")
    try:
        yield
    finally:
        vlm.model.set_attn_implementation(before)
