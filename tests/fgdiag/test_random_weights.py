"""The randomly initialised twin: the shape of a model, nothing of what it has learnt."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fgdiag.errors import ModelNotFound, RunMismatch
from fgdiag.extraction import extract
from fgdiag.hooks import capture
from fgdiag.images import open_images
from fgdiag.loading import name_of_twin, twin_of
from fgdiag.prompts import FINE_QUESTION
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny
from tests.fgdiag.recorded import write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llava"
    model, processor = tiny.llava()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def weights(vlm: VLM) -> dict[str, torch.Tensor]:
    return dict(vlm.model.named_parameters())


@pytest.mark.parametrize(
    "build",
    [tiny.llava, tiny.qwen3_vl, tiny.mllama, tiny.paligemma, tiny.blip2, tiny.florence2, tiny.internvl],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_site_is_finite_and_a_seed_gives_the_same_weights(
    tmp_path: Path, build: Callable[[], tiny.Built], dtype: str
):
    """There is nothing but the config in the folder, so trained weights cannot be loaded."""
    model, processor = build()
    model.config.save_pretrained(tmp_path)
    how = {"dtype": dtype, "device": "cpu", "processor": processor, "random_weights": True}
    vlm = open_vlm(tmp_path, **how)
    found = capture(vlm, vlm.inputs(tiny.unequal_images(), vlm.chat(FINE_QUESTION)))
    for place, values in found.items():
        assert values.isfinite().all(), place
        assert values.abs().max() > 0, place
    assert {p.dtype for p in vlm.model.parameters()} == {getattr(torch, dtype)}
    assert {n: p.shape for n, p in weights(vlm).items()} == {n: p.shape for n, p in model.named_parameters()}
    assert open_vlm(tmp_path, **how).fingerprint == vlm.fingerprint
    assert open_vlm(tmp_path, seed=1, **how).fingerprint != vlm.fingerprint


def test_weights_are_drawn_and_norms_are_ones(folder: Path):
    before = torch.random.get_rng_state()
    trained, twin = open_vlm(folder), open_vlm(folder, random_weights=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    own, drawn = weights(trained), weights(twin)
    block = "model.language_model.layers.0."
    assert (drawn[block + "input_layernorm.weight"] == 1).all()
    spread = drawn[block + "self_attn.q_proj.weight"]
    assert float(spread.detach().std()) == pytest.approx(0.02, rel=0.1)
    assert not any(torch.equal(own[name], drawn[name]) for name in own if drawn[name].std() > 0)
    assert trained.dtype == twin.dtype
    assert trained.anatomy == twin.anatomy


def test_the_name_says_so_and_can_be_taken_apart(folder: Path):
    twin = open_vlm(folder, random_weights=True, seed=7)
    assert twin.name == name_of_twin(str(folder), 7) == f"{folder} with random weights (seed 7)"
    assert twin_of(twin.name) == (str(folder), 7)
    assert twin_of("owner/model") == ("owner/model", None)


def test_a_run_of_the_twin_is_not_gone_on_with_by_the_model(folder: Path, tmp_path: Path):
    images = open_images(write_images(tmp_path / "noise", classes=2, per_class=4))
    twin = open_vlm(folder, random_weights=True)
    run = extract(twin, images, tmp_path / "run", sites=["llm.norm"])
    assert run.manifest["model"] == twin.name
    assert np.isfinite(run.activations("llm.norm", "last")[run.images["status"] == "ok"]).any()
    assert extract(open_vlm(folder, random_weights=True), images, run.path, sites=["llm.norm"]).finished
    with pytest.raises(RunMismatch, match=r"recorded with model .* with random weights \(seed 0\), not "):
        extract(open_vlm(folder), images, run.path, sites=["llm.norm"])
    with pytest.raises(RunMismatch, match=r"not .* with random weights \(seed 1\)"):
        extract(open_vlm(folder, random_weights=True, seed=1), images, run.path, sites=["llm.norm"])


def test_what_has_no_twin_is_said_in_one_line(folder: Path):
    model, processor = tiny.llava()
    with pytest.raises(ModelNotFound, match="A model object has its weights already"):
        open_vlm(model, processor=processor, random_weights=True)
    with pytest.raises(ModelNotFound, match="made on one device"):
        open_vlm(folder, device_map="auto", random_weights=True)


@pytest.mark.real
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_demo_has_a_twin(dtype: str):
    twin = open_vlm("demo", dtype=dtype, random_weights=True)
    assert twin.name == "demo with random weights (seed 0)"
    found = capture(twin, twin.inputs([tiny.noise(90, 60)], twin.chat(FINE_QUESTION)))
    assert all(values.isfinite().all() for values in found.values())
    assert len({site for site, _ in found}) == 33
