"""Token lenses where it is known beforehand what they must say: the model's own logits, a planted word, a grid."""

import json
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fgdiag_probes.layout import TokenLayout
from fgdiag_probes.lens import image_lens, kept_lens, token_lenses
from fgdiag_probes.substitution import hooked
from fgdiag_probes.token_boxes import boxes_of
from fgdiag_probes.token_lens import WAYS, TokenLens
from fgdiag_probes.word_reader import ranks_in
from torch import Tensor

from fgdiag.errors import ModelNotSupported, RunIncomplete
from fgdiag.extraction import extract
from fgdiag.images import open_images
from fgdiag.prompts import FINE_QUESTION
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny
from tests.fgdiag.recorded import tiny_vlm, write_images

NAMES = ("Oat", "Rye")


@cache
def opened(family: str) -> VLM:
    torch.set_num_threads(1)
    model, processor = getattr(tiny, family)()
    return open_vlm(model, processor=processor, device="cpu")


def lens_of(vlm: VLM, **how: Any) -> TokenLens:
    return image_lens(vlm, tiny.noise(112, 112), NAMES, **how)


@pytest.mark.parametrize(
    "family", ["llava", "llava_next", "aya_vision", "gemma3", "internvl", "paligemma", "qwen2_vl", "qwen3_vl"]
)
def test_the_last_layer_says_what_the_model_itself_says(family: str) -> None:
    vlm, picture = opened(family), tiny.noise(112, 112)
    found = image_lens(vlm, picture, NAMES)
    inputs = vlm.inputs([picture], vlm.chat(FINE_QUESTION))
    with torch.no_grad():
        own = vlm.model(**inputs, use_cache=False).logits[vlm.spans(inputs).image].float()
    own = own[:, : found.vocabulary]
    likeliest = own.softmax(-1).topk(5)
    np.testing.assert_allclose(found.scores[0, -1], likeliest.values, atol=1e-5)
    tokenizer: Any = vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    told = [tokenizer.decode([token]).strip() for token in likeliest.indices[:, 0].tolist()]
    assert all(
        word == plain for word, plain in zip(found.words[0, -1, :, 0], told, strict=True) if plain.isalnum()
    )
    letters = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "Oo"]
    best = own[:, letters].max(1).values
    np.testing.assert_array_equal(found.ranks[0, -1, 0], 1 + (own > best[:, None]).sum(1))


def test_a_planted_word_is_named() -> None:
    """What enters the LLM in the place of image token 5 is the embedding of `Q`."""
    vlm = opened("llava")
    tokenizer: Any = vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    [letter] = tokenizer("Q", add_special_tokens=False)["input_ids"]
    embeddings: Any = vlm.model.get_input_embeddings()
    spec = vlm.anatomy.site("projector")
    where = vlm.spans(vlm.inputs([tiny.noise(112, 112)], vlm.chat(FINE_QUESTION))).image[0].nonzero()[5, 0]

    def plant(hidden: Tensor) -> Tensor:
        hidden = hidden.clone()
        hidden[:, where] = 3 * embeddings.weight[letter]
        return hidden

    with hooked(vlm.model.get_submodule(spec.path), spec, plant):
        found = image_lens(vlm, tiny.noise(112, 112), ("Quail", "Rye"))
    nearest = list(WAYS).index("nearest")
    assert found.sites[0] == "projector"
    assert found.words[nearest, 0, 5, 0] == "Q"
    assert found.scores[nearest, 0, 5, 0] == pytest.approx(1, abs=1e-4)
    assert found.ranks[nearest, 0, 0, 5] == 1
    assert found.ranks_among[nearest, 0, 0, 5] == 1
    assert (found.words[nearest, 0, :5, 0] != "Q").any()


def test_ranks_are_counted_from_one_and_shared_by_equals() -> None:
    values = torch.tensor([[3.0, 1.0, 2.0, 2.0]])
    for own, rank in ((3.0, 1.0), (2.0, 2.5), (1.0, 4.0)):
        assert ranks_in(values, torch.tensor([own]), 4).tolist() == [rank]


def test_among_all_names_the_distinct_first_tokens_are_ranked() -> None:
    found = lens_of(opened("llava"), among=[["Oat", "Oak", "Rye", "Ash"], ["Rye"]])
    assert found.among == (3, 1)  # Oat and Oak begin alike: a token is a letter here
    assert found.spellings == (("O", "o"), ("R", "r"))
    assert set(np.unique(found.ranks_among[:, :, 0])) <= {1, 2, 3}
    assert (found.ranks_among[:, :, 1] == 1).all()
    assert found.by_chance(0) == pytest.approx((found.vocabulary + 1) / 3)


