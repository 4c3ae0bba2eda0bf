"""Tiny random VLMs of every family with real processors, no download. Vision and text differ in width and depth."""

import sys
from types import SimpleNamespace
from unittest.mock import patch

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
IMAGE_SIDE, PATCH = 56, 14
SQUARE = {"height": IMAGE_SIDE, "width": IMAGE_SIDE}
WHOLE, TILE = {"longest_edge": 2 * IMAGE_SIDE}, {"longest_edge": IMAGE_SIDE}
PINPOINTS = [[IMAGE_SIDE, 2 * IMAGE_SIDE], [2 * IMAGE_SIDE, IMAGE_SIDE], [2 * IMAGE_SIDE, 2 * IMAGE_SIDE]]

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
    """Wide, tall, small and large: they differ in their number of tiles or patches, where a family has that."""
    return [noise(70, 40, 1), noise(33, 90, 2), noise(30, 30, 3), noise(150, 100, 4)]


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


def token_id(words: PreTrainedTokenizerFast, token: str) -> int:
    found = words.convert_tokens_to_ids(token)
    assert isinstance(found, int), f"{token} is several tokens"
    return found


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


def llava(layer: int | list[int] = -2, *, class_token: bool = False) -> Built:
    """LLaVA-1.5; `layer` as in `vision_feature_layer`, `class_token`: whether the projector is fed that too."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = tokenizer(image_token="<image>")
    strategy = "full" if class_token else "default"
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision_sizes()),
        text_config=LlamaConfig(**text_sizes(words)),
        image_token_index=token_id(words, "<image>"),
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        image_seq_length=16 + class_token,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIDE}, crop_size=SQUARE),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return seeded(LlavaForConditionalGeneration, config), processor


def aya_vision() -> Built:
    """Several crops an image, pixel shuffle inside the projector."""
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
        image_token_index=token_id(words, "<|IMG_PATCH|>"),
        downsample_factor=2,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    processor = AyaVisionProcessor(
        image_processor=GotOcr2ImageProcessorPil(
            size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4
        ),
        tokenizer=words,
        patch_size=PATCH,
        img_size=IMAGE_SIDE,
        downsample_factor=2,
        chat_template=template("<image>"),
    )
    return seeded(AyaVisionForConditionalGeneration, config), processor


def llava_next() -> Built:
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextProcessor,
    )
    from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

    words = tokenizer(image_token="<image>")
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(**vision_sizes()),
        text_config=LlamaConfig(**text_sizes(words)),
        image_token_index=token_id(words, "<image>"),
        image_grid_pinpoints=PINPOINTS,
    )
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": IMAGE_SIDE}, crop_size=SQUARE, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=words,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template("<image>\n"),
    )
    return seeded(LlavaNextForConditionalGeneration, config), processor


def llava_onevision() -> Built:
    from transformers import (
        LlavaOnevisionConfig,
        LlavaOnevisionForConditionalGeneration,
        LlavaOnevisionProcessor,
        Qwen2Config,
        SiglipVisionConfig,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )

    words = tokenizer(image_token="<image>", video_token="<video>")
    config = LlavaOnevisionConfig(
        vision_config=SiglipVisionConfig(**vision_sizes(vision_use_head=False)),
        text_config=Qwen2Config(**text_sizes(words)),
        image_token_index=token_id(words, "<image>"),
        video_token_index=token_id(words, "<video>"),
        image_grid_pinpoints=PINPOINTS,
    )
    processor = without_video(LlavaOnevisionProcessor)(
        image_processor=LlavaOnevisionImageProcessorPil(size=SQUARE, image_grid_pinpoints=PINPOINTS),
        tokenizer=words,
        num_image_tokens=16,
        vision_feature_select_strategy="full",
        chat_template=template("<image>\n"),
        video_processor=None,
    )
    return seeded(LlavaOnevisionForConditionalGeneration, config), processor


def without_video(kind: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """Take a processor without its video half, which transformers offers only beside torchvision."""

    def check(self, name: str, argument: object) -> object:
        return (
            None if name == "video_processor" else kind.check_argument_for_proper_class(self, name, argument)
        )

    return type(kind.__name__, (kind,), {"check_argument_for_proper_class": check})


def blip2(t5: bool = False) -> Built:
    """With OPT, or with T5 as in `blip2-flan-t5-xl`: then the LLM is an encoder-decoder."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        OPTConfig,
        T5Config,
    )
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    words = tokenizer()
    processor = Blip2Processor(BlipImageProcessorPil(size=SQUARE), words, num_query_tokens=5)
    config = Blip2Config(
        vision_config=vision_sizes(initializer_range=0.02),
        qformer_config=qformer_sizes(words),
        text_config=T5Config(**t5_sizes(words)) if t5 else OPTConfig(**opt_sizes(words)),
        num_query_tokens=5,
        image_token_index=token_id(words, "<image>"),
    )
    return seeded(Blip2ForConditionalGeneration, config), processor


