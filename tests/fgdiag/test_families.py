"""Every family: what is captured is what the model itself computes, for unequal images, padded on either side.

The references are written out by hand and share no code with the package: the model is run on one image at a time,
without padding, with `output_hidden_states=True`, or block by block where it does not offer that. Its final norm is
taken out to see what the last block gives. Every captured vector has a reference; one without fails the test.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from fgdiag.family_table import families
from fgdiag.hooks import capture
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

# PaliGemma's processor hands a tensor to numpy in the way of numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CLOSE = 2e-5
QUESTIONS = ("What exactly is this?", "What kind?", "And this one here?", "This?")

Vectors = dict[tuple[str, str], Tensor]


@dataclass
class Truth:
    """What one image makes of the encoder and the projector."""

    blocks: Sequence[Tensor]
    """(tiles, tokens, width) after each encoder block."""
    fed: Tensor
    """(tiles, tokens, width) that the projector is fed; the class token first, though it be dropped on the way."""
    entering: Sequence[Tensor]
    """(tokens, width) image embeddings, for each depth at which they enter the LLM."""
    class_token: bool = False


Look = Callable[[Any, Any], Truth]
"""(model, inputs of one image) -> what is true of it."""


@dataclass(frozen=True)
class Case:
    """One family, as its authors describe it."""

    build: Callable[[], tiny.Built]
    look: Look
    image_token: str = "<image>"
    """In the LLM's sequence."""
    norms: Sequence[str] = ("model.language_model.norm",)
    """Norm behind the last block of the LLM; in an encoder-decoder of the encoder, then of the decoder."""
    start: int | None = None
    """Token that the answer of an encoder-decoder starts with."""
    fixed: bool = False
    """Whether every image takes the same number of tokens."""
    cross_attends: bool = False
    """Whether the image never enters the LLM's sequence."""


@torch.no_grad()
def reference(vlm: VLM, inputs: Any, case: Case) -> Vectors:
    """What the sites of one image must hold."""
    truth = case.look(vlm.model, inputs)
    known = {}
    seen = {f"vision.{k}": block for k, block in enumerate(truth.blocks)} | {"vision": truth.fed}
    for name, tiles in seen.items():
        known[name, "image"] = tiles[:, int(truth.class_token) :].mean((0, 1))
        if truth.class_token:
            known[name, "cls"] = tiles[:, 0].mean(0)
    deep = len(truth.entering) > 1
    for k, rows in enumerate(truth.entering):
        known[f"projector.{k}" if deep else "projector", "image"] = rows.mean(0)
    if case.start is None:
        return known | spans(vlm, inputs, case, decoder_states(vlm.model, inputs, case), truth)
    read, answered = encoder_decoder_states(vlm.model, inputs, case)
    last = {(name, "last"): state[0, -1] for name, state in answered.items()}
    return known | spans(vlm, inputs, case, read, truth) | last


def spans(vlm: VLM, inputs: Any, case: Case, states: Mapping[str, Tensor], truth: Truth) -> Vectors:
    """Average over the image's tokens and those before it, and take the last."""
    words: Any = vlm.processor
    image_token = tiny.token_id(words.tokenizer, case.image_token)
    image = [at for at, token in enumerate(inputs["input_ids"][0].tolist()) if token == image_token]
    if not case.cross_attends:
        assert len(image) == len(truth.entering[0])
    known = {}
    for name, state in states.items():
        if not case.cross_attends:
            known[name, "image"] = state[0, image].mean(0)
        if image[0] > 0:
            known[name, "pre"] = state[0, : image[0]].mean(0)
        known[name, "last"] = state[0, -1]
    return known


