"""Every family: what is captured is what the model itself computes, for unequal images, padded on either side.

The references are written out by hand and share no code with the package: the model is run with
`output_hidden_states=True` on one image at a time, without padding.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdiag.family_table import families
from fgdiag.hooks import capture
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

CLOSE = {"atol": 2e-5, "rtol": 2e-5}
QUESTIONS = ("What exactly is this?", "What kind?", "And this one here?")


@dataclass
class Truth:
    """What one image makes of the encoder and the projector."""

    fed: Tensor
    """(tokens, width) that the projector is fed, without class tokens."""
    blocks: Sequence[Tensor]
    """(tokens, width) after each encoder block, without class tokens."""
    entering: Sequence[Tensor]
    """(tokens, width) image embeddings, for each depth at which they enter the LLM."""
    cls: Tensor | None = None
    """(width,)"""


Look = Callable[[Any, Any], Truth]
"""(model, inputs of one image) -> what is true of it."""


def opened(built: tiny.Built) -> VLM:
    model, processor = built
    return open_vlm(model, processor=processor)


def check(vlm: VLM, look: Look) -> None:
    """Compare every site and readout with the references, padded on either side and image by image."""
    images, prompts = tiny.unequal_images(), [vlm.chat(question) for question in QUESTIONS]
    every = [str(spec.site) for spec in vlm.anatomy.sites]
    alone = [vlm.inputs([image], prompt) for image, prompt in zip(images, prompts, strict=True)]
    expected = [reference(vlm, one, look) for one in alone]
    for side in ("left", "right"):
        captured = capture(vlm, vlm.inputs(images, prompts, padding_side=side), sites=every)
        for spec in vlm.anatomy.sites:
            assert {readout for site, readout in captured if site == str(spec.site)} == set(spec.readouts)
        for key in expected[0]:
            rows = torch.stack([one[key] for one in expected])
            torch.testing.assert_close(captured[key], rows, **CLOSE, msg=lambda m, k=key: f"{side} {k}: {m}")
    for row, one in enumerate(alone):
        for key, vectors in capture(vlm, one, sites=every).items():
            torch.testing.assert_close(
                vectors[0], captured[key][row], **CLOSE, msg=lambda m, k=key: f"{k}: {m}"
            )


@torch.no_grad()
def reference(vlm: VLM, inputs: Any, look: Look) -> dict[tuple[str, str], Tensor]:
    """What the sites of one image must hold."""
    truth = look(vlm.model, inputs)
    known = {("vision", "image"): truth.fed.mean(0)}
    if truth.cls is not None:
        known["vision", "cls"] = truth.cls
    known |= {(f"vision.{k}", "image"): block.mean(0) for k, block in enumerate(truth.blocks)}
    names = (
        ["projector"] if len(truth.entering) == 1 else [f"projector.{k}" for k in range(len(truth.entering))]
    )
    known |= {(name, "image"): rows.mean(0) for name, rows in zip(names, truth.entering, strict=True)}
    return known | sequence_reference(vlm, inputs)


def sequence_reference(vlm: VLM, inputs: Any) -> dict[tuple[str, str], Tensor]:
    """Spans of `hidden_states`: its last entry is after the final norm, and the last block's is not in it."""
    outputs = vlm.model(**inputs, output_hidden_states=True)
    if "decoder_hidden_states" in outputs:
        return encoder_decoder_reference(vlm, inputs, outputs)
    states = getattr(outputs, "language_model_outputs", outputs).hidden_states
    names = [f"llm.{k}" for k in range(tiny.TEXT_BLOCKS - 1)] + ["llm.norm"]
    return spans_reference(vlm, inputs, dict(zip(names, states[1:], strict=True)))