def qformer_sizes(words: PreTrainedTokenizerFast) -> dict:
    return {
        "hidden_size": 40,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(words),
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }


def opt_sizes(words: PreTrainedTokenizerFast) -> dict:
    return {
        "hidden_size": TEXT_WIDTH,
        "word_embed_proj_dim": TEXT_WIDTH,
        "ffn_dim": 64,
        "num_hidden_layers": TEXT_BLOCKS,
        "num_attention_heads": 4,
        "vocab_size": len(words),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dropout": 0.0,
        "max_position_embeddings": 512,
    }


def t5_sizes(words: PreTrainedTokenizerFast) -> dict:
    return {
        "d_model": TEXT_WIDTH,
        "d_kv": 12,
        "d_ff": 64,
        "num_layers": 2,
        "num_decoder_layers": TEXT_BLOCKS,
        "num_heads": 4,
        "vocab_size": len(words),
        "pad_token_id": 0,
        "eos_token_id": 2,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
        "feed_forward_proj": "gated-gelu",
    }


def instructblip() -> Built:
    from transformers import (
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        InstructBlipProcessor,
        LlamaConfig,
    )
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

    words, queries = tokenizer(), tokenizer()
    processor = InstructBlipProcessor(
        BlipImageProcessorPil(size=SQUARE), words, qformer_tokenizer=queries, num_query_tokens=5
    )
    config = InstructBlipConfig(
        vision_config=vision_sizes(initializer_range=0.02),
        qformer_config=qformer_sizes(queries),
        text_config=LlamaConfig(**text_sizes(words)),
        num_query_tokens=5,
        image_token_index=token_id(words, "<image>"),
    )
    return seeded(InstructBlipForConditionalGeneration, config), processor


def idefics3() -> Built:
    from transformers import Idefics3Config, Idefics3ForConditionalGeneration, Idefics3Processor
    from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil

    words = idefics_tokenizer()
    processor = Idefics3Processor(
        Idefics3ImageProcessorPil(size=WHOLE, max_image_size=TILE),
        words,
        image_seq_len=4,
        chat_template=template("<image>"),
    )
    config = Idefics3Config(**idefics_sizes(words))
    return seeded(Idefics3ForConditionalGeneration, config), processor


def smolvlm() -> Built:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration
    from transformers.models.smolvlm import processing_smolvlm
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    words = idefics_tokenizer()
    with patch.object(processing_smolvlm, "num2words", str):  # spells the number of frames of a video
        processor = without_video(processing_smolvlm.SmolVLMProcessor)(
            SmolVLMImageProcessorPil(size=WHOLE, max_image_size=TILE),
            words,
            video_processor=SimpleNamespace(num_frames=1, fps=1),
            image_seq_len=4,
            chat_template=template("<image>"),
        )
    config = SmolVLMConfig(**idefics_sizes(words))
    return seeded(SmolVLMForConditionalGeneration, config), processor


def idefics_tokenizer() -> PreTrainedTokenizerFast:
    rows = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    return tokenizer("<fake_token_around_image>", "<global-img>", "<end_of_utterance>", *rows, "<image>")


def idefics_sizes(words: PreTrainedTokenizerFast) -> dict:
    from transformers import LlamaConfig

    return {
        "vision_config": vision_sizes(),
        "text_config": LlamaConfig(**text_sizes(words)),
        "scale_factor": 2,
        "image_token_id": token_id(words, "<image>"),
        "pad_token_id": 0,
    }


def paligemma() -> Built:
    from transformers import (
        GemmaConfig,
        PaliGemmaConfig,
        PaliGemmaForConditionalGeneration,
        PaliGemmaProcessor,
        SiglipVisionConfig,
    )
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    words = tokenizer()
    images = SiglipImageProcessorPil(size=SQUARE, image_seq_length=16)
    processor = PaliGemmaProcessor(images, words)
    config = PaliGemmaConfig(
        vision_config=SiglipVisionConfig(**vision_sizes(vision_use_head=False, projection_dim=TEXT_WIDTH)),
        text_config=GemmaConfig(**text_sizes(words, head_dim=12)),
        projection_dim=TEXT_WIDTH,
        image_token_index=token_id(words, "<image>"),
        hidden_size=TEXT_WIDTH,
    )
    return seeded(PaliGemmaForConditionalGeneration, config), processor


