"""Joining an encoder and an LLM, and training the projector between them, with tiny random parts."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fgdiag_probes import name_likelihood
from PIL import Image
from safetensors.torch import load_file

from fgdiag import training
from fgdiag.assemble import assemble
from fgdiag.errors import ModelNotSupported, RunBusy, RunMismatch
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.prompts import FINE_QUESTION
from fgdiag.store import locked
from fgdiag.training import TrainingPlan, train_projector
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

SIDE = 8 * tiny.PATCH
COLOURS = {"warm/Ruby": (200, 20, 40), "warm/Amber": (240, 170, 20), "cold/Teal": (0, 120, 130)}
PLAN = TrainingPlan(epochs=4, batch_size=4, views=2)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture(scope="module")
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


def embeddings(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight


def image_embeddings(model: Any, inputs: Any) -> torch.Tensor:
    """(tokens, width) as the LLM is given them."""
    return model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output.flatten(0, -2)


def test_the_parts_keep_their_weights_and_the_joint_is_what_it_says(encoder: Path, llm: Path):
    from transformers import AutoModel, AutoModelForCausalLM

    model, processor = assemble(encoder, llm, projector_width=20)
    vlm = open_vlm(model, processor=processor)
    assert vlm.anatomy.image_tokens == (SIDE // tiny.PATCH // 4) ** 2
    tower, words = AutoModel.from_pretrained(encoder), AutoModelForCausalLM.from_pretrained(llm)
    for name, weight in tower.state_dict().items():
        torch.testing.assert_close(model.model.vision_tower.state_dict()[name], weight)
    rows = embeddings(words)
    torch.testing.assert_close(embeddings(model)[: len(rows)], rows)
    inputs = vlm.inputs([tiny.noise(150, 130)], vlm.chat("What?"))
    with torch.no_grad():
        patches = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-1][:, 1:]
        expected = model.model.multi_modal_projector(patches)
        found = image_embeddings(model, inputs)
    torch.testing.assert_close(found, expected.reshape(-1, tiny.TEXT_WIDTH))


def test_image_tokens_enter_as_long_as_word_embeddings_are(encoder: Path, llm: Path):
    model, processor = assemble(encoder, llm)
    vlm = open_vlm(model, processor=processor)
    with torch.no_grad():
        seen = image_embeddings(model, vlm.inputs([tiny.noise(99, 99)], vlm.chat("?")))
    ratio = seen.square().mean().sqrt() / embeddings(model).square().mean().sqrt()
    assert 0.1 < ratio < 3


def test_a_grid_that_cannot_be_merged_is_refused(encoder: Path, llm: Path):
    with pytest.raises(ModelNotSupported, match="8 x 8 patches, which cannot be merged 3 x 3"):
        assemble(encoder, llm, merge=3)


def test_training_learns_and_the_folder_opens_as_any_vlm(
    encoder: Path, llm: Path, colours: ImageSet, tmp_path: Path
):
    plan = TrainingPlan(epochs=60, batch_size=6, learning_rate=1e-2)
    out = train_projector(encoder, llm, [colours], tmp_path / "vlm", plan)
    model, processor = assemble(encoder, llm)
    before = surprise(open_vlm(model, processor=processor), colours)
    after = surprise(open_vlm(out, dtype="float32"), colours)
    assert after < 0.5 * before, f"{before:.2f} bits before, {after:.2f} after"
    assert after < 0.7 * np.log2(3)


def surprise(vlm: VLM, images: ImageSet) -> float:
    """Bits by which the true names of the test images surprise the model, of the three names."""
    names = sorted(images.table["fine"].unique())
    rows = np.flatnonzero(images.table["split"] == "test")
    scores = name_likelihood(vlm, [images.open(int(row)) for row in rows], names, FINE_QUESTION)
    true = [names.index(fine) for fine in images.table["fine"].iloc[rows]]
    own = scores[np.arange(len(rows)), true]
    return float(np.mean(np.logaddexp.reduce(scores, axis=1) - own) / np.log(2))


def test_interrupted_and_resumed_it_ends_where_it_would_have(
    encoder: Path, llm: Path, colours: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train_projector(encoder, llm, [colours], tmp_path / "whole", PLAN)
    monkeypatch.setattr(training, "CHECKPOINT_EVERY_SECONDS", 0.0)
    real_step, steps = training._Training._step, 0

    def stops_at(at: int):
        def step(self: Any, *how: Any) -> None:
            nonlocal steps
            if steps == at:
                raise KeyboardInterrupt
            steps += 1
            real_step(self, *how)

        return step

    for at in (3, 12, 14):
        monkeypatch.setattr(training._Training, "_step", stops_at(at))
        with pytest.raises(KeyboardInterrupt):
            train_projector(encoder, llm, [colours], tmp_path / "parts", PLAN)
    monkeypatch.setattr(training._Training, "_step", real_step)
    parts = train_projector(encoder, llm, [colours], tmp_path / "parts", PLAN)
    expected, found = (load_file(out / training.PROJECTOR) for out in (whole, parts))
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, atol=0, rtol=0)
    history = pd.read_csv(parts / "training" / "history.csv")
    assert history["step"].is_monotonic_increasing
    assert history["step"].iloc[-1] == 4 * (18 // 4)


def test_another_plan_is_refused(encoder: Path, llm: Path, colours: ImageSet, tmp_path: Path):
    train_projector(encoder, llm, [colours], tmp_path / "vlm", PLAN)
    other = TrainingPlan(**{**vars(PLAN), "epochs": 5})
    with pytest.raises(RunMismatch, match="a training with epochs = 4, but 5 is asked now"):
        train_projector(encoder, llm, [colours], tmp_path / "vlm", other)


def test_two_trainings_in_one_folder_are_refused(encoder: Path, llm: Path, colours: ImageSet, tmp_path: Path):
    with locked(tmp_path / "vlm" / "training"), pytest.raises(RunBusy, match="written by another process"):
        train_projector(encoder, llm, [colours], tmp_path / "vlm", PLAN)
