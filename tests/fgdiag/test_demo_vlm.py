"""The demo VLM itself, with its real weights: an ordinary `transformers` model that knows its birds."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fgdiag_probes import name_likelihood
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from fgdiag.fieldguide import GENERA, SPECIES, draw_bird
from fgdiag.hooks import capture
from fgdiag.prompts import COARSE_QUESTION, FINE_QUESTION
from fgdiag.vlm import VLM, open_vlm
from fgdiag.zoo import PROJECTOR, demo_folder

pytestmark = pytest.mark.real
SEED = 990_000
"""Far from the seeds of the drawings that the projector was trained on and that `fgdiag demo` shows."""


@pytest.fixture(scope="module")
def demo() -> VLM:
    return open_vlm("demo", dtype="float32")


@pytest.fixture(scope="module")
def birds() -> list[Image.Image]:
    """One new drawing of each species."""
    return [draw_bird(species, seed=SEED + i).image for i, species in enumerate(SPECIES)]


def test_the_folder_is_an_ordinary_vlm(birds: list[Image.Image], tmp_path: Path):
    model: Any = AutoModelForImageTextToText.from_pretrained(demo_folder(), dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(demo_folder())
    turn = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": FINE_QUESTION}]}
    prompt = processor.apply_chat_template([turn], add_generation_prompt=True)
    inputs = processor(images=birds[0], text=prompt, return_tensors="pt")
    said = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    answer = processor.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answer.split()[-1] in GENERA, answer
    model.save_pretrained(tmp_path / "copy")
    processor.save_pretrained(tmp_path / "copy")
    again = AutoModelForImageTextToText.from_pretrained(tmp_path / "copy", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits)


def test_the_projector_shipped_is_small():
    assert len(PROJECTOR.read_bytes()) < 10_000_000


def test_every_site_is_what_the_model_computes(demo: VLM, birds: list[Image.Image]):
    inputs = demo.inputs(birds[:2], demo.chat(FINE_QUESTION))
    kept = capture(demo, inputs)
    image = inputs["input_ids"] == demo.anatomy.image_token_id
    with torch.no_grad():
        states = demo.model(**inputs, output_hidden_states=True).hidden_states
    assert len(states) == 31
    for block, state in enumerate(states[1:-1]):
        torch.testing.assert_close(kept[f"llm.{block}", "last"], state[:, -1], atol=1e-3, rtol=1e-4)
        mean = state[image].unflatten(0, (2, -1)).mean(1)
        torch.testing.assert_close(kept[f"llm.{block}", "image"], mean, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(kept["llm.norm", "last"], states[-1][:, -1], atol=1e-3, rtol=1e-4)


def test_it_knows_birds_it_has_never_seen(birds: list[Image.Image]):
    """40 drawings: by luck 1 species and 5 genera are right."""
    demo = open_vlm("demo")
    species, genera = [one.name for one in SPECIES], [str(genus) for genus in GENERA]
    fine = name_likelihood(demo, birds, species, FINE_QUESTION).argmax(1)
    coarse = name_likelihood(demo, birds, genera, COARSE_QUESTION).argmax(1)
    assert np.sum(fine == np.arange(len(SPECIES))) > 8
    assert np.sum(coarse == [genera.index(one.genus) for one in SPECIES]) > 20


def test_bfloat16_says_the_same(demo: VLM, birds: list[Image.Image]):
    half = open_vlm("demo", dtype="bfloat16")
    species = [one.name for one in SPECIES]
    exact = name_likelihood(demo, birds[:8], species, FINE_QUESTION)
    rounded = name_likelihood(half, birds[:8], species, FINE_QUESTION)
    assert np.abs(exact - rounded)[exact > -6].max() < 0.5
    assert np.mean(exact.argmax(1) == rounded.argmax(1)) >= 0.75