def gemma3() -> Built:
    from transformers import (
        Gemma3Config,
        Gemma3ForConditionalGeneration,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    words = tokenizer(
        boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>"
    )
    config = Gemma3Config(
        vision_config=SiglipVisionConfig(**vision_sizes(vision_use_head=False)),
        text_config=Gemma3TextConfig(**text_sizes(words, head_dim=12, sliding_window=64)),
        mm_tokens_per_image=4,
        image_token_index=token_id(words, "<image_soft_token>"),
        boi_token_index=token_id(words, "<start_of_image>"),
        eoi_token_index=token_id(words, "<end_of_image>"),
    )
    processor = Gemma3Processor(
        Gemma3ImageProcessorPil(size=SQUARE),
        words,
        image_seq_length=4,
        chat_template=template("<start_of_image>"),
    )
    return seeded(Gemma3ForConditionalGeneration, config), processor


def qwen2_vl() -> Built:
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor

    words, vision = qwen_tokenizer(), {"embed_dim": VISION_WIDTH, "hidden_size": TEXT_WIDTH}
    config = Qwen2VLConfig(**qwen_sizes(words, vision))
    return seeded(Qwen2VLForConditionalGeneration, config), qwen_processor(Qwen2VLProcessor, words)


def qwen2_5_vl() -> Built:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

    words = qwen_tokenizer()
    windows = {"window_size": 2 * 2 * PATCH, "fullatt_block_indexes": [1]}
    config = Qwen2_5_VLConfig(**qwen_sizes(words, QWEN_WIDTHS | windows))
    return seeded(Qwen2_5_VLForConditionalGeneration, config), qwen_processor(Qwen2_5_VLProcessor, words)


def qwen3_vl() -> Built:
    """DeepStack: image features are injected at two more depths."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration, Qwen3VLProcessor

    words = qwen_tokenizer()
    deep = {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
    config = Qwen3VLConfig(**qwen_sizes(words, QWEN_WIDTHS | deep, head_dim=12))
    return seeded(Qwen3VLForConditionalGeneration, config), qwen_processor(Qwen3VLProcessor, words)


def qwen3_5() -> Built:
    """Linear attention (gated DeltaNet) in three of four blocks: their cache is a state, not keys."""
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration, Qwen3VLProcessor

    words = qwen_tokenizer()
    linear = {f"linear_{part}_head_dim": 12 for part in ("key", "value")}
    linear |= {f"linear_num_{part}_heads": 2 for part in ("key", "value")}
    config = Qwen3_5Config(
        **qwen_sizes(words, QWEN_WIDTHS | {"num_position_embeddings": 64}, head_dim=12, **linear)
    )
    config.text_config.rope_parameters["partial_rotary_factor"] = 1.0  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
    return seeded(Qwen3_5ForConditionalGeneration, config), qwen_processor(Qwen3VLProcessor, words)


QWEN_WIDTHS = {"hidden_size": VISION_WIDTH, "intermediate_size": 40, "out_hidden_size": TEXT_WIDTH}


def qwen_tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer(
        "<|vision_start|>", "<|vision_end|>", image_token="<|image_pad|>", video_token="<|video_pad|>"
    )


def qwen_sizes(words: PreTrainedTokenizerFast, vision: dict, **text) -> dict:
    sections = {"rope_type": "default", "mrope_section": [2, 2, 2], "rope_theta": 10000.0}
    return {
        "vision_config": {"depth": VISION_BLOCKS, "num_heads": 2, "patch_size": PATCH} | vision,
        "text_config": text_sizes(words, rope_parameters=sections, **text),
        "image_token_id": token_id(words, "<|image_pad|>"),
        "video_token_id": token_id(words, "<|video_pad|>"),
        "vision_start_token_id": token_id(words, "<|vision_start|>"),
        "vision_end_token_id": token_id(words, "<|vision_end|>"),
    }


def qwen_processor(kind: type[ProcessorMixin], words: PreTrainedTokenizerFast) -> ProcessorMixin:
    """Packed patches of native resolution."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    size = {"shortest_edge": 28 * 28, "longest_edge": 28 * 28 * 12}
    return without_video(kind)(
        Qwen2VLImageProcessorPil(size=size, patch_size=PATCH),
        words,
        video_processor=None,
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )


def internvl() -> Built:
    from transformers import InternVLConfig, InternVLForConditionalGeneration, InternVLProcessor, Qwen2Config
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

    words = tokenizer(
        start_image_token="<img>",
        end_image_token="</img>",
        context_image_token="<IMG_CONTEXT>",
        video_token="<video>",
    )
    config = InternVLConfig(
        vision_config=vision_sizes(use_mean_pooling=False),
        text_config=Qwen2Config(**text_sizes(words)),
        image_token_id=token_id(words, "<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    processor = without_video(InternVLProcessor)(
        GotOcr2ImageProcessorPil(size=SQUARE, crop_to_patches=True, min_patches=1, max_patches=4),
        words,
        video_processor=None,
        image_seq_length=4,
        chat_template=template("<IMG_CONTEXT>\n"),
    )
    return seeded(InternVLForConditionalGeneration, config), processor


def mistral3() -> Built:
    from transformers import (
        Mistral3Config,
        Mistral3ForConditionalGeneration,
        MistralConfig,
        PixtralVisionConfig,
    )

    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**vision_sizes(image_size=112)),
        text_config=MistralConfig(**text_sizes(words, head_dim=12)),
        spatial_merge_size=2,
        image_token_index=token_id(words, "[IMG]"),
    )
    return seeded(Mistral3ForConditionalGeneration, config), pixtral_processor(words, merge=2)


