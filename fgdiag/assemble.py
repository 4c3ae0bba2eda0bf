"""Join any vision encoder and any causal LLM of `transformers` into one ordinary VLM folder.

The joint is one that `transformers` has: Aya Vision's merges neighbouring patches (Dash et al., 2025), LLaVA's takes
each patch (Liu et al., 2023), FastVLM's the cells of a convolutional network (Vasu et al., 2025). Their classes take
any encoder and LLM through `AutoModel`, so the folder opens with `AutoModelForImageTextToText.from_pretrained` and
needs no code of ours.
"""

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fgdiag.by_name import ENCODERS
from fgdiag.chat_template import IMAGE_TOKEN, chat_template
from fgdiag.errors import ModelNotSupported
from fgdiag.language_models import open_language_model
from fgdiag.loading import first_line, load
from fgdiag.store import writing_to

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PreTrainedModel

Projector = Literal["pixel-shuffle", "mlp", "linear"]
PROJECTORS: tuple[Projector, ...] = ("pixel-shuffle", "mlp", "linear")
_SAMPLE = "Here is a sentence to be read by both."


@dataclass(frozen=True)
class Encoder:
    """A vision encoder, how images are prepared for it, and what it puts out.

    Attributes
    ----------
    side
        Pixels of a side of the image it is shown.
    grid
        Patches of a side, or cells of a convolutional network.
    class_token
        Whether a class token stands before the patches.
    convolutional
        Whether it puts out a map of features and not a row of tokens.
    """

    model: Any
    processor: Any
    side: int
    grid: int
    class_token: bool
    convolutional: bool


def assemble(
    encoder: str | Path,
    llm: str | Path,
    *,
    projector: Projector = "pixel-shuffle",
    merge: int = 4,
    projector_width: int = 640,
    resolution: int | None = None,
    llm_layers: int | None = None,
    seed: int = 0,
) -> "tuple[PreTrainedModel, LlavaProcessor]":
    """Join an encoder and an LLM by an untrained projector.

    Parameters
    ----------
    encoder
        Hub id, folder or short name (`fgdiag.by_name.ENCODERS`) of an image model: one that puts out a token per
        square patch, with or without a class token (ViT, DeiT, DINO, DINOv2, CLIP, SigLIP), or a convolutional one
        (EfficientNet, ResNet, ConvNeXt). Of a model of images and texts its image half is taken.
    llm
        Hub id, folder, GGUF file or short name of a causal LLM, see `open_language_model`.
    projector
        `pixel-shuffle`: `merge` x `merge` neighbouring patches become one image token, through a gated layer.
        `mlp`: two layers for every patch, as LLaVA-1.5's. `linear`: the same without anything between the two.
    merge, projector_width
        Of `pixel-shuffle`; its width between the two linear layers is halved by its gate.
    resolution
        Side in pixels at which the encoder is shown images; by default the encoder's own.
    llm_layers
        How many layers of the LLM to keep; all by default.
    seed
        Of the projector's random weights.

    Returns
    -------
    PreTrainedModel, LlavaProcessor
        In float32; encoder and LLM keep their weights.

    Raises
    ------
    ModelNotFound
        One of the two cannot be loaded.
    ModelNotSupported
        The encoder's tokens are no grid, or one that cannot be merged so; or the LLM's head is more than a linear
        map, so that it would say other things in a VLM than it does by itself.
    """
    import torch
    from transformers import LlavaProcessor

    if projector not in PROJECTORS:
        raise ModelNotSupported(
            f"There is no projector {projector!r}; expected one of {', '.join(PROJECTORS)}."
        )
    eye = _open_encoder(encoder, resolution)
    language, tokenizer = open_language_model(llm, layers=llm_layers)
    if getattr(language.get_output_embeddings(), "bias", None) is not None:
        raise ModelNotSupported(
            f"The head of {llm} has a bias, for which a VLM has no place: choose another LLM."
        )
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    expected = _logits(language, tokenizer)
    torch.manual_seed(seed)  # of the projector, and of the image token's own embedding, which is never used
    language.resize_token_embeddings(max(len(tokenizer), language.config.vocab_size), mean_resizing=False)
    image_token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    model = _joined(eye, language, image_token, projector, merge, projector_width)
    _check_head(model, tokenizer, expected, str(llm))

    merged = merge if projector == "pixel-shuffle" else 1
    processor = LlavaProcessor(
        image_processor=eye.processor,
        tokenizer=tokenizer,
        patch_size=eye.side // eye.grid * merged,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        chat_template=chat_template(tokenizer),
    )
    return model, processor


def write_assembled(model: Any, processor: Any, out: Path) -> Path:
    """Write an assembled VLM, in bfloat16, as a `transformers` folder; `config.json` comes last, when it is whole."""
    out.mkdir(parents=True, exist_ok=True)
    with writing_to(out), tempfile.TemporaryDirectory(prefix=".writing-", dir=out) as scratch:
        model.bfloat16().save_pretrained(scratch)
        processor.save_pretrained(scratch)
        for file in sorted(Path(scratch).iterdir(), key=lambda file: file.name == "config.json"):
            file.replace(out / file.name)
    return out


