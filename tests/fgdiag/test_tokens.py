"""Image tokens kept one by one: the model's own, at the right rows, whatever happens on the way."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numcodecs import Zstd

from fgdiag import forward
from fgdiag.errors import RunIncomplete, RunMismatch, SiteNotFound
from fgdiag.extraction import extract
from fgdiag.hooks import capture
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.prompts import FINE_QUESTION
from fgdiag.readouts import TokensVary, fitting_together, telling_token_sites, token_grid
from fgdiag.store import Run
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny
from tests.fgdiag.recorded import everything, tiny_vlm, write_images

# PaliGemma's processor hands a tensor to numpy in the way of numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CUT_OFF, EXCLUDED = 13, 40
SITES = ("vision", "projector", "llm.1", "llm.3")
HOW: dict[str, Any] = {"block": 8, "batch_size": 3, "tokens": SITES}
HALF = 1e-3
"""Rounding to float16 of numbers around 1."""


def with_tokens(sites: Any) -> dict[str, Any]:
    return HOW | {"tokens": sites}


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return tiny_vlm()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return open_images(write_images(tmp_path_factory.mktemp("data") / "noise"))


@pytest.fixture(scope="module")
def run(vlm: VLM, images: ImageSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return extract(vlm, images, tmp_path_factory.mktemp("runs") / "whole", **HOW)


@pytest.mark.parametrize("side", ["left", "right"])
def test_they_are_the_models_own_hidden_states_at_the_image(vlm: VLM, side: str) -> None:
    prompts = [vlm.chat(question) for question in ("What exactly is this?", "This?")]
    inputs = vlm.inputs(tiny.unequal_images()[:2], prompts, padding_side=side)
    found = capture(vlm, inputs, sites=SITES, tokens=SITES)
    with torch.inference_mode():
        encoder = vlm.model.get_encoder(modality="image")
        seen = encoder(inputs["pixel_values"], output_hidden_states=True)
        hidden = vlm.model(**inputs, output_hidden_states=True).hidden_states
    at_image = inputs["input_ids"] == vlm.anatomy.image_token_id
    expected = {"vision": seen.hidden_states[-2][:, 1:]} | {
        site: torch.stack([states[row] for states, row in zip(hidden[depth], at_image, strict=True)])
        for site, depth in (("projector", 0), ("llm.1", 2))
    }
    for site, tokens in expected.items():
        assert found[site, "tokens"].dtype == torch.float16
        torch.testing.assert_close(found[site, "tokens"].float(), tokens, atol=HALF, rtol=HALF)


@pytest.mark.parametrize("build", [tiny.llava, tiny.gemma3, tiny.paligemma, tiny.blip2])
def test_their_mean_is_the_readout_image(build) -> None:
    model, processor = build()
    vlm = open_vlm(model, device="cpu", processor=processor)
    sites = telling_token_sites(vlm.anatomy.sites)
    inputs = vlm.inputs(tiny.unequal_images(), [vlm.chat(question) for question in ("A?", "Bb?", "C?", "D?")])
    found = capture(vlm, inputs, sites=sites, tokens=sites)
    assert len(sites) == 4
    for site in sites:
        mean = found[site, "tokens"].float().mean(1)
        torch.testing.assert_close(mean, found[site, "image"], atol=HALF, rtol=HALF)


def test_without_tokens_nothing_else_is_captured(vlm: VLM) -> None:
    inputs = vlm.inputs(tiny.unequal_images()[:1], vlm.chat("?"))
    assert "tokens" not in {name for _, name in capture(vlm, inputs)}


def test_every_row_is_what_the_image_gives_on_its_own(run: Run, vlm: VLM, images: ImageSet) -> None:
    for row in (0, 7, 8, 27, 39):
        alone = capture(
            vlm, vlm.inputs([images.open(row)], vlm.chat(FINE_QUESTION)), sites=SITES, tokens=SITES
        )
        for site in SITES:
            np.testing.assert_allclose(
                np.asarray(run.tokens(site)[row]), alone[site, "tokens"][0], atol=HALF, rtol=HALF
            )


def test_they_are_read_lazily_beside_the_readouts(run: Run) -> None:
    tokens = run.tokens("projector")
    assert (tokens.shape, tokens.chunks, tokens.dtype) == ((41, 16, 48), (1, 16, 48), np.float16)
    assert "tokens" not in run.readouts("projector")
    mean = np.asarray(tokens[:], np.float32).mean(1)
    np.testing.assert_allclose(mean, run.activations("projector", "image"), atol=HALF, rtol=HALF)
    without = np.isnan(mean).all(1)
    assert np.flatnonzero(without).tolist() == [CUT_OFF, EXCLUDED]
    raw = Zstd().decode((run.path / "activations.zarr" / "projector" / "tokens" / "c.7.0.0").read_bytes())
    np.testing.assert_array_equal(np.frombuffer(raw, "<f2").reshape(16, 48), tokens[7])


def test_the_run_says_where_it_has_them(run: Run, tmp_path: Path) -> None:
    assert [site for site in map(str, run.sites) if run.has_tokens(site)] == list(SITES)
    assert "one by one at vision, projector, llm.1, llm.3" in str(run)
    with pytest.raises(
        SiteNotFound, match=r"tokens at llm\.2 were not kept, only those at vision, .*--tokens"
    ):
        run.tokens("llm.2")
    with pytest.raises(SiteNotFound, match=r"No site 'llm\.9'"):
        run.has_tokens("llm.9")
    with pytest.raises(RunIncomplete, match="is not finished"):
        Run(tmp_path, run.manifest | {"finished": None}).tokens("vision")


def test_stopped_within_a_block_it_ends_bit_equal(
    run: Run, vlm: VLM, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = SimpleNamespace(made=0)

    def stopping(*args: Any, **how: Any) -> Any:
        calls.made += 1
        if calls.made == 9:
            raise KeyboardInterrupt
        return capture(*args, **how)

    monkeypatch.setattr(forward, "capture", stopping)
    with pytest.raises(KeyboardInterrupt):
        extract(vlm, images, tmp_path / "run", **HOW)
    marks, grids = (
        len(list((tmp_path / "run").glob(name)))
        for name in ("blocks/*.json", "activations.zarr/vision/tokens/c.*")
    )
    assert marks * HOW["block"] < grids < 40
    extract(vlm, images, tmp_path / "run", **HOW)
    assert everything(tmp_path / "run") == everything(run.path)


def test_going_on_with_other_tokens_is_refused_and_auto_keeps_them(
    run: Run, vlm: VLM, images: ImageSet
) -> None:
    for other, words in (
        ((), r"vision \(32: image\+cls\+16 tokens\).*not vision \(32: image\+cls\)"),
        (("vision",), "projector"),
    ):
        with pytest.raises(RunMismatch, match=words):
            extract(vlm, images, run.path, **with_tokens(other))
    assert extract(vlm, images, run.path, **with_tokens("auto")).manifest == run.manifest
    older = json.loads((run.path / "run.json").read_text())
    for site in older["sites"]:
        site.pop("tokens", None)
    (run.path.with_name("older")).mkdir()
    (run.path.with_name("older") / "run.json").write_text(json.dumps(older))
    (run.path.with_name("older") / "images.parquet").write_bytes((run.path / "images.parquet").read_bytes())
    assert not extract(vlm, images, run.path.with_name("older"), tokens="auto").has_tokens("vision")


def test_auto_keeps_the_telling_sites_that_fit(
    vlm: VLM, images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    few = images.subset(np.arange(0, 40, 5))
    one_llm_site = 2 * 8 * 16 * 48
    monkeypatch.setattr(forward, "TOKEN_BYTES", 2 * 8 * 16 * 32 + 2 * one_llm_site)
    run = extract(vlm, few, tmp_path / "run", tokens="auto")
    assert [site for site in map(str, run.sites) if run.has_tokens(site)] == ["vision", "projector", "llm.3"]
    said = capsys.readouterr().err
    assert "not keeping the image tokens at llm.1: all of them would take more than 0 GB" in said
    assert "keeping every image token at vision, projector, llm.3: 3.3e-05 GB" in said
    assert fitting_together({"a": 3, "b": 4, "c": 2}, most=5) == ["a", "c"]


@pytest.mark.parametrize("build", [tiny.qwen2_vl, tiny.llava_next, tiny.mllama, tiny.internvl])
def test_where_images_differ_in_their_number_they_are_not_kept(
    build, images: ImageSet, tmp_path: Path, capsys
) -> None:
    model, processor = build()
    vlm = open_vlm(model, device="cpu", processor=processor)
    few = images.subset(np.arange(0, 40, 13))
    with pytest.raises(
        TokensVary, match=r"more image tokens for some images than for others.*Leave `tokens` out"
    ):
        extract(vlm, few, tmp_path / "run", sites=["vision"], tokens=["vision"])
    run = extract(vlm, few, tmp_path / "run", sites=["vision"], tokens="auto")
    assert not run.has_tokens("vision")
    assert "cannot be kept one by one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": "vision"}, r"The tokens are 'vision'; expected `auto` or a list of sites"),
        ({"tokens": ["llm.1"], "sites": ["llm.2"]}, r"No image tokens to keep at 'llm\.1'.* are llm\.2"),
    ],
)
def test_tokens_that_cannot_be_are_one_line(
    options: dict, words: str, vlm: VLM, images: ImageSet, tmp_path: Path
) -> None:
    with pytest.raises(SiteNotFound, match=words):
        extract(vlm, images, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_numbers_beyond_float16_become_its_largest() -> None:
    rows = torch.tensor([[1e6], [-1e6], [float("nan")], [float("inf")]])
    grid = token_grid(rows, [1, 1])
    assert grid.shape == (2, 2, 1)
    assert grid[0].flatten().tolist() == [65504, -65504]
    assert not grid[1].isfinite().any()
    with pytest.raises(TokensVary, match="different numbers of tokens"):
        token_grid(rows, [3, 1])


def test_clipping_is_said_once(vlm: VLM, images: ImageSet, tmp_path: Path, monkeypatch, capsys) -> None:
    def large(*args: Any, **how: Any) -> Any:
        found = capture(*args, **how)
        found["vision", "tokens"][:, 0, 0] = 65504
        return found

    monkeypatch.setattr(forward, "capture", large)
    few = images.subset(np.arange(0, 40, 8))
    extract(vlm, few, tmp_path / "run", sites=["vision"], tokens=["vision"], batch_size=2)
    assert capsys.readouterr().err.count("beyond float16") == 1