def pixtral() -> Built:
    """Pixtral-12B: its tower under LLaVA's model class."""
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        MistralConfig,
        PixtralVisionConfig,
    )

    words = tokenizer("[IMG]", "[IMG_BREAK]", "[IMG_END]")
    config = LlavaConfig(
        vision_config=PixtralVisionConfig(**vision_sizes(image_size=112)),
        text_config=MistralConfig(**text_sizes(words, head_dim=12)),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_token_index=token_id(words, "[IMG]"),
    )
    return seeded(LlavaForConditionalGeneration, config), pixtral_processor(words, merge=1)


def pixtral_processor(words: PreTrainedTokenizerFast, merge: int) -> ProcessorMixin:
    """`PixtralProcessor` over PIL: its module takes one function from a file that needs torchvision."""
    from transformers.models.pixtral import image_processing_pil_pixtral as over_pil

    with patch.dict(sys.modules, {"transformers.models.pixtral.image_processing_pixtral": over_pil}):
        from transformers.models.pixtral.processing_pixtral import PixtralProcessor

    images = over_pil.PixtralImageProcessorPil(
        size={"longest_edge": 112}, patch_size={"height": PATCH, "width": PATCH}
    )
    return PixtralProcessor(
        images, words, patch_size=PATCH, spatial_merge_size=merge, chat_template=template("[IMG]")
    )


def mllama() -> Built:
    from transformers import MllamaConfig, MllamaForConditionalGeneration, MllamaProcessor
    from transformers.models.mllama.image_processing_pil_mllama import MllamaImageProcessorPil

    words = tokenizer("<|python_tag|>", image_token="<|image|>")
    vision = vision_sizes(
        num_global_layers=2,
        attention_heads=2,
        intermediate_layers_indices=[0, 2],
        vision_output_dim=3 * VISION_WIDTH,
    )
    del vision["num_attention_heads"]
    config = MllamaConfig(
        vision_config=vision,
        text_config=text_sizes(words, cross_attention_layers=[1, 2]),
        image_token_index=token_id(words, "<|image|>"),
    )
    processor = MllamaProcessor(
        MllamaImageProcessorPil(size=SQUARE, max_image_tiles=4), words, chat_template=template("<|image|>")
    )
    return seeded(MllamaForConditionalGeneration, config), processor


def florence2() -> Built:
    from transformers import (
        BartConfig,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    words = tokenizer(image_token="<image>")
    images = CLIPImageProcessorPil(size=SQUARE, do_center_crop=False, image_seq_length=50)
    processor = Florence2Processor(images, words)
    config = Florence2Config(
        vision_config={
            "depths": [1, 2],
            "patch_size": [7, 3],
            "patch_stride": [4, 2],
            "patch_padding": [3, 1],
            "patch_prenorm": [False, True],
            "embed_dim": [16, VISION_WIDTH],
            "num_heads": [2, 2],
            "num_groups": [2, 2],
            "window_size": 4,
            "projection_dim": TEXT_WIDTH,
            "drop_path_rate": 0.0,
        },
        text_config=BartConfig(
            d_model=TEXT_WIDTH,
            encoder_layers=2,
            decoder_layers=TEXT_BLOCKS,
            encoder_attention_heads=2,
            decoder_attention_heads=2,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            vocab_size=len(words),
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
            dropout=0.0,
            max_position_embeddings=256,
        ),
        image_token_id=token_id(words, "<image>"),
    )
    return seeded(Florence2ForConditionalGeneration, config), processor
