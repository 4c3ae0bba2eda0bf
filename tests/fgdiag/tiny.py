"""Tiny random VLMs of every family with real processors, no download. Vision and text differ in width and depth."""

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

VISION_WIDTH, VISION_BLOCKS = 32, 3
TEXT_WIDTH, TEXT_BLOCKS = 48, 4
IMAGE_SIDE, PATCH = 28, 14

Built = tuple[PreTrainedModel, ProcessorMixin]

TEMPLATE = (
    "{% for m in messages %}<s>{{ m['role'] }}: {% for part in m['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def unequal_images() -> list[Image.Image]:
    """Three images of three shapes: wide, tall and small."""
    return [noise(70, 40, 1), noise(33, 90, 2), noise(30, 30, 3)]


def tokenizer(*special: str, **named: str) -> PreTrainedTokenizerFast:
    """One token a byte, and the special tokens a processor wants; `named` become attributes (`image_token=`)."""
    names = ["<pad>", "<s>", "</s>", *special, *named.values()]
    vocabulary = {token: index for index, token in enumerate(names)}
    vocabulary |= {token: index for index, token in enumerate(sorted(ByteLevel.alphabet()), start=len(names))}
    base = Tokenizer(BPE(vocabulary, []))
    base.pre_tokenizer = ByteLevel(add_prefix_space=False)
    base.decoder = ByteLevelDecoder()
    base.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in names])
    return PreTrainedTokenizerFast(
        tokenizer_object=base,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens=named,
    )


def template(marker: str) -> str:
    return TEMPLATE.replace("IMAGE", marker)


def seeded(build: type[PreTrainedModel], config) -> PreTrainedModel:
    """Random weights with a spread wide enough that every site differs clearly from every other."""
    torch.manual_seed(0)
    model = build(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def vision_sizes(**more) -> dict:
    return {
        "hidden_size": VISION_WIDTH,
        "intermediate_size": 40,
        "num_hidden_layers": VISION_BLOCKS,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIDE,
        "patch_size": PATCH,
    } | more


def text_sizes(words: PreTrainedTokenizerFast, **more) -> dict:
    return {
        "hidden_size": TEXT_WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": TEXT_BLOCKS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": len(words),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | more


def llava(layer: int | list[int] = -2) -> Built:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = tokenizer(image_token="<image>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision_sizes()),
        text_config=LlamaConfig(**text_sizes(words)),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        vision_feature_layer=layer,
        image_seq_length=4,
    )
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIDE}, crop_size=side),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return seeded(LlavaForConditionalGeneration, config), processor


def aya_vision() -> Built:
    """DINOv2, whose class token is dropped, joined to Llama by pixel shuffle."""
    from transformers import (
        AyaVisionConfig,
        AyaVisionForConditionalGeneration,
        AyaVisionProcessor,
        Cohere2Config,
        SiglipVisionConfig,
    )
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    words = tokenizer(
        "<image>",
        "<|START_OF_IMG|>",
        "<|END_OF_IMG|>",
        "<|IMG_PATCH|>",
        "<|IMG_LINE_BREAK|>",
        "TILE",
        "TILE_GLOBAL",
    )
    config = AyaVisionConfig(
        vision_config=SiglipVisionConfig(**vision_sizes()),
        text_config=Cohere2Config(**text_sizes(words), sliding_window=64),
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    side = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
    processor = AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size=side, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=words,
        patch_size=PATCH,
        img_size=IMAGE_SIDE,
        downsample_factor=2,
        chat_template=template("<image>"),
    )
    return seeded(AyaVisionForConditionalGeneration, config), processor
