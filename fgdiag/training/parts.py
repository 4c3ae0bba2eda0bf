"""Which parts of an assembled VLM learn: freeze all, let some learn, and make it a plain model again."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fgdiag.errors import ModelNotSupported
from fgdiag.training.plan import Stage

ASSEMBLED = ("aya_vision", "fast_vlm", "llava")
"""Model types that `fgdiag assemble` makes."""
LORA_SCALE = 2.0
_LANGUAGE = ("model.language_model.", "lm_head.")
_BEGINNINGS = {
    "projector": ("model.multi_modal_projector.",),
    "encoder": ("model.vision_tower.",),
    "llm": _LANGUAGE,
    "llm-lora": _LANGUAGE,
}
"""Of the names of a part's weights."""


def check_assembled(model: Any, name: str) -> None:
    """Raise `ModelNotSupported` where a model is not built as `fgdiag assemble` builds one."""
    kind = model.config.model_type
    if kind not in ASSEMBLED:
        raise ModelNotSupported(
            f"{name} is a {kind!r} model; expected one that `fgdiag assemble` has written ({', '.join(ASSEMBLED)})."
        )


def let_learn(model: Any, stage: Stage, frozen: torch.dtype) -> None:
    """Freeze a model in a fast number format, and let the parts of a stage learn in float32.

    A step of a thousandth of a weight would be lost in bfloat16. The projector, which costs little, is always in
    float32.
    """
    model.requires_grad_(False).to(frozen)
    model.model.multi_modal_projector.float()
    for part in stage.train:
        if part == "llm-lora":
            _add_adapters(model, stage.lora_rank)
            continue
        for module in _modules(model, part):
            module.requires_grad_(True).float()


def merge_adapters(model: Any) -> None:
    """Add what low-rank adapters have learnt to the weights of the LLM, and take them out."""
    language = model.model.language_model
    if hasattr(language, "merge_and_unload"):
        model.model.language_model = language.merge_and_unload()


def learning(model: Any) -> dict[str, Tensor]:
    """Weights that learn, by name."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def learnt(model: Any, stages: Sequence[Stage]) -> dict[str, Tensor]:
    """All weights of the parts that some stages have changed, by name; adapters must be merged before."""
    begins = tuple(start for stage in stages for part in stage.train for start in _BEGINNINGS[part])
    return {name: weight for name, weight in model.named_parameters() if name.startswith(begins)}


def _modules(model: Any, part: str) -> list[Any]:
    """Modules of a part; the head is often one with the word embeddings, and learns with them."""
    trunk = model.model
    return {
        "projector": [trunk.multi_modal_projector],
        "encoder": [trunk.vision_tower],
        "llm": [trunk.language_model, model.lm_head],
    }[part]


def _add_adapters(model: Any, rank: int) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=LORA_SCALE * rank, target_modules="all-linear")  # pyright: ignore[reportArgumentType]
    model.model.language_model = get_peft_model(model.model.language_model, config)
