"""The VLM families fgdiag is proven on, and the few facts about them that `transformers` does not tell.

A family that is not in either table is opened all the same: its parts are found by what `transformers` offers,
and the small forward pass on opening shows whether they were found rightly.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True)
class Family:
    """One family of VLMs, the sites it has, and the test that proves them."""

    family: str
    model_type: str
    """`config.model_type` in transformers."""
    sites: tuple[str, ...]
    """Kinds of site; `k` stands for a number."""
    proven_by: str
    """Test that compares every captured vector with what the model itself puts out."""


@dataclass(frozen=True)
class Quirk:
    """What fgdiag must be told about one `model_type`."""

    tiles_per_image: Callable[[Inputs, Any], list[int]] | None = None
    """(inputs, config) -> number of tiles of each image. By default an image's share of the encoder's tokens
    is its share of the image tokens in the LLM's sequence."""
    unpack: Callable[[Tensor, Inputs, Any], Tensor] | None = None
    """(encoder states, inputs, config) -> (tiles, tokens, width), without padding. By default they are that."""
    block_lists: tuple[str, ...] = ()
    """Module lists inside the encoder that hold its blocks. By default the longest one."""
    vision_width: Callable[[Any], int] | None = None
    """config -> width of what the projector is fed. By default `vision_config.hidden_size` for each layer used."""
    cross_attends: bool = False
    """The LLM reads the image by cross-attention; its sequence holds no image tokens."""
    prefix_attention: bool = False
    """All tokens of the prompt see each other, those before the image too; only the answer (token type 1) is causal."""
    first_position: int = 0
    """Position of the first token of the LLM's sequence."""
    padding_last: tuple[tuple[str, str], ...] = ()
    """Inputs (tokens, mask) whose padding must follow the tokens, because padding before or among them would shift
    their positions. By default it may be anywhere."""


def _anyres_tiles(inputs: Inputs, config: Any) -> list[int]:
    """LLaVA-NeXT's own count: crops of the best fitting grid, and the whole image."""
    side = config.vision_config.image_size
    return [
        image_size_to_num_patches(size, config.image_grid_pinpoints, side) for size in inputs["image_sizes"]
    ]


def _undo_pixel_shuffle(hidden: Tensor, _inputs: Inputs, config: Any) -> Tensor:
    """InternVL merges neighbouring patches before its projector; lay them side by side again."""
    return hidden.reshape(len(hidden), -1, config.vision_config.hidden_size)


def _real_tiles(hidden: Tensor, inputs: Inputs, config: Any) -> Tensor:
    """Mllama pads every image to `max_num_tiles` tiles and, inside its encoder, every tile to a multiple of 8."""
    vision = config.vision_config
    real = inputs["aspect_ratio_mask"].flatten().bool().to(hidden.device)
    tokens = (vision.image_size // vision.patch_size) ** 2 + 1
    return hidden.reshape(len(real), -1, hidden.shape[-1])[real, :tokens]


def _channels_last(hidden: Tensor, _inputs: Inputs, _config: Any) -> Tensor:
    """Convolutional encoders put out (batch, width, rows, columns); others' tokens stay as they are."""
    return hidden.flatten(2).transpose(1, 2) if hidden.ndim == 4 else hidden


_PROMPT = (("input_ids", "attention_mask"),)

QUIRKS: dict[str, Quirk] = {
    "llava_next": Quirk(tiles_per_image=_anyres_tiles),
    "llava_onevision": Quirk(tiles_per_image=_anyres_tiles),
    "internvl": Quirk(unpack=_undo_pixel_shuffle),
    "mllama": Quirk(
        tiles_per_image=lambda inputs, _config: inputs["aspect_ratio_mask"].sum((1, 2)).tolist(),
        unpack=_real_tiles,
        block_lists=("transformer.layers", "global_transformer.layers"),
        vision_width=lambda config: config.vision_config.vision_output_dim,
        cross_attends=True,
    ),
    "florence2": Quirk(
        unpack=_channels_last,
        block_lists=("blocks",),
        vision_width=lambda config: config.vision_config.embed_dim[-1],
        padding_last=_PROMPT,
    ),
    "fast_vlm": Quirk(unpack=_channels_last, vision_width=lambda config: config.vision_config.hidden_size),
    "blip-2": Quirk(padding_last=_PROMPT),
    "instructblip": Quirk(padding_last=(*_PROMPT, ("qformer_input_ids", "qformer_attention_mask"))),
    "paligemma": Quirk(prefix_attention=True, first_position=1),
    "qwen2_vl": Quirk(vision_width=lambda config: config.vision_config.embed_dim),
}


def _proven(name: str) -> str:
    return f"tests/fgdiag/test_families.py::test_family[{name}]"


_USUAL = ("vision.k", "vision", "projector", "llm.k", "llm.norm")
_DEEPSTACK = ("vision.k", "vision", "projector.k", "llm.k", "llm.norm")
"""`projector.1` is added to the residual stream behind `llm.0`, and so shows from `llm.1` on; and so forth."""
_NO_FINAL_NORM = ("vision.k", "vision", "projector", "llm.k")
"""BART normalises inside each block."""

FAMILIES: tuple[Family, ...] = (
    Family("Aya Vision", "aya_vision", _USUAL, _proven("aya_vision")),
    Family("BLIP-2", "blip-2", _USUAL, _proven("blip2")),
    Family("Florence-2", "florence2", _NO_FINAL_NORM, _proven("florence2")),
    Family("Gemma 3", "gemma3", _USUAL, _proven("gemma3")),
    Family("Idefics3", "idefics3", _USUAL, _proven("idefics3")),
    Family("InstructBLIP", "instructblip", _USUAL, _proven("instructblip")),
    Family("InternVL", "internvl", _USUAL, _proven("internvl")),
    Family("LLaVA", "llava", _USUAL, _proven("llava")),
    Family("LLaVA-NeXT", "llava_next", _USUAL, _proven("llava_next")),
    Family("LLaVA-OneVision", "llava_onevision", _USUAL, _proven("llava_onevision")),
    Family("Mistral 3", "mistral3", _USUAL, _proven("mistral3")),
    Family("Mllama", "mllama", _USUAL, _proven("mllama")),
    Family("PaliGemma", "paligemma", _USUAL, _proven("paligemma")),
    Family("Pixtral", "llava", _USUAL, _proven("pixtral")),
    Family("Qwen2-VL", "qwen2_vl", _USUAL, _proven("qwen2_vl")),
    Family("Qwen2.5-VL", "qwen2_5_vl", _USUAL, _proven("qwen2_5_vl")),
    Family("Qwen3-VL", "qwen3_vl", _DEEPSTACK, _proven("qwen3_vl")),
    Family("SmolVLM", "smolvlm", _USUAL, _proven("smolvlm")),
)
_PIXTRAL = ("llava", "pixtral")
"""Its `model_type` is LLaVA's; only the vision encoder tells them apart."""


def families() -> tuple[Family, ...]:
    """Every family that a test proves, each with the sites it has."""
    return FAMILIES


def quirk_of(model_type: str) -> Quirk:
    """What is special about a `model_type`; usually nothing."""
    return QUIRKS.get(model_type, Quirk())


def family_of(config: Any) -> str:
    """Name of a model's family; its `model_type` where no test proves that."""
    if (config.model_type, getattr(config.vision_config, "model_type", None)) == _PIXTRAL:
        return "Pixtral"
    return next((row.family for row in FAMILIES if row.model_type == config.model_type), config.model_type)
