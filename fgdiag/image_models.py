"""Open any image model with its own image processor: a transformer, a CNN, or one that was trained with texts.

Of each image it gives what the model has of these, each one vector:

`cls`    the class token
`image`  mean over the patches, or over the last feature map
`embed`  the embedding that a model trained with texts (CLIP, SigLIP) compares with those of texts
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from torch import Tensor
from transformers import AutoBackbone, AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

from fgdiag.by_name import ENCODERS
from fgdiag.errors import ModelNotFound, ModelNotSupported, SiteNeverRan
from fgdiag.fingerprint import fingerprint_of
from fgdiag.loading import load
from fgdiag.placement import device_for, dtype_for
from fgdiag.progress import say
from fgdiag.sources import source_of

FIXED_LENGTH = ("siglip", "siglip2")
"""Families whose texts are filled up to 64 tokens, all of which they attend to, as in their training."""
TEXTS_AT_ONCE = 256


class ImageModel:
    """An image model with its processor, and with a tokenizer where it reads texts too. See `open_image_model`."""

    def __init__(
        self, model: Any, processor: Any, tokenizer: Any = None, *, name: str, revision: str | None = None
    ) -> None:
        self.model, self.processor, self.tokenizer = model.eval(), processor, tokenizer
        self.name, self.revision = name, revision

    def __repr__(self) -> str:
        reads = "images and texts" if self.reads_texts else "images"
        return f"ImageModel({self.name!r}, {self.model.config.model_type}, reads {reads}, {self.dtype}, {self.device})"

    @property
    def device(self) -> torch.device:
        """Where the inputs go."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights."""
        return self.model.dtype

    @property
    def reads_texts(self) -> bool:
        """Whether images can be compared with texts."""
        return self.tokenizer is not None and hasattr(self.model, "get_text_features")

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits that change with the weights, the config or how images are prepared."""
        prepared = json.dumps(self.processor.to_dict(), sort_keys=True, default=str)
        return hashlib.blake2b((fingerprint_of(self.model) + prepared).encode(), digest_size=16).hexdigest()

    @cached_property
    def scale(self) -> float:
        """By what cosines of images and texts become logits; 100, as CLIP's own, where none was learnt."""
        learnt = getattr(self.model, "logit_scale", None)
        return 100.0 if learnt is None else float(learnt.detach().exp())

    def features(self, pictures: Sequence[Image.Image]) -> dict[str, np.ndarray]:
        """Show the model a batch of RGB images.

        Returns
        -------
        dict
            Those of `cls`, `image` and `embed` that the model has: (images, width) float32.

        Raises
        ------
        SiteNeverRan
            What came out is not finite.
        """
        inputs = self.processor(images=list(pictures), return_tensors="pt").to(self.device, self.dtype)
        with torch.inference_mode():
            pooled = self._pooled(inputs)
        found = {name: vectors.float().cpu().numpy() for name, vectors in pooled.items()}
        if not all(np.isfinite(vectors).all() for vectors in found.values()):
            raise SiteNeverRan(
                f"The features of {self.name} are not finite in {self.dtype}: try dtype float32 or bfloat16."
            )
        return found

    def text_embeddings(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, width) float32 embeddings of unit length, to be compared with those of images."""
        parts = [texts[at : at + TEXTS_AT_ONCE] for at in range(0, len(texts), TEXTS_AT_ONCE)]
        with torch.inference_mode():
            found = torch.cat(
                [_embedding(self.model.get_text_features(**self._tokens(part))) for part in parts]
            )
        return torch.nn.functional.normalize(found.float(), dim=-1).cpu().numpy()

    def _tokens(self, texts: Sequence[str]) -> Any:
        config = self.model.config
        options: dict[str, Any] = {"padding": True, "truncation": True, "return_tensors": "pt"}
        options["max_length"] = getattr(config.get_text_config(), "max_position_embeddings", None)
        if config.model_type in FIXED_LENGTH:
            options |= {"padding": "max_length", "max_length": min(64, options["max_length"] or 64)}
            options["return_attention_mask"] = False  # the padding was seen in training too
        return self.tokenizer(list(texts), **options).to(self.device)

    def _pooled(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if hasattr(self.model, "get_image_features"):
            output = self.model.get_image_features(**inputs)
            return {**self._tokens_pooled(output, inputs), "embed": _embedding(output)}
        return self._tokens_pooled(self.model(**inputs), inputs)

    def _tokens_pooled(self, output: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        hidden = _last_hidden(output)
        if hidden is None:
            return {}
        if hidden.ndim == 4:  # (images, width, rows, columns)
            return {"image": hidden.float().mean((2, 3))}
        mask = inputs.get("pixel_attention_mask")
        if mask is not None and mask.shape == hidden.shape[:2]:
            weights = (mask / mask.sum(1, keepdim=True)).to(hidden.dtype)
            return {"image": torch.einsum("bt,btw->bw", weights, hidden)}
        before = _tokens_before_the_patches(self.model.config, inputs["pixel_values"], hidden.shape[1])
        patches = {"image": hidden[:, before:].float().mean(1)}
        return {"cls": hidden[:, 0], **patches} if before else patches


def open_image_model(
    model: str | Path,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> ImageModel:
    """Open an image model: DINOv2, CLIP, SigLIP, ConvNeXt, EfficientNet, or another that `transformers` knows.

    Models of `timm` open too where that package is installed.

    Parameters
    ----------
    model
        Hub id, folder, or one of the names of `fgdiag.by_name.ENCODERS`.
    dtype, device, revision, trust_remote_code
        As in `fgdiag.open_vlm`.

    Raises
    ------
    ModelNotFound
        No such model, no image processor with it, or it cannot be loaded as asked.
    ModelNotSupported
        It does not take images alone, such as a language model or a whole VLM.

    Examples
    --------
    >>> open_image_model("efficientnet-lite0").features([picture])["image"].shape
    (1, 1280)
    """
    name = str(model)
    source = str(ENCODERS[name]()) if name in ENCODERS else source_of(name)
    hub: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    config, place = load(AutoConfig, source, hub), device_for(device)
    loader = _loader(name, config, trust_remote_code)
    processor = load(AutoImageProcessor, source, hub)
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0  # masked autoencoders would hide three quarters of the image
    options = {**hub, "config": config, "dtype": dtype_for(dtype, place, config)}
    opened = load(loader, source, options).to(place)
    revision = getattr(config, "_commit_hash", None) or revision
    return ImageModel(opened, processor, _tokenizer(opened, source, hub), name=name, revision=revision)


def _loader(name: str, config: Any, trusted: bool) -> Any:
    """Return the class that loads a model of this config."""
    if type(config) in transformers.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ModelNotSupported(
            f"{name} is a whole vision-language model ({config.model_type}); expected a model of images alone, such as "
            "its vision encoder. Give facebook/dinov2-base, openai/clip-vit-base-patch16 or another."
        )
    if type(config) in transformers.MODEL_MAPPING or trusted:
        return AutoModel
    if type(config) in transformers.MODEL_FOR_BACKBONE_MAPPING:
        return AutoBackbone
    raise ModelNotSupported(
        f"{name} is a {config.model_type!r} model, which is none of images that `transformers` opens. "
        "Give an image model, such as facebook/dinov2-base."
    )


def _tokenizer(model: Any, source: str, hub: dict[str, Any]) -> Any:
    """Return the tokenizer of a model that reads texts; None, with a word on stderr, where it cannot be loaded."""
    if not hasattr(model, "get_text_features"):
        return None
    try:
        return load(AutoTokenizer, source, hub)
    except ModelNotFound as error:
        say(f"no tokenizer, so no zero-shot baseline: {error}")
        return None


def _embedding(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def _last_hidden(output: Any) -> Tensor | None:
    """Return the last feature map or the last tokens of an output, where it has some."""
    maps = getattr(output, "feature_maps", None)
    return maps[-1] if maps else getattr(output, "last_hidden_state", None)


def _tokens_before_the_patches(config: Any, pixels: Tensor, tokens: int) -> int:
    """Count the tokens that are no patch: the class token, and registers behind it; 0 where there is none."""
    side = getattr(getattr(config, "vision_config", config), "patch_size", None)
    if not side or pixels.ndim != 4:
        return 0
    height, width = (side, side) if isinstance(side, int) else side
    patches = (pixels.shape[2] // height) * (pixels.shape[3] // width)
    return max(0, tokens - patches)
