"""Joining encoders and LLMs: the parts stay what they were, and what cannot be joined is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fgdiag.assemble import PROJECTORS, Projector, assemble, write_assembled
from fgdiag.chat_template import chat_template
from fgdiag.errors import ModelNotSupported
from fgdiag.language_models import open_language_model
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny
from tests.fgdiag.conftest import SIDE


def opened(*parts: Path, **options: Any) -> VLM:
    model, processor = assemble(*parts, **options)
    return open_vlm(model, processor=processor)


def embeddings(model: Any) -> torch.Tensor:
    return model.get_input_embeddings().weight


def image_embeddings(vlm: VLM, inputs: Any) -> torch.Tensor:
    """(tokens, width) as the LLM is given them."""
    model: Any = vlm.model
    found = model.get_image_features(pixel_values=inputs["pixel_values"]).pooler_output
    return torch.cat([tokens.flatten(0, -2) for tokens in found])


@pytest.mark.parametrize("projector", PROJECTORS)
def test_the_parts_keep_their_weights_and_the_joint_is_what_it_says(
    projector: Projector, encoder: Path, llm: Path
):
    from transformers import AutoModel, AutoModelForCausalLM

    vlm = opened(encoder, llm, projector=projector, projector_width=20)
    side = SIDE // tiny.PATCH
    assert vlm.anatomy.image_tokens == {"pixel-shuffle": (side // 4) ** 2}.get(projector, side**2)
    tower, words = AutoModel.from_pretrained(encoder), AutoModelForCausalLM.from_pretrained(llm)
    model: Any = vlm.model
    for name, weight in tower.state_dict().items():
        torch.testing.assert_close(model.model.vision_tower.state_dict()[name], weight)
    rows = embeddings(words)
    torch.testing.assert_close(embeddings(model)[: len(rows)], rows)
    inputs = vlm.inputs([tiny.noise(150, 130)], vlm.chat("What?"))
    with torch.no_grad():
        patches = tower(inputs["pixel_values"], output_hidden_states=True).hidden_states[-1][:, 1:]
        expected = model.model.multi_modal_projector(patches)
        torch.testing.assert_close(image_embeddings(vlm, inputs), expected.reshape(-1, tiny.TEXT_WIDTH))


def test_a_seed_gives_the_same_weights_and_another_only_another_projector(encoder: Path, llm: Path):
    one, same, other = (assemble(encoder, llm, seed=seed)[0].state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    differ = {name for name in one if not torch.equal(one[name], other[name])}
    assert {name for name in differ if "projector" not in name} <= {
        "model.language_model.embed_tokens.weight",
        "lm_head.weight",
    }
    assert any("projector" in name for name in differ)


@pytest.mark.parametrize("projector", ["mlp", "linear"])
def test_a_convolutional_encoder_gives_a_token_for_each_cell(
    projector: Projector, convolutional: Path, llm: Path, tmp_path: Path
):
    from transformers import AutoModel

    write_assembled(*assemble(convolutional, llm, projector=projector), tmp_path / "vlm")
    vlm = open_vlm(tmp_path / "vlm", dtype="float32")
    assert vlm.anatomy.image_tokens == 16
    inputs = vlm.inputs([tiny.noise(40, 40)], vlm.chat("What?"))
    tower, model = AutoModel.from_pretrained(convolutional), vlm.model
    with torch.no_grad():
        cells = tower(inputs["pixel_values"]).last_hidden_state.flatten(2).transpose(1, 2)
        fed: Any = (
            model.model.vision_tower(inputs["pixel_values"]).last_hidden_state.flatten(2).transpose(1, 2)
        )
    torch.testing.assert_close(fed, cells, atol=0.05, rtol=0.02)  # the folder holds bfloat16


def test_a_linear_projector_is_a_linear_map(encoder: Path, llm: Path):
    model: Any = opened(encoder, llm, projector="linear").model
    a, b = torch.randn(2, 5, tiny.VISION_WIDTH)
    project = model.model.multi_modal_projector
    with torch.no_grad():
        torch.testing.assert_close(project(a + b) + project(0 * a), project(a) + project(b))


@pytest.mark.parametrize("words", ["llm", "gemma"])
def test_image_tokens_enter_as_long_as_word_embeddings_do(
    words: str, encoder: Path, request: pytest.FixtureRequest
):
    vlm = opened(encoder, request.getfixturevalue(words))
    with torch.no_grad():
        seen = image_embeddings(vlm, vlm.inputs([tiny.noise(99, 99)], vlm.chat("?")))
        read = vlm.model.get_input_embeddings()(torch.arange(100))
    ratio = seen.square().mean().sqrt() / read.square().mean().sqrt()
    assert 0.1 < ratio < 3


def test_the_encoder_can_be_shown_smaller_images(encoder: Path, llm: Path):
    vlm = opened(encoder, llm, resolution=SIDE // 2, merge=2)
    assert vlm.anatomy.image_tokens == 4
    assert vlm.inputs([tiny.noise(150, 130)], vlm.chat("?"))["pixel_values"].shape[-1] == SIDE // 2


def test_the_first_layers_of_an_llm_can_be_kept_alone(encoder: Path, llm: Path):
    vlm, whole = opened(encoder, llm, llm_layers=2), open_language_model(llm)[0]
    sites = [str(spec.site) for spec in vlm.anatomy.sites]
    assert "llm.1" in sites
    assert "llm.2" not in sites
    kept = vlm.model.model.language_model.layers[1].state_dict()  # pyright: ignore[reportIndexIssue, reportAttributeAccessIssue]
    torch.testing.assert_close(kept, whole.base_model.layers[1].state_dict())
    with pytest.raises(ModelNotSupported, match="has 4 layers; got 9 to keep"):
        opened(encoder, llm, llm_layers=9)


def test_a_grid_that_cannot_be_merged_is_refused(encoder: Path, convolutional: Path, llm: Path):
    with pytest.raises(ModelNotSupported, match="8 x 8 patches, which cannot be merged 3 x 3"):
        assemble(encoder, llm, merge=3)
    with pytest.raises(ModelNotSupported, match="merged its image into 4 x 4 cells already"):
        assemble(convolutional, llm)


def test_an_encoder_with_registers_is_refused(llm: Path, tmp_path: Path):
    from transformers import BitImageProcessorPil, Dinov2WithRegistersConfig, Dinov2WithRegistersModel

    config = Dinov2WithRegistersConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14
    )
    Dinov2WithRegistersModel(config).save_pretrained(tmp_path)
    BitImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(  # pyright: ignore[reportArgumentType]
        tmp_path
    )
    with pytest.raises(ModelNotSupported, match="puts out 9 tokens"):
        assemble(tmp_path, llm, merge=2)


def test_an_llm_whose_head_scales_its_logits_is_refused(encoder: Path, tmp_path: Path):
    from transformers import GraniteConfig, GraniteForCausalLM

    words = tiny.tokenizer()
    config = GraniteConfig(**tiny.text_sizes(words), logits_scaling=8.0, initializer_range=0.3)
    torch.manual_seed(0)
    GraniteForCausalLM(config).save_pretrained(tmp_path)
    words.save_pretrained(tmp_path)
    with pytest.raises(ModelNotSupported, match="more behind its last layer than a linear map"):
        assemble(encoder, tmp_path)


QUESTION = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
OWN = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'].strip() }}\n{% endfor %}[model]"
)


@pytest.mark.parametrize(
    ("own", "prompt"),
    [(OWN, "<s>[user] <image>What?\n[model]"), (None, "<s>User: <image>What?\nAssistant:")],
)
def test_the_chat_template_is_the_llms_own_with_a_place_for_the_image(own: str | None, prompt: str):
    words = tiny.tokenizer()
    words.chat_template = own
    written = chat_template(words)
    assert (
        words.apply_chat_template(QUESTION, chat_template=written, tokenize=False, add_generation_prompt=True)
        == prompt
    )


def test_a_chatml_model_gets_no_system_message():
    words = tiny.tokenizer("<|im_start|>", "<|im_end|>")
    words.chat_template = "never used"
    found = words.apply_chat_template(
        QUESTION, chat_template=chat_template(words), tokenize=False, add_generation_prompt=True
    )
    assert found == "<|im_start|>user\n<image>What?<|im_end|>\n<|im_start|>assistant\n"