def decoder_states(model: Any, inputs: Any, case: Case) -> dict[str, Tensor]:
    """(1, tokens, width) after each block and after the norm, which `hidden_states` has in the last one's place."""
    whole = language_outputs(model, inputs).hidden_states
    with without(model, case.norms[0]):
        blocks = language_outputs(model, inputs).hidden_states[1:]
    assert len(blocks) == tiny.TEXT_BLOCKS
    return {f"llm.{k}": state for k, state in enumerate(blocks)} | {"llm.norm": whole[-1]}


def encoder_decoder_states(
    model: Any, inputs: Any, case: Case
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same of the text encoder, then of the decoder, which has seen nothing but its start token."""
    run = partial(language_outputs, model, inputs, decoder_input_ids=torch.tensor([[case.start]]))
    whole = run()
    if not case.norms:
        encoder, decoder = whole.encoder_hidden_states[1:], whole.decoder_hidden_states[1:]
    else:
        with without(model, case.norms[0]):
            encoder = run().encoder_hidden_states[1:]
        with without(model, case.norms[1]):
            decoder = run().decoder_hidden_states[1:]
    read = {f"llm.{k}": state for k, state in enumerate(encoder)}
    answered = {f"llm.{k}": state for k, state in enumerate(decoder, start=len(encoder))}
    if case.norms:
        answered["llm.norm"] = whole.decoder_hidden_states[-1]
    assert len(decoder) == tiny.TEXT_BLOCKS
    return read, answered


def language_outputs(model: Any, inputs: Any, **more: Any) -> Any:
    outputs = model(**inputs, **more, output_hidden_states=True)
    return getattr(outputs, "language_model_outputs", outputs)


def without(model: nn.Module, path: str) -> AbstractContextManager:
    """Take a module out of the model: what enters it leaves it."""
    parent, _, name = path.rpartition(".")
    return patch.object(model.get_submodule(parent), name, nn.Identity())


# --- what is true of each family ---------------------------------------------------------------------------


def embeddings(model: Any, inputs: Any, *more: str) -> Tensor:
    """Image embeddings (tokens, width) as `get_image_features` gives them for one image."""
    names = ("pixel_values", "image_sizes", "image_grid_thw", *more)
    found = model.get_image_features(**{name: inputs[name] for name in names if name in inputs}).pooler_output
    rows = torch.cat(list(found)) if isinstance(found, list | tuple) else found
    return rows.reshape(-1, rows.shape[-1])


def tower(
    path: str = "model.vision_tower",
    layer: int | list[int] | None = None,
    class_token: bool = False,
    needs: Sequence[str] = (),
) -> Look:
    """A ViT at `path`, fed tiles; `layer` as in `vision_feature_layer`, or None for its last hidden state.

    `needs` are inputs that the projector wants besides.
    """

    def look(model: Any, inputs: Any) -> Truth:
        tiles = inputs["pixel_values"].flatten(0, -4)
        seen = model.get_submodule(path)(tiles, output_hidden_states=True)
        layers = [layer] if isinstance(layer, int) else layer or []
        fed = torch.cat([seen.hidden_states[k] for k in layers], -1) if layers else seen.last_hidden_state
        return Truth(seen.hidden_states[1:], fed, [embeddings(model, inputs, *needs)], class_token)

    return look


def qwen(model: Any, inputs: Any) -> Truth:
    seen = model.model.visual(
        inputs["pixel_values"], grid_thw=inputs["image_grid_thw"], output_hidden_states=True
    )
    return Truth(
        blocks=[state[None] for state in seen.hidden_states[1:]],
        fed=seen.last_hidden_state[None],
        entering=[embeddings(model, inputs), *getattr(seen, "deepstack_features", [])],
    )


def pixtral(model: Any, inputs: Any) -> Truth:
    seen = model.model.vision_tower(
        inputs["pixel_values"], image_sizes=inputs["image_sizes"], output_hidden_states=True
    )
    return Truth(seen.hidden_states[1:], seen.hidden_states[-1], [embeddings(model, inputs)])


def mllama(model: Any, inputs: Any) -> Truth:
    """The encoder ends in the last global block beside chosen local ones: choose them all, then cut it shorter."""
    encoder, width = model.model.vision_model, tiny.VISION_WIDTH
    names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
    real = inputs["aspect_ratio_mask"][0, 0].bool()

    def look() -> Tensor:
        return encoder(**{name: inputs[name] for name in names}).last_hidden_state[0, 0, real]

    fed = look()
    with patch.object(encoder, "intermediate_layers_indices", range(tiny.VISION_BLOCKS)):
        local_blocks = look()[..., width:].unflatten(-1, (width, -1)).unbind(-1)
    with patch.object(encoder.global_transformer, "layers", encoder.global_transformer.layers[:1]):
        first_global = look()[..., :width]
    return Truth(
        blocks=[*local_blocks, first_global, fed[..., :width]],
        fed=fed,
        entering=[model.model.multi_modal_projector(fed).flatten(0, 1)],
        class_token=True,
    )


def florence2(model: Any, inputs: Any) -> Truth:
    def block_by_block(grid: Tensor) -> Iterator[Tensor]:
        for shrink, blocks in zip(
            model.model.vision_tower.convs, model.model.vision_tower.blocks, strict=True
        ):
            grid = shrink(grid)
            for block in blocks:
                grid = block(grid)
                yield grid.flatten(2).transpose(1, 2)

    blocks = list(block_by_block(inputs["pixel_values"]))
    return Truth(blocks, blocks[-1], [embeddings(model, inputs)])


PROVEN = {
    "llava": Case(tiny.llava, tower(layer=-2, class_token=True), fixed=True),
    "llava_next": Case(tiny.llava_next, tower(layer=-2, class_token=True)),
    "llava_onevision": Case(tiny.llava_onevision, tower(layer=-1)),
    "blip2": Case(
        tiny.blip2,
        tower("vision_model", class_token=True),
        norms=["language_model.model.decoder.final_layer_norm"],
        fixed=True,
    ),
    "instructblip": Case(
        tiny.instructblip,
        tower("vision_model", class_token=True, needs=["qformer_input_ids", "qformer_attention_mask"]),
        norms=["language_model.model.norm"],
        fixed=True,
    ),
    "idefics3": Case(tiny.idefics3, tower("model.vision_model"), norms=["model.text_model.norm"]),
    "smolvlm": Case(tiny.smolvlm, tower("model.vision_model"), norms=["model.text_model.norm"]),
    "paligemma": Case(tiny.paligemma, tower(), fixed=True),
    "gemma3": Case(tiny.gemma3, tower(), "<image_soft_token>", fixed=True),
    "qwen2_vl": Case(tiny.qwen2_vl, qwen, "<|image_pad|>"),
    "qwen2_5_vl": Case(tiny.qwen2_5_vl, qwen, "<|image_pad|>"),
    "qwen3_vl": Case(tiny.qwen3_vl, qwen, "<|image_pad|>"),
    "internvl": Case(tiny.internvl, tower(class_token=True), "<IMG_CONTEXT>"),
    "mistral3": Case(tiny.mistral3, pixtral, "[IMG]"),
    "pixtral": Case(tiny.pixtral, pixtral, "[IMG]"),
    "aya_vision": Case(tiny.aya_vision, tower(layer=-1), "<|IMG_PATCH|>"),
    "mllama": Case(tiny.mllama, mllama, "<|image|>", cross_attends=True),
    "florence2": Case(tiny.florence2, florence2, norms=(), start=2, fixed=True),
}
VARIANTS = {
    "llava_layers": Case(partial(tiny.llava, [-3, -1]), tower(layer=[-3, -1], class_token=True), fixed=True),
    "llava_class_token": Case(
        partial(tiny.llava, class_token=True), tower(layer=-2, class_token=True), fixed=True
    ),
    "blip2_t5": Case(
        partial(tiny.blip2, t5=True),
        tower("vision_model", class_token=True),
        norms=["language_model.encoder.final_layer_norm", "language_model.decoder.final_layer_norm"],
        start=0,
        fixed=True,
    ),
}
CASES = PROVEN | VARIANTS


@cache
def opened(name: str) -> VLM:
    model, processor = CASES[name].build()
    return open_vlm(model, processor=processor)


@pytest.mark.parametrize("name", CASES)
def test_family(name: str) -> None:
    """Every site and readout, in a batch padded on either side, and of each image by itself."""
    vlm, case = opened(name), CASES[name]
    images, prompts = tiny.unequal_images(), [vlm.chat(question) for question in QUESTIONS]
    sites = [str(spec.site) for spec in vlm.anatomy.sites]
    alone = [vlm.inputs([image], prompt) for image, prompt in zip(images, prompts, strict=True)]
    expected = [reference(vlm, one, case) for one in alone]
    for side in ("left", "right"):
        batch = capture(vlm, vlm.inputs(images, prompts, padding_side=side), sites=sites)
        for row, vectors in enumerate(expected):
            compare({key: rows[row] for key, rows in batch.items()}, vectors, f"image {row} padded {side}")
    for row, one in enumerate(alone):
        vectors = {key: rows[0] for key, rows in capture(vlm, one, sites=sites).items()}
        compare(vectors, expected[row], f"image {row}")
    told = {(str(spec.site), readout) for spec in vlm.anatomy.sites for readout in spec.readouts}
    assert told == expected[0].keys()


def compare(captured: Vectors, expected: Vectors, where: str) -> None:
    unproven, missing = captured.keys() - expected.keys(), expected.keys() - captured.keys()
    assert not unproven, f"{where}: captured without a reference: {sorted(unproven)}"
    assert not missing, f"{where}: not captured: {sorted(missing)}"
    for key, vector in expected.items():
        torch.testing.assert_close(
            captured[key], vector, atol=CLOSE, rtol=CLOSE, msg=lambda text, key=key: f"{where}, {key}: {text}"
        )


@pytest.mark.parametrize("name", CASES)
def test_the_images_are_unequal(name: str) -> None:
    vlm = opened(name)
    with torch.no_grad():
        seen = [
            CASES[name].look(vlm.model, vlm.inputs([image], vlm.chat("?"))) for image in tiny.unequal_images()
        ]
    sizes = {truth.fed.shape[:2].numel() for truth in seen}
    assert len(sizes) == 1 if CASES[name].fixed else len(sizes) > 1


@pytest.mark.parametrize("name", CASES)
def test_no_two_blocks_look_alike(name: str) -> None:
    """Else a mix-up between neighbours could not be seen."""
    vlm = opened(name)
    vectors = reference(vlm, vlm.inputs(tiny.unequal_images()[:1], vlm.chat("?")), CASES[name])
    for part in ("vision", "projector", "llm"):
        blocks = [vector for (site, readout), vector in vectors.items() if site.startswith(f"{part}.")]
        for one, other in pairwise(blocks):
            assert one.shape != other.shape or (one - other).abs().max() > 100 * CLOSE


@pytest.mark.parametrize("name", CASES)
def test_the_table_tells_the_sites_and_the_proof(name: str, request: pytest.FixtureRequest) -> None:
    anatomy = opened(name).anatomy
    [row] = [row for row in families() if row.family == anatomy.family]
    assert row.model_type == anatomy.model_type
    assert row.sites == tuple(dict.fromkeys(kind(str(spec.site)) for spec in anatomy.sites))
    if name in PROVEN:
        this_test = request.node.originalname
        assert row.proven_by == request.node.nodeid.replace(this_test, test_family.__name__)


def kind(site: str) -> str:
    part, _, index = site.partition(".")
    return f"{part}.k" if index.isdigit() else site


def test_every_family_is_proven_and_in_the_table() -> None:
    assert len(families()) == len({row.family for row in families()}) == len(PROVEN)
