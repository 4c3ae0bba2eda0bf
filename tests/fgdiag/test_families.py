"""Every family: what is captured is what the model itself computes, for unequal images, padded on either side.

The references are written out by hand here and share no code with the package: the model is run with
`output_hidden_states=True`, and each image is followed on its own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fgdiag.capture import capture
from fgdiag.families import families
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

CLOSE = {"atol": 2e-5, "rtol": 2e-5}
QUESTIONS = ("What exactly is this?", "What kind?", "And this one here?")

Patches = Callable[[Any, Any], Tensor]
"""(model, inputs of one image) -> what the projector is fed, (tokens, width)."""
Embeddings = Callable[[Any, Any], Tensor]
"""(model, inputs of one image) -> image embeddings as they enter the LLM, (tokens, width)."""


def opened(built: tiny.Built) -> VLM:
    model, processor = built
    return open_vlm(model, processor=processor)


def check(vlm: VLM, patches: Patches, embeddings: Embeddings, *, class_token: bool = False) -> None:
    """Compare every site and readout with the references, in both paddings and image by image."""
    images, prompts = tiny.unequal_images(), [vlm.chat(question) for question in QUESTIONS]
    every = [str(spec.site) for spec in vlm.anatomy.sites]
    alone = [vlm.inputs([image], prompt) for image, prompt in zip(images, prompts, strict=True)]
    expected = [reference(vlm, one, patches, embeddings, class_token=class_token) for one in alone]
    for side in ("left", "right"):
        captured = capture(vlm, vlm.inputs(images, prompts, padding_side=side), sites=every)
        assert {str(key[0]) for key in captured} == set(every)
        for key in expected[0]:
            rows = torch.stack([one[key] for one in expected])
            torch.testing.assert_close(captured[key], rows, **CLOSE, msg=lambda m, k=key: f"{side} {k}: {m}")
    for row, one in enumerate(alone):
        for key, vectors in capture(vlm, one, sites=every).items():
            torch.testing.assert_close(
                vectors[0], captured[key][row], **CLOSE, msg=lambda m, k=key: f"{k}: {m}"
            )


@torch.no_grad()
def reference(
    vlm: VLM, inputs: Any, patches: Patches, embeddings: Embeddings, *, class_token: bool
) -> dict[tuple[str, str], Tensor]:
    """What the sites of one image must hold."""
    model = vlm.model
    ids = inputs["input_ids"][0].tolist()
    image = [i for i, token in enumerate(ids) if token == vlm.anatomy.image_token_id]
    states = model(**inputs, output_hidden_states=True).hidden_states
    fed = patches(model, inputs)
    known = {("vision", "image"): (fed[1:] if class_token else fed).mean(0)}
    if class_token:
        known["vision", "cls"] = fed[0]
    known["projector", "image"] = embeddings(model, inputs).mean(0)
    known |= sequence_reference(states, image)
    return known


def sequence_reference(states: Sequence[Tensor], image: list[int]) -> dict[tuple[str, str], Tensor]:
    """Spans of `hidden_states`; its last entry is after the final norm, so the last block is left to `check_norm`."""
    known = {}
    names = [f"llm.{k}" for k in range(len(states) - 2)] + ["llm.norm"]
    for name, state in zip(names, (*states[1:-1], states[-1]), strict=True):
        known[name, "image"] = state[0, image].mean(0)
        known[name, "last"] = state[0, -1]
        if image[0] > 0:
            known[name, "pre"] = state[0, : image[0]].mean(0)
    return known


def check_last_block(vlm: VLM, norm: torch.nn.Module) -> None:
    """`llm.norm` is the norm of the last block's output."""
    captured = capture(vlm, vlm.inputs(tiny.unequal_images(), vlm.chat("?")))
    last = captured[f"llm.{tiny.TEXT_BLOCKS - 1}", "last"]
    torch.testing.assert_close(norm(last), captured["llm.norm", "last"], **CLOSE)


def pooled(model: Any, inputs: Any) -> Tensor:
    """Image embeddings as `get_image_features` gives them for one image."""
    wanted = {key: inputs[key] for key in ("pixel_values", "image_sizes", "image_grid_thw") if key in inputs}
    found = model.get_image_features(**wanted).pooler_output
    rows = torch.cat(list(found)) if isinstance(found, list | tuple) else found
    return rows.reshape(-1, rows.shape[-1])


def selected(layer: int | list[int], *, drop_class: bool) -> Patches:
    """Encoder states that LLaVA's `vision_feature_layer` and `vision_feature_select_strategy` choose."""

    def patches(model: Any, inputs: Any) -> Tensor:
        tower = model.model.vision_tower
        states = tower(inputs["pixel_values"].flatten(0, -4), output_hidden_states=True).hidden_states
        chosen = [states[k] for k in ([layer] if isinstance(layer, int) else layer)]
        return torch.cat(chosen, dim=-1)[:, int(drop_class) :].flatten(0, 1)

    return patches


def final_states(tower: str) -> Patches:
    """The encoder's last hidden state, as most families feed it."""

    def patches(model: Any, inputs: Any) -> Tensor:
        return model.get_submodule(tower)(inputs["pixel_values"]).last_hidden_state.flatten(0, 1)

    return patches


@pytest.mark.parametrize("layer", [-2, [-3, -1]])
def test_llava(layer: int | list[int]) -> None:
    vlm = opened(tiny.llava(layer))
    check(vlm, selected(layer, drop_class=True), pooled)
    check_last_block(vlm, vlm.model.model.language_model.norm)
    inputs = vlm.inputs(tiny.unequal_images(), vlm.chat("?"))
    with torch.no_grad():
        states = vlm.model.model.vision_tower(inputs["pixel_values"], output_hidden_states=True).hidden_states
    chosen = states[-2] if layer == -2 else torch.cat([states[-3], states[-1]], -1)
    torch.testing.assert_close(capture(vlm, inputs)["vision", "cls"], chosen[:, 0], **CLOSE)


def test_aya_vision() -> None:
    vlm = opened(tiny.aya_vision())
    check(vlm, selected(-1, drop_class=False), pooled)
    check_last_block(vlm, vlm.model.model.language_model.norm)


def test_every_family_names_the_test_that_proves_it() -> None:
    for row in families():
        name = row.proven_by.removeprefix("tests/fgdiag/test_families.py::")
        assert callable(globals()[name]), row