def test_tokens_of_crops_and_of_the_whole_picture_are_two_grids() -> None:
    """Two tiles side by side, each of 2 x 2 tokens, and then 2 x 2 tokens of the whole picture."""
    found = image_lens(opened("aya_vision"), tiny.noise(224, 112), NAMES)
    assert found.grid.tolist() == [0] * 8 + [1] * 4
    np.testing.assert_allclose(found.boxes[0], [0, 0, 0.25, 0.5], atol=0.04)
    np.testing.assert_allclose(found.boxes[5], [0.75, 0, 1, 0.5], atol=0.04)
    np.testing.assert_allclose(found.boxes[11], [0.5, 0.5, 1, 1], atol=0.04)


def test_neighbours_meet() -> None:
    """Two tokens that both are made of the band between them meet in its middle; a third lies nowhere."""
    shares = np.array([[1, 1, 1, 1, 0.6, 0, 0, 0, 0], [0, 0, 0, 0, 0.6, 1, 1, 1, 1], [0] * 9], float)
    boxes, grid = boxes_of(TokenLayout(np.ones((3, 1)), shares, np.ones((1, 9), bool)))
    assert grid.tolist() == [0, 0, -1]
    np.testing.assert_allclose(boxes[:2, [0, 2]], [[0, 0.5], [0.5, 1]])


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("mllama", "cross-attention"),
        ("florence2", "encoder-decoder"),
        ("blip2", "looks at the whole picture"),
    ],
)
def test_a_family_without_tokens_to_read_is_refused(family: str, why: str) -> None:
    with pytest.raises(ModelNotSupported, match=why) as refused:
        lens_of(opened(family))
    assert "\n" not in str(refused.value)


def test_reading_leaves_the_model_as_it_was() -> None:
    vlm = opened("llava")
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in vlm.model.modules()]
    first, again = lens_of(vlm), lens_of(vlm)
    np.testing.assert_array_equal(first.ranks, again.ranks)
    after = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in vlm.model.modules()]
    assert after == hooks


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, VLM, Any]:
    folder = tmp_path_factory.mktemp("lens")
    vlm, images = tiny_vlm(), open_images(write_images(folder / "images"))
    return extract(vlm, images, folder / "run", sites=["vision", "llm.1"]), vlm, images


def test_lenses_of_a_run_are_kept_and_read_back(
    recorded: tuple[Any, VLM, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, vlm, images = recorded
    found = token_lenses(run, vlm, images, count=3)
    rows = [one.row for one in found.lenses]
    assert rows == [one.row for one in token_lenses(run, vlm, images, count=3, seed=0).lenses]
    monkeypatch.setattr("fgdiag_probes.lens.image_lens", None)  # nothing is read anew
    again = token_lenses(run, vlm, images, count=3)
    assert again.json() == found.json() == json.loads((run.path / "results" / "lens.json").read_text())
    kept = kept_lens(run, int(rows[0] or 0))
    assert kept is not None
    for name in ("words", "ranks", "boxes"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(found.lenses[0], name))
    assert kept_lens(run, 9999) is None
    assert not [file for file in Path(run.path).rglob("*.pkl")]
    table = found.frame()
    assert list(table["site"].unique()) == ["projector", "llm.0", "llm.1", "llm.2", "llm.3"]
    middle = np.median([np.median(one.ranks[0, -1, 0]) for one in found.lenses])
    assert table.query("way == 'logits' and site == 'llm.3'")["rank"].iloc[0] == middle


def test_an_image_that_cannot_be_read_is_told(recorded: tuple[Any, VLM, Any]) -> None:
    run, vlm, images = recorded
    with pytest.raises(RunIncomplete, match="no readable image 999: it has rows 0 to"):
        token_lenses(run, vlm, images, rows=[999])


def test_figures_show_the_words_where_they_lie(recorded: tuple[Any, VLM, Any]) -> None:
    run, vlm, images = recorded
    one = token_lenses(run, vlm, images, count=1).lenses[0]
    figure: Any = one.figure("llm.1", "nearest")
    assert [unescape(word) for word in figure.data[0].text] == one.words[1, 2, :, 0].tolist()
    assert len(figure.layout.shapes) == len(one.boxes)
    curve: Any = one.curve("logits")
    assert list(curve.data[0].y) == one.ranks[0, :, 0].min(-1).tolist()