def _open_encoder(encoder: str | Path, resolution: int | None) -> Encoder:
    import torch
    from PIL import Image
    from transformers import AutoConfig, AutoImageProcessor, AutoModel

    name = str(encoder)
    source = ENCODERS[name]() if name in ENCODERS else encoder
    config = load(AutoConfig, source)
    config = getattr(config, "vision_config", config)
    model = load(AutoModel, source, {"config": config, "dtype": torch.float32})
    processor = load(AutoImageProcessor, source, {"backend": "pil"})
    if resolution is not None:
        _show_at(processor, resolution)
    pixels = processor(Image.new("RGB", (320, 240)), return_tensors="pt")["pixel_values"]
    try:
        with torch.inference_mode():
            hidden = model(pixels).last_hidden_state
    except (ValueError, RuntimeError, AttributeError) as error:
        raise ModelNotSupported(
            f"{name} cannot be shown images of {tuple(pixels.shape[-2:])} pixels: {first_line(error)}. "
            "Give a vision encoder, and its own resolution."
        ) from error
    return _measured(name, model, processor, pixels.shape[-1], hidden)


def _measured(name: str, model: Any, processor: Any, side: int, hidden: Any) -> Encoder:
    """See what shape the encoder's output has."""
    if hidden.ndim == 4:
        model.config.hidden_size = hidden.shape[1]  # FastVLM's projector asks the config for it
        return Encoder(model, processor, side, hidden.shape[-1], class_token=False, convolutional=True)
    tokens = hidden.shape[1]
    patch = getattr(model.config, "patch_size", None)
    grid = side // patch if isinstance(patch, int) else math.isqrt(tokens)
    others = tokens - grid * grid
    if others not in (0, 1):
        raise ModelNotSupported(
            f"{name} puts out {tokens} tokens, expected one for each cell of a square grid, perhaps with one class "
            "token: encoders with registers or tiles cannot be joined."
        )
    return Encoder(model, processor, side, grid, class_token=bool(others), convolutional=False)


def _show_at(processor: Any, side: int) -> None:
    """Let an image processor prepare images of another side, cut as before."""
    square = {"height": side, "width": side}
    processor.size = square if "height" in processor.size else {"shortest_edge": side}
    if getattr(processor, "crop_size", None) is not None:
        processor.crop_size = square


def _joined(
    eye: Encoder, language: Any, image_token: int, projector: Projector, merge: int, width: int
) -> Any:
    """Build the VLM around the two models' weights."""
    from transformers import (
        AyaVisionConfig,
        AyaVisionForConditionalGeneration,
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        LlavaConfig,
        LlavaForConditionalGeneration,
    )

    shared: dict[str, Any] = {
        "vision_config": eye.model.config,
        "text_config": language.config,
        "image_token_index": image_token,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default" if eye.class_token else "full",
        "tie_word_embeddings": language.config.tie_word_embeddings,
    }
    if projector == "pixel-shuffle":
        _check_mergeable(eye, merge)
        sizes: Any = {"downsample_factor": merge, "alignment_intermediate_size": width}
        model: Any = AyaVisionForConditionalGeneration(AyaVisionConfig(**shared, **sizes))
    else:
        shared["projector_hidden_act"] = "gelu" if projector == "mlp" else "linear"
        if eye.convolutional:
            model = FastVlmForConditionalGeneration(FastVlmConfig(**shared))
        else:
            model = LlavaForConditionalGeneration(LlavaConfig(**shared))
    model.eval()
    model.model.vision_tower.load_state_dict(eye.model.state_dict())
    model.model.language_model.load_state_dict(language.base_model.state_dict())
    model.lm_head.load_state_dict(language.get_output_embeddings().state_dict())
    model.generation_config = language.generation_config
    _scale_projector(model)
    return model


def _check_mergeable(eye: Encoder, merge: int) -> None:
    if eye.convolutional:
        raise ModelNotSupported(
            f"A convolutional encoder has merged its image into {eye.grid} x {eye.grid} cells already: choose the "
            "projector mlp or linear."
        )
    if eye.grid % merge:
        raise ModelNotSupported(
            f"The encoder sees {eye.grid} x {eye.grid} patches, which cannot be merged {merge} x {merge}: "
            f"choose a `merge` that divides {eye.grid}."
        )


def _scale_projector(model: Any) -> None:
    """Let image tokens enter the LLM about as long as word embeddings are, or its attention ignores or floods them."""
    import torch

    projector = model.model.multi_modal_projector
    some_words = torch.arange(min(4096, model.config.text_config.vocab_size))
    words = model.get_input_embeddings()(
        some_words
    ).detach()  # Gemma's embedding layer scales what it looks up
    _scale_output(projector.linear_1, 1.0)
    _scale_output(projector.linear_2, float(words.square().mean().sqrt()))


def _scale_output(linear: Any, rms: float) -> None:
    """Draw the weights so that unit-variance inputs give outputs of this root mean square."""
    import torch

    torch.nn.init.normal_(linear.weight, std=rms / math.sqrt(linear.in_features))
    torch.nn.init.zeros_(linear.bias)


def _logits(model: Any, tokenizer: Any) -> Any:
    import torch

    with torch.inference_mode():
        return model(**tokenizer(_SAMPLE, return_tensors="pt", return_token_type_ids=False)).logits


def _check_head(model: Any, tokenizer: Any, expected: Any, llm: str) -> None:
    """Make sure that the LLM says in the VLM what it says by itself."""
    import torch

    found = _logits(model, tokenizer)[..., : expected.shape[-1]]
    if not torch.allclose(found, expected, atol=1e-3, rtol=1e-3):
        raise ModelNotSupported(
            f"{llm} does more behind its last layer than a linear map (such as scaled or capped logits), which a "
            f"VLM would leave out: its logits would change by up to {float((found - expected).abs().max()):.2g}. "
            "Choose another LLM."
        )