def spans_reference(vlm: VLM, inputs: Any, states: Mapping[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    ids, real = inputs["input_ids"][0].tolist(), inputs["attention_mask"][0].tolist()
    image = [i for i, token in enumerate(ids) if token == vlm.anatomy.image_token_id]
    before = [i for i in range(image[0]) if real[i]]
    known = {}
    for name, state in states.items():
        if vlm.anatomy.model_type != "mllama":
            known[name, "image"] = state[0, image].mean(0)
        known[name, "last"] = state[0, -1]
        if before:
            known[name, "pre"] = state[0, before].mean(0)
    return known


def encoder_decoder_reference(vlm: VLM, inputs: Any, outputs: Any) -> dict[tuple[str, str], Tensor]:
    """Text encoder first, then the decoder, which has seen nothing but its start token."""
    encoder, decoder = outputs.encoder_hidden_states[1:], outputs.decoder_hidden_states[1:]
    known = spans_reference(vlm, inputs, {f"llm.{k}": state for k, state in enumerate(encoder)})
    later = {f"llm.{k}": state[0, -1] for k, state in enumerate(decoder, start=len(encoder))}
    return known | {(name, "last"): state for name, state in later.items()}


def check_last_block(vlm: VLM, norm: torch.nn.Module) -> None:
    """The final norm of the last block's output is `llm.norm`."""
    captured = capture(vlm, vlm.inputs(tiny.unequal_images(), vlm.chat("?")))
    last = captured[f"llm.{tiny.TEXT_BLOCKS - 1}", "last"]
    torch.testing.assert_close(norm(last), captured["llm.norm", "last"], **CLOSE)


# --- what is true of each family ---------------------------------------------------------------------------


def embeddings(model: Any, inputs: Any, **more: Any) -> Tensor:
    """Image embeddings (tokens, width) as `get_image_features` gives them for one image."""
    wanted = {key: inputs[key] for key in ("pixel_values", "image_sizes", "image_grid_thw") if key in inputs}
    found = model.get_image_features(**wanted, **more).pooler_output
    rows = torch.cat(list(found)) if isinstance(found, list | tuple) else found
    return rows.reshape(-1, rows.shape[-1])


def tower(path: str, layer: int | list[int] | None = None, *, class_token: str = "none") -> Look:
    """A ViT at `path`; `layer` as in `vision_feature_layer`, or None for its last hidden state.

    `class_token` is `none`, `dropped` before the projector, or `kept`.
    """

    def look(model: Any, inputs: Any) -> Truth:
        pixels = inputs["pixel_values"].flatten(0, -4)
        seen = model.get_submodule(path)(pixels, output_hidden_states=True)
        layers = [layer] if isinstance(layer, int) else layer
        chosen = (
            seen.last_hidden_state
            if layers is None
            else torch.cat([seen.hidden_states[k] for k in layers], -1)
        )
        skip = int(class_token != "none")
        return Truth(
            fed=chosen[:, skip:].flatten(0, 1),
            blocks=[state[:, skip:].flatten(0, 1) for state in seen.hidden_states[1 : tiny.VISION_BLOCKS]],
            entering=[embeddings(model, inputs)],
            cls=chosen[:, 0].mean(0) if skip else None,
        )

    return look


@pytest.mark.parametrize("layer", [-2, [-3, -1]])
def test_llava(layer: int | list[int]) -> None:
    vlm = opened(tiny.llava(layer))
    check(vlm, tower("model.vision_tower", layer, class_token="dropped"))
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_llava_next() -> None:
    vlm = opened(tiny.llava_next())
    check(vlm, tower("model.vision_tower", -2, class_token="dropped"))
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_llava_onevision() -> None:
    vlm = opened(tiny.llava_onevision())
    check(vlm, tower("model.vision_tower", -1))
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_aya_vision() -> None:
    vlm = opened(tiny.aya_vision())
    check(vlm, tower("model.vision_tower", -1))
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_internvl() -> None:
    vlm = opened(tiny.internvl())
    check(vlm, tower("model.vision_tower", class_token="dropped"))
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_paligemma() -> None:
    vlm = opened(tiny.paligemma())
    check(vlm, tower("model.vision_tower"))
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_gemma3() -> None:
    vlm = opened(tiny.gemma3())
    check(vlm, tower("model.vision_tower"))
    check_last_block(vlm, vlm.model.model.language_model.norm)


@pytest.mark.parametrize("smolvlm", [False, True])
def test_idefics3(smolvlm: bool) -> None:
    vlm = opened(tiny.idefics3(smolvlm))
    check(vlm, tower("model.vision_model"))
    check_last_block(vlm, vlm.model.model.text_model.norm)


def test_blip2() -> None:
    vlm = opened(tiny.blip2())
    check(vlm, tower("vision_model", class_token="kept"))
    check_last_block(vlm, vlm.model.language_model.model.decoder.final_layer_norm)


def test_instructblip() -> None:
    def look(model: Any, inputs: Any) -> Truth:
        seen = model.vision_model(inputs["pixel_values"], output_hidden_states=True)
        queries = {key: inputs[key] for key in ("qformer_input_ids", "qformer_attention_mask")}
        return Truth(
            fed=seen.last_hidden_state[0, 1:],
            blocks=[state[0, 1:] for state in seen.hidden_states[1 : tiny.VISION_BLOCKS]],
            entering=[embeddings(model, inputs, **queries)],
            cls=seen.last_hidden_state[0, 0],
        )

    vlm = opened(tiny.instructblip())
    check(vlm, look)
    check_last_block(vlm, vlm.model.language_model.model.norm)


@pytest.mark.parametrize("version", ["2", "2_5", "3"])
def test_qwen_vl(version: str) -> None:
    def look(model: Any, inputs: Any) -> Truth:
        visual = model.model.visual
        seen = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"], output_hidden_states=True)
        return Truth(
            fed=seen.last_hidden_state,
            blocks=seen.hidden_states[1 : tiny.VISION_BLOCKS],
            entering=[embeddings(model, inputs), *getattr(seen, "deepstack_features", [])],
        )

    vlm = opened(tiny.qwen(version))
    check(vlm, look)
    check_last_block(vlm, vlm.model.model.language_model.norm)
    assert ("projector.2" in vlm.anatomy.default_sites) == (version == "3")


@pytest.mark.parametrize("build", [tiny.mistral3, tiny.pixtral])
def test_pixtral(build: Callable[[], tiny.Built]) -> None:
    def look(model: Any, inputs: Any) -> Truth:
        seen = model.model.vision_tower(
            inputs["pixel_values"], image_sizes=inputs["image_sizes"], output_hidden_states=True
        )
        blocks = [state[0] for state in seen.hidden_states[1 : tiny.VISION_BLOCKS]]
        return Truth(fed=seen.hidden_states[-1][0], blocks=blocks, entering=[embeddings(model, inputs)])

    vlm = opened(build())
    check(vlm, look)
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_mllama() -> None:
    def look(model: Any, inputs: Any) -> Truth:
        mask = inputs["aspect_ratio_mask"]
        see = {key: inputs[key] for key in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}
        tiles = model.model.vision_model(**see).last_hidden_state[0, 0, mask[0, 0].bool()]
        entering = model.model.multi_modal_projector(tiles).flatten(0, 1)
        return Truth(fed=tiles[:, 1:].flatten(0, 1), blocks=[], entering=[entering], cls=tiles[:, 0].mean(0))

    vlm = opened(tiny.mllama())
    check(vlm, look)
    check_last_block(vlm, vlm.model.model.language_model.norm)
    assert all("image" not in spec.readouts for spec in vlm.anatomy.sites if spec.site.part == "llm")


def test_florence2() -> None:
    def look(model: Any, inputs: Any) -> Truth:
        grid = model.model.vision_tower(inputs["pixel_values"]).last_hidden_state[0]
        return Truth(fed=grid.flatten(1).T, blocks=[], entering=[embeddings(model, inputs)])

    vlm = opened(tiny.florence2())
    check(vlm, look)
    assert "llm.norm" not in vlm.anatomy.default_sites, "BART normalises inside each block"


def test_every_family_names_the_test_that_proves_it() -> None:
    for row in families():
        name = row.proven_by.removeprefix("tests/fgdiag/test_families.py::")
        assert callable(globals()[name]), row
