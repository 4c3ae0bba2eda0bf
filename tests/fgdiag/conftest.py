"""Parts to assemble VLMs from, and images to train them on."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fgdiag.assemble import assemble, write_assembled
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from tests.fgdiag import tiny

SIDE = 8 * tiny.PATCH
COLOURS = {"warm/Ruby": (200, 20, 40), "warm/Amber": (240, 170, 20), "cold/Teal": (0, 120, 130)}


@pytest.fixture(scope="session")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """DINOv2 with one class token and 8 x 8 patches."""
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    folder = tmp_path_factory.mktemp("parts") / "encoder"
    config = Dinov2Config(
        hidden_size=tiny.VISION_WIDTH,
        num_hidden_layers=tiny.VISION_BLOCKS,
        num_attention_heads=2,
        image_size=SIDE,
        patch_size=tiny.PATCH,
    )
    tiny.seeded(Dinov2Model, config).save_pretrained(folder)
    square = {"height": SIDE, "width": SIDE}
    BitImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=square).save_pretrained(folder)  # pyright: ignore[reportArgumentType]
    return folder


@pytest.fixture(scope="session")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet whose map has 4 x 4 cells."""
    from transformers import BitImageProcessorPil, ResNetConfig, ResNetModel

    folder = tmp_path_factory.mktemp("parts") / "convolutional"
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 24], depths=[1, 1], layer_type="basic")
    tiny.seeded(ResNetModel, config).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    BitImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)  # pyright: ignore[reportArgumentType]
    return folder


@pytest.fixture(scope="session")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama that speaks ChatML."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("parts") / "llm"
    words = tiny.tokenizer("<|im_start|>", "<|im_end|>")
    words.eos_token = "<|im_end|>"
    # Weights this wide let the image reach the answer; with the usual ones a random LLM says everything evenly.
    config = LlamaConfig(**tiny.text_sizes(words), tie_word_embeddings=True, initializer_range=0.3)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Gemma 3, which scales its word embeddings and was never taught to chat."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    folder = tmp_path_factory.mktemp("parts") / "gemma"
    words = tiny.tokenizer()
    config = Gemma3TextConfig(
        **tiny.text_sizes(words), head_dim=12, tie_word_embeddings=True, initializer_range=0.3
    )
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def joined(encoder: Path, llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VLM that has learnt nothing yet."""
    return write_assembled(*assemble(encoder, llm), tmp_path_factory.mktemp("parts") / "joined")


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Plain colours with some noise: what an encoder of random weights can tell apart."""
    folder = tmp_path_factory.mktemp("data")
    for label, colour in COLOURS.items():
        for split, count in {"train": 6, "val": 2, "test": 2}.items():
            (folder / split / label).mkdir(parents=True)
            for index in range(count):
                rng = np.random.default_rng((index, len(label), count))
                pixels = np.clip(rng.normal(colour, 12, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / label / f"{index}.png")
    return open_images(folder)
