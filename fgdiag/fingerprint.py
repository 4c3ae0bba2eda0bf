"""Tell models apart by what they are made of, whatever they are called."""

import hashlib
import json
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SAMPLES_PER_TENSOR = 1024
MOVING = ("_name_or_path", "transformers_version")
"""Entries of a config that say where a model lies and who reads it, not what it is."""


def fingerprint_of(model: "PreTrainedModel") -> str:
    """32 hex digits that change with the config or with any weight tensor (1024 values of each are hashed)."""
    config = {name: value for name, value in model.config.to_dict().items() if name not in MOVING}
    digest = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=16)
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(_sampled_bytes(parameter.detach()))
    return digest.hexdigest()


def _sampled_bytes(tensor: Tensor) -> bytes:
    flat = tensor.reshape(-1)
    picked = flat[:: max(1, flat.numel() // SAMPLES_PER_TENSOR)].contiguous().cpu()
    return picked.view(torch.uint8).numpy().tobytes()
