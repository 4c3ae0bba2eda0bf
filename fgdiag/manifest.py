"""What a run is made of, as its manifest says: the model, the images, and what is asked about them."""

import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from fgdiag.family_table import quirk_of
from fgdiag.image_set import ImageSet
from fgdiag.prompts import FINE_QUESTION
from fgdiag.recording import manifest_in
from fgdiag.sites import READOUTS, TOKENS

if TYPE_CHECKING:
    from fgdiag.vlm import VLM


def asked_for(
    images: ImageSet, *, prompt: str | None = None, readouts: Sequence[str] = READOUTS, seed: int = 0
) -> dict[str, Any]:
    """Return what of the manifest of a run is known before the model is opened; arguments as of `extract`."""
    return {
        "prompt": prompt or FINE_QUESTION,
        "readouts": [name for name in READOUTS if name in readouts],
        "seed": seed,
        "images": {
            "name": images.name,
            "source": images.source or images.name,
            "digest": images.digest,
            "count": len(images),
            "levels": list(images.levels),
        },
    }


def made_of(vlm: "VLM") -> dict[str, Any]:
    """What of the manifest is decided by the model."""
    return {
        "model": vlm.name,
        "revision": vlm.revision,
        "fingerprint": vlm.fingerprint,
        "dtype": str(vlm.dtype).removeprefix("torch."),
        "device": str(vlm.device),
        "model_type": vlm.anatomy.model_type,
        "processor": type(vlm.processor).__name__,
        "image_tokens": vlm.anatomy.image_tokens,
        "parts": {part: asdict(size) for part, size in vlm.anatomy.parts.items()},
        "llm_blocks": sum(
            spec.site.part == "llm" and spec.site.index != "norm" for spec in vlm.anatomy.sites
        ),
        "causal": _is_causal(vlm),
        "class_token_fed": vlm.anatomy.site("vision").class_path is None,
        "versions": {
            "fgdiag": version("fgdiag"),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
    }


def recorded_tokens(path: Path, asked: dict[str, Any], sites: Sequence[str] | None) -> list[str] | None:
    """Return at which of `sites` (None: all) the run at `path` keeps tokens; None where there is no run.

    Errors as `manifest_in`.
    """
    manifest = manifest_in(path, asked)
    if manifest is None:
        return None
    kept = [site["site"] for site in manifest["sites"] if TOKENS in site]
    return [site for site in kept if sites is None or site in sites]


def _is_causal(vlm: "VLM") -> bool:
    """Whether tokens before the image cannot see it, so that `pre` is a control."""
    text = vlm.model.config.get_text_config()
    sees_ahead = quirk_of(vlm.anatomy.model_type).prefix_attention
    return not sees_ahead and not getattr(text, "is_encoder_decoder", False)
