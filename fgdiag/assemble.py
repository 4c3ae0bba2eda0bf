"""Join any vision encoder and any causal LLM of `transformers` into one ordinary VLM folder.

The joint is Aya Vision's (Dash et al., 2025): neighbouring patches are merged by pixel shuffle, layer-normed, and
projected by one SwiGLU layer. Its classes take any encoder and LLM through `AutoModel`, so the folder opens with
`AutoModelForImageTextToText.from_pretrained` and needs no code of ours.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

from fgdiag.errors import ModelNotSupported
from fgdiag.loading import load

if TYPE_CHECKING:
    from transformers import AyaVisionForConditionalGeneration, LlavaProcessor

IMAGE_TOKEN = "<image>"

# The image comes first, and a few tokens stand before it: readouts of those are the built-in negative control.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def assemble(
    encoder: str | Path, llm: str | Path, *, merge: int = 4, projector_width: int = 640, seed: int = 0
) -> "tuple[AyaVisionForConditionalGeneration, LlavaProcessor]":
    """Join an encoder and an LLM by an untrained projector.

    Parameters
    ----------
    encoder
        Hub id or folder of a ViT-like encoder with an image processor: it must put out one token per square
        patch behind one class token, as ViT, DeiT, DINO and DINOv2 do.
    llm
        Hub id or folder of a causal LLM with a tokenizer that speaks ChatML (`<|im_start|>`).
    merge
        `merge` x `merge` neighbouring patches become one image token.
    projector_width
        Width between the projector's two linear layers (halved by its gate).
    seed
        Of the projector's random weights.

    Returns
    -------
    AyaVisionForConditionalGeneration, LlavaProcessor
        In float32; encoder and LLM keep their weights.

    Raises
    ------
    ModelNotFound
        Where one of the two cannot be loaded.
    ModelNotSupported
        Where the patch grid cannot be merged so.
    """
    import torch
    from transformers import (
        AutoImageProcessor,
        AutoModel,
        AutoModelForCausalLM,
        AutoTokenizer,
        AyaVisionConfig,
        AyaVisionForConditionalGeneration,
        LlavaProcessor,
    )

    vision = load(AutoModel, encoder, {"dtype": torch.float32})
    language = load(AutoModelForCausalLM, llm, {"dtype": torch.float32})
    image_processor = load(AutoImageProcessor, encoder, {"backend": "pil"})
    tokenizer = load(AutoTokenizer, llm)

    patch = vision.config.patch_size
    side = image_processor.crop_size["height"] // patch
    if side % merge:
        raise ModelNotSupported(
            f"{encoder} sees {side} x {side} patches, which cannot be merged {merge} x {merge}: "
            f"choose a `merge` that divides {side}."
        )
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    vocabulary = max(len(tokenizer), language.config.vocab_size)
    language.resize_token_embeddings(vocabulary, mean_resizing=False)

    config = AyaVisionConfig(
        vision_config=vision.config,
        text_config=language.config,
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        downsample_factor=merge,
        alignment_intermediate_size=projector_width,  # pyright: ignore[reportCallIssue]  (read, but not declared)
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    model = AyaVisionForConditionalGeneration(config).eval()
    model.model.vision_tower.load_state_dict(vision.state_dict())
    model.model.language_model.load_state_dict(language.base_model.state_dict())
    model.lm_head.load_state_dict(language.lm_head.state_dict())
    # Image tokens should enter the LLM about as long as word embeddings are, or its attention ignores or floods them.
    projector = model.model.multi_modal_projector
    _scale_output(projector.linear_1, 1.0)
    _scale_output(projector.linear_2, _rms(model.get_input_embeddings().weight))
    model.generation_config = language.generation_config

    processor = LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=patch * merge,
        vision_feature_select_strategy="full",
        image_token=IMAGE_TOKEN,
        chat_template=CHAT_TEMPLATE,
    )
    return model, processor


def write_joined(encoder: str | Path, llm: str | Path, projector: Path, out: Path) -> None:
    """Join encoder and LLM by a trained projector and write the VLM, in bfloat16, as a `transformers` folder.

    Parameters
    ----------
    projector
        A safetensors file of the weights of the projector that `assemble` makes.
    """
    from safetensors.torch import load_file

    model, processor = assemble(encoder, llm)
    model.model.multi_modal_projector.load_state_dict(load_file(projector))
    model.bfloat16().save_pretrained(out)
    processor.save_pretrained(out)


def _rms(weight) -> float:
    return float(weight.detach().float().square().mean().sqrt())


def _scale_output(linear, rms: float) -> None:
    """Draw the weights so that unit-variance inputs give outputs of this root mean square."""
    import torch

    torch.nn.init.normal_(linear.weight, std=rms / math.sqrt(linear.in_features))
    torch.nn.init.zeros_(linear.bias)
