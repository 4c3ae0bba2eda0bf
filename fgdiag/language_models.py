"""Open a causal language model with its tokenizer: from the hub, a folder, a GGUF file, or by a short name."""

from pathlib import Path
from typing import Any

from fgdiag.backbones import language_model_from_gguf
from fgdiag.by_name import LANGUAGE_MODELS
from fgdiag.errors import ModelNotSupported
from fgdiag.loading import load


def open_language_model(model: str | Path, *, layers: int | None = None) -> tuple[Any, Any]:
    """Open a causal LLM and its tokenizer, in float32 on the CPU.

    Parameters
    ----------
    model
        Hub id, folder, GGUF file, or one of the names of `fgdiag.by_name.LANGUAGE_MODELS`.
    layers
        How many decoder layers to keep, from the first on; None for all. What is left is a weaker LLM of the same
        vocabulary and width, whose final norm and head were trained for the whole.

    Returns
    -------
    PreTrainedModel, PreTrainedTokenizerBase

    Raises
    ------
    ModelNotFound
        No such model, or no tokenizer with it.
    ModelNotSupported
        It has fewer layers than are to be kept.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    name = str(model)
    if name.endswith(".gguf"):
        file = Path(name).expanduser()
        tokenizer = load(AutoTokenizer, file.parent, {"gguf_file": file.name})
        return _shortened(language_model_from_gguf(file), layers, name), tokenizer
    source = LANGUAGE_MODELS[name]() if name in LANGUAGE_MODELS else model
    config = load(AutoConfig, source)
    opened = load(AutoModelForCausalLM, source, {"config": config, "dtype": torch.float32})
    return _shortened(opened, layers, name), load(AutoTokenizer, source)


def _shortened(opened: Any, layers: int | None, name: str) -> Any:
    """Keep the first `layers` decoder layers."""
    if layers is None:
        return opened
    config, blocks = opened.config, opened.base_model.layers
    if not 1 <= layers <= len(blocks):
        raise ModelNotSupported(f"{name} has {len(blocks)} layers; got {layers} to keep, expected 1 to that.")
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    del blocks[layers:]
    return opened
