"""Which tokens become one vector, and the pooling that makes them one.

`image`  mean over the image's tokens
`last`   the last prompt token
`pre`    mean over the prompt tokens before the image, which no causal model can let see it
`cls`    the encoder's class token

Where that is asked for, a site's image tokens are also kept one by one: its token grid.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fgdiag.errors import FgdiagError, SiteNeverRan, SiteNotFound
from fgdiag.sites import Readout

if TYPE_CHECKING:
    from fgdiag.anatomy import SiteSpec

LARGEST_FLOAT16 = torch.finfo(torch.float16).max


class TokensVary(FgdiagError, ValueError):
    """The images have different numbers of tokens, so that they make no grid."""


@dataclass(frozen=True)
class TokenSpans:
    """Which tokens of the LLM's sequence each readout averages: bool masks of shape (batch, tokens)."""

    image: Tensor
    pre: Tensor
    last: Tensor

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor], image_token_id: int | None) -> "TokenSpans":
        """Find the spans in a processor's output; padding on either side belongs to none of them.

        Parameters
        ----------
        inputs
            `input_ids` (batch, tokens) and, where there is padding, `attention_mask` of the same shape.
        image_token_id
            The token that stands for a piece of the image; None where the sequence has no such tokens.
        """
        ids = inputs["input_ids"]
        real = inputs.get("attention_mask", torch.ones_like(ids)).bool()
        image = (ids == image_token_id) & real if image_token_id is not None else torch.zeros_like(real)
        position = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        final = position.masked_fill(~real, -1).amax(1, keepdim=True)
        return cls(
            image=image,
            pre=real & ~image & (image.cumsum(1) == 0) & image.any(1, True),
            last=position == final,
        )

    def masks(self, readouts: Sequence[str]) -> dict[Readout, Tensor]:
        """Masks of those `readouts` that every row of the batch has."""
        named: dict[Readout, Tensor] = {"image": self.image, "last": self.last, "pre": self.pre}
        return {name: mask for name, mask in named.items() if name in readouts and bool(mask.any(1).all())}


def padding_last(inputs: Mapping[str, Any], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Move the padding of (tokens, mask) `pairs` behind the real tokens, which stay in order."""
    moved = dict(inputs)
    for tokens, mask in pairs:
        if mask in inputs:
            order = inputs[mask].argsort(dim=1, descending=True, stable=True)
            moved |= {name: inputs[name].gather(1, order) for name in (tokens, mask)}
    return moved


def averaging(masks: Sequence[Tensor]) -> Tensor:
    """Weights (batch, spans, tokens), float32, each row summing to one over its span."""
    stacked = torch.stack(list(masks), dim=1).float()
    return stacked / stacked.sum(-1, keepdim=True)


def pool_sequence(hidden: Tensor, weights: Tensor) -> Tensor:
    """Average (batch, tokens, width) over each span: (batch, spans, width), summed in float32."""
    return torch.bmm(weights.to(hidden.device), hidden.float())


def pool_patches(tiles: Tensor, shares: Sequence[int], *, class_token: bool) -> dict[Readout, Tensor]:
    """Average an encoder's tokens over each image of the batch, the class token apart.

    Parameters
    ----------
    tiles
        (tiles, tokens, width). An image may have several tiles (AnyRes crops), or all images may be packed
        into one (Qwen-VL, Pixtral); they follow each other in the order of the batch.
    shares
        How the tokens divide among the images, in any unit: tiles, or image tokens in the LLM's sequence.
    class_token
        Whether the first token of every tile is the class token.

    Returns
    -------
    dict
        `image`, and `cls` where there is a class token: (images, width), float32.
    """
    if not class_token:
        return {"image": mean_by_image(tiles.flatten(0, 1), shares)}
    patches = tiles[:, 1:].flatten(0, 1)
    return {"image": mean_by_image(patches, shares), "cls": mean_by_image(tiles[:, 0], shares)}


def mean_by_image(rows: Tensor, shares: Sequence[int]) -> Tensor:
    """Mean of `rows` (tokens, width) over each image's consecutive share of them."""
    if len(set(shares)) == 1 and len(rows) % len(shares) == 0:
        return rows.unflatten(0, (len(shares), -1)).mean(1, dtype=torch.float32)
    counts = [len(rows) * share / sum(shares) for share in shares]
    if any(count != int(count) for count in counts):
        raise SiteNeverRan(
            f"{len(rows)} encoder tokens cannot be divided among {len(shares)} images as {list(shares)}: "
            "this family needs a row in fgdiag/family_table.py that says how many tiles each image has."
        )
    parts = rows.split([int(count) for count in counts])
    return torch.stack([part.mean(0, dtype=torch.float32) for part in parts])


def token_grid(rows: Tensor, shares: Sequence[int]) -> Tensor:
    """Give each image its own tokens.

    Parameters
    ----------
    rows
        (tokens, width) of all images, one image after the other.
    shares
        How they divide among the images, in any unit.

    Returns
    -------
    (images, tokens, width) float16
        Numbers beyond float16 become its largest; what is not finite stays so.

    Raises
    ------
    TokensVary
        The images have different numbers of tokens.
    """
    if len(set(shares)) > 1 or len(rows) % len(shares):
        raise TokensVary(
            f"{len(shares)} images of a batch have different numbers of tokens, so they cannot be kept. "
            "Leave `tokens` out."
        )
    clipped = torch.where(rows.isfinite(), rows.clamp(-LARGEST_FLOAT16, LARGEST_FLOAT16), rows)
    return clipped.half().unflatten(0, (len(shares), -1))


def checked_token_sites(asked: Sequence[str], specs: Sequence["SiteSpec"]) -> list[str]:
    """Put sites in the order of the forward pass; `SiteNotFound` where one has no image tokens among `specs`."""
    possible = [str(spec.site) for spec in specs if "image" in spec.readouts]
    for name in asked:
        if name not in possible:
            raise SiteNotFound(
                f"No image tokens to keep at {name!r}; the recorded sites that have some are {', '.join(possible)}."
            )
    return [name for name in possible if name in asked]


def telling_token_sites(specs: Sequence["SiteSpec"]) -> list[str]:
    """Sites whose tokens tell most: what the projector is fed and what it gives, the last and the middle block."""
    sites = [spec.site for spec in specs if "image" in spec.readouts]
    fed = [site for site in sites if str(site) == "vision" or site.part == "projector"]
    blocks = [site for site in sites if site.part == "llm" and site.index != "norm"]
    middle = blocks[(len(blocks) - 1) // 2 :][:1]
    return [str(site) for site in dict.fromkeys([*fed, *blocks[-1:], *middle])]


def fitting_together(sizes: Mapping[str, int], *, most: int) -> list[str]:
    """Names that take at most `most` together, the earlier ones first."""
    kept, total = [], 0
    for name, size in sizes.items():
        if total + size <= most:
            kept.append(name)
            total += size
    return kept
