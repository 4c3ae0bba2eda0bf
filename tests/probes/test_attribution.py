"""Maps where it is known beforehand what a score rests on: one patch of the picture, or a sum over its pixels."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fgdiag_probes.attribution import attribute, attribute_image, kept_maps
from fgdiag_probes.faithfulness import (
    PARTS,
    Faithfulness,
    Masks,
    OnMarks,
    faithfulness,
    likeness,
    masks_of,
    shuffled_weights,
)
from fgdiag_probes.in_process import InProcess
from fgdiag_probes.layout import pixel_layout, token_layout
from fgdiag_probes.likelihood import name_likelihood
from fgdiag_probes.map_methods import METHODS, method_named
from fgdiag_probes.maps import AttributionMaps, Map
from fgdiag_probes.rollout import roll_out
from fgdiag_probes.substitution import Substitution, entry_spec, hooked, tokens_at
from fgdiag_probes.targets import LetterTarget, NameTarget, ProbeTarget, best_readout, probe_of
from PIL import Image
from torch import Tensor

from fgdiag.errors import FgdiagError, ModelNotSupported
from fgdiag.extraction import extract
from fgdiag.fieldguide import load_masks, write_fieldguide
from fgdiag.images import open_images
from fgdiag.prompts import FINE_QUESTION
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny
from tests.fgdiag.recorded import tiny_vlm

WAYS = [
    f"{name}@{entry}" for name, method in METHODS.items() for entry in method.entries if name != "rollout"
]
HERE = "here"


@cache
def opened(family: str, *, local: bool = False) -> VLM:
    """A tiny model; `local`: the blocks of its encoder add nothing, so that a token knows only its own patch."""
    torch.set_num_threads(1)
    model, processor = getattr(tiny, family)()
    if local:
        with torch.no_grad():
            for name, weight in model.get_encoder(modality="image").named_parameters():
                if "out_proj" in name or "fc2" in name:
                    weight.zero_()
    return open_vlm(model, processor=processor, device="cpu")


class OneToken:
    """A score that depends on one image token alone, as it enters the LLM, and on that linearly."""

    question, words, classes, key = FINE_QUESTION, "one token", (HERE,), "one token"

    def __init__(self, vlm: VLM, picture: Image.Image, token: int) -> None:
        self.token, self.direction = token, torch.zeros(())
        given = Substitution(vlm, picture, self, "projector")
        self.direction = (given.original - given.blurred)[0, token]

    def scores(self, vlm: VLM, inputs: Mapping[str, Any]) -> Tensor:
        spec, seen = entry_spec(vlm, "projector"), []

        def look(hidden: Tensor) -> Tensor:
            seen.append(hidden)
            return hidden

        with hooked(vlm.model.get_submodule(spec.path), spec, look):
            vlm.forward(inputs)
        column = vlm.spans(inputs).image[0].nonzero()[self.token, 0]
        return seen[0][:, column] @ self.direction


class SumOfPixels:
    """A score that is a weighted sum of what the processor makes; no model runs."""

    question, words, classes, key = FINE_QUESTION, "sum of pixels", (HERE,), "sum"

    def __init__(self, vlm: VLM, picture: Image.Image) -> None:
        pixels = vlm.inputs([picture], vlm.chat(FINE_QUESTION))["pixel_values"]
        self.weights = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))

    def scores(self, vlm: VLM, inputs: Mapping[str, Any]) -> Tensor:
        pixels = inputs["pixel_values"]
        return (pixels.unflatten(0, (-1, len(self.weights))) * self.weights).flatten(1).sum(1)


def with_noise_in(size: tuple[int, int], left: int, top: int, side: int) -> Image.Image:
    picture = Image.new("RGB", size, (127, 127, 127))
    noise = np.random.default_rng(0).choice([0, 255], (side, side, 3)).astype(np.uint8)
    picture.paste(Image.fromarray(noise), (left, top))
    return picture


PLANTED = {
    # family: size of the picture, the token, and the square that it is made of: left, top, side
    "llava": ((112, 112), 6, (56, 28, 28)),
    # two tiles of 2 x 2 tokens, then the whole picture: token 5 is the upper right one of the right tile
    "aya_vision": ((224, 112), 5, (168, 0, 56)),
}


@pytest.mark.parametrize("family", PLANTED)
@pytest.mark.parametrize("way", WAYS)
def test_a_map_lies_on_the_one_patch_that_counts(family: str, way: str) -> None:
    vlm, (size, token, square) = opened(family, local=True), PLANTED[family]
    picture = with_noise_in(size, *square)
    found = attribute_image(vlm, picture, OneToken(vlm, picture, token), way, checked=False, budget=200)
    rows, columns = found.values.shape
    assert (rows, columns) == (56 * size[1] // max(size), 56)
    row, column = np.argwhere(found.values == np.nanmax(found.values)).mean(0)
    left, top, side = square
    assert left <= (column + 0.5) * size[0] / columns <= left + side, (row, column)
    assert top <= (row + 0.5) * size[1] / rows <= top + side, (row, column)


@pytest.mark.parametrize("way", ["ig@pixels", "ig@projector", "shapley@projector", "shapley@pixels"])
def test_relevances_sum_to_the_difference_of_the_scores(way: str) -> None:
    vlm, picture = opened("llava"), tiny.noise(112, 112)
    found = attribute_image(vlm, picture, NameTarget("Oat", "Rye"), way, checked=False)
    difference = found.score - found.blurred_score
    assert float(np.nansum(found.values)) == pytest.approx(difference, rel=0.03, abs=2e-3)


def test_deletion_and_insertion_of_a_sum_are_known() -> None:
    vlm, picture = opened("llava"), tiny.noise(80, 112)
    target = SumOfPixels(vlm, picture)
    given, layout = Substitution(vlm, picture, target, "pixels"), pixel_layout(vlm, picture.size)
    values = layout.lay(target.weights * (given.original - given.blurred)[0])
    first, last = given.scores_of([given.original[0], given.blurred[0]]).tolist()
    ordered = np.sort(values[layout.seen])[::-1]
    assert ordered.sum() == pytest.approx(first - last, rel=1e-4)
    gone = np.array([ordered[: round(part * len(ordered) / PARTS)].sum() for part in range(PARTS + 1)])
    found = faithfulness(given, layout, values)
    assert found.deletion == pytest.approx(np.trapezoid(first - gone) / PARTS, rel=1e-3)
    assert found.insertion == pytest.approx(np.trapezoid(last + gone) / PARTS, rel=1e-3)
    assert found.passed
    assert not faithfulness(given, layout, -values).passed


@pytest.mark.parametrize("way", ["ig@pixels", "ixg@pixels"])
def test_gradients_of_a_sum_are_exact(way: str) -> None:
    vlm, picture = opened("llava"), tiny.noise(112, 112)
    target = SumOfPixels(vlm, picture)
    found = attribute_image(vlm, picture, target, way, checked=False)
    assert float(found.values.sum()) == pytest.approx(found.score - found.blurred_score, rel=1e-3)


# --- where things lie -----------------------------------------------------------------------------------------------


def test_what_is_cropped_away_is_not_seen() -> None:
    """CLIP's processor scales the shorter side to 56 and crops the middle: of 120 columns the middle 60 are left."""
    layout = pixel_layout(opened("llava"), (120, 60))
    assert layout.shape == (28, 56)
    assert layout.seen.all(0).tolist() == [14 <= column < 42 for column in range(56)]
    cells = layout.lay(torch.ones_like(layout.black))
    assert np.isnan(cells[:, :14]).all()
    assert np.nansum(cells) == layout.black.numel()


def test_tokens_lie_in_a_grid() -> None:
    layout = token_layout(opened("llava"), (112, 112), "projector")
    for token, (rows, columns) in enumerate(zip(layout.rows, layout.columns, strict=True)):
        row, column = divmod(token, 4)
        assert np.flatnonzero(rows).tolist() == list(range(14 * row, 14 * row + 14))
        assert np.flatnonzero(columns).tolist() == list(range(14 * column, 14 * column + 14))


def test_tokens_of_tiles_lie_in_their_tiles() -> None:
    """Two tiles side by side, each of 2 x 2 tokens, and then 2 x 2 tokens of the whole picture."""
    layout = token_layout(opened("aya_vision"), (224, 112), "projector")
    left = [float(np.flatnonzero(columns)[0]) / 56 for columns in layout.columns]
    width = [np.count_nonzero(columns) / 56 for columns in layout.columns]
    np.testing.assert_allclose(left, [0, 0.25, 0, 0.25, 0.5, 0.75, 0.5, 0.75, 0, 0.5, 0, 0.5], atol=0.04)
    np.testing.assert_allclose(width, [0.25] * 8 + [0.5] * 4, atol=0.04)


def test_tokens_that_look_everywhere_are_refused() -> None:
    with pytest.raises(ModelNotSupported, match="looks at the whole picture"):
        token_layout(opened("blip2"), (60, 60), "projector")


def test_looking_for_tokens_leaves_the_model_as_it_was() -> None:
    vlm, picture = opened("llava"), tiny.noise(64, 64)
    spec, inputs = entry_spec(vlm, "projector"), vlm.inputs([picture], vlm.chat(FINE_QUESTION))
    before = tokens_at(vlm, spec, inputs)
    token_layout(vlm, (61, 47), "projector")
    assert torch.equal(tokens_at(vlm, spec, inputs), before)


# --- targets --------------------------------------------------------------------------------------------------------


def inputs_for(vlm: VLM, picture: Image.Image, question: str) -> Mapping[str, Any]:
    return vlm.inputs([picture], vlm.chat(question))


@pytest.mark.parametrize("family", ["llava", "aya_vision", "florence2"])
def test_names_score_as_elsewhere(family: str) -> None:
    vlm, picture = opened(family), tiny.noise(70, 40)
    target = NameTarget("Oat Bar", "Rye")
    [[oat, rye]] = name_likelihood(vlm, [picture], ["Oat Bar", "Rye"], FINE_QUESTION)
    with torch.no_grad():
        [found] = target.scores(vlm, inputs_for(vlm, picture, target.question)).tolist()
    assert found == pytest.approx(oat - rye, abs=2e-3)


def test_letters_score_as_elsewhere() -> None:
    from fgdiag_probes.asking import Question

    vlm, picture = opened("llava"), tiny.noise(70, 40)
    target = LetterTarget(("Oat", "Rye", "Rice"), 2, 0)
    [reply] = InProcess(vlm).replies([Question(lambda: picture, target.question, ("A", "B", "C"))])
    assert reply.letters is not None
    with torch.no_grad():
        [found] = target.scores(vlm, inputs_for(vlm, picture, target.question)).tolist()
    assert found == pytest.approx(reply.letters[2] - reply.letters[0], abs=1e-3)
    assert target.words == "log-probability of the letter C (Rice), against A (Oat) (nats)"


# --- a run ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, VLM, Any]:
    folder = tmp_path_factory.mktemp("attributed")
    for label, shade in (("dark owl", 60), ("pale owl", 190)):
        (folder / "owls" / label).mkdir(parents=True)
        for index in range(8):
            pixels = shade + np.random.default_rng(index).normal(0, 30, (40, 40, 3))
            picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / "owls" / label / f"{index}.png")
    vlm, images = tiny_vlm(), open_images(folder / "owls")
    return extract(vlm, images, folder / "run", sites=["vision", "llm.1"]), vlm, images


def test_a_probe_scores_as_on_what_was_recorded(recorded: tuple[Any, VLM, Any]) -> None:
    run, vlm, images = recorded
    assert best_readout(run, "vision") == "image"
    for site, readout in (("vision", "image"), ("llm.1", "last")):
        probe = probe_of(run, site, readout)
        target = ProbeTarget.of(probe, site, readout, "dark owl", "pale owl", question=run.manifest["prompt"])
        logits = probe.logits(run.activations(site, readout)[:3])
        for row in range(3):
            with torch.no_grad():
                [found] = target.scores(vlm, inputs_for(vlm, images.open(row), target.question)).tolist()
            assert found == pytest.approx(float(logits[row, 0] - logits[row, 1]), abs=2e-3)


def test_maps_of_a_run_are_kept_and_read_back(
    recorded: tuple[Any, VLM, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, vlm, images = recorded
    how = {"methods": ["ixg", "gradcam"], "target": "probe:vision", "count": 2, "ruined": 1}
    found = attribute(run, vlm, images, [("Dark Owl", "pale-owl")], **how)
    assert [one.fine for one in found.of(found.maps[0].row or 0)] == [found.maps[0].fine] * 2
    assert sorted({str(one.fine) for one in found.maps}) == ["dark owl", "pale owl"]
    table = found.frame().set_index("method")
    assert list(table.index) == ["ixg@pixels", "gradcam@vision"]
    assert set(found.ruined) == set(table.index)
    monkeypatch.setattr("fgdiag_probes.attribution.attribute_image", None)  # nothing is made anew
    again = attribute(run, vlm, images, [("Dark Owl", "pale-owl")], **how)
    assert again.json() == found.json()
    np.testing.assert_array_equal(again.maps[0].values, found.maps[0].values)
    assert [one.name for one in kept_maps(run, found.maps[0].row or 0)].count("ixg@pixels") == 1
    failed = [row["method"] for row in found.frame().to_dict("records") if not row["passed"]]
    assert len(found.sentences()) == len(failed)


def test_an_unknown_target_or_method_is_told(recorded: tuple[Any, VLM, Any]) -> None:
    run, vlm, images = recorded
    with pytest.raises(FgdiagError, match="expected name, letter, probe:SITE"):
        attribute(run, vlm, images, [("dark owl", "pale owl")], target="probe")
    with pytest.raises(FgdiagError, match="No method 'smoothgrad'"):
        method_named("smoothgrad")
    with pytest.raises(FgdiagError, match="gradcam is used at vision or projector, not at 'pixels'"):
        method_named("gradcam@pixels")


# --- checks ---------------------------------------------------------------------------------------------------------


def test_shuffled_weights_come_back() -> None:
    vlm = opened("llava")
    before = {name: weight.clone() for name, weight in vlm.model.named_parameters()}
    with shuffled_weights(vlm):
        largest = max(before, key=lambda name: before[name].numel())
        assert not torch.equal(dict(vlm.model.named_parameters())[largest], before[largest])
    assert all(torch.equal(weight, before[name]) for name, weight in vlm.model.named_parameters())


def test_likeness_is_a_rank_correlation() -> None:
    one = np.arange(12.0).reshape(3, 4)
    assert likeness(one, one**3) == pytest.approx(1)
    assert likeness(one, -one) == pytest.approx(-1)
    assert likeness(one, np.zeros_like(one)) == 0


def test_share_on_the_marks() -> None:
    """The left half is the bird, its upper half the marks; the map has 3 there, 1 below, 4 elsewhere."""
    bird, marks = np.zeros((8, 8), bool), np.zeros((8, 8), bool)
    bird[:, :4], marks[:4, :4] = True, True
    values = np.array([[3.0, 4.0], [1.0, -9.0]])
    worn = np.zeros((8, 8), bool)
    worn[:2, :4] = True
    found = OnMarks.of(values, Masks(marks, worn, bird))
    assert (found.on_marks, found.on_worn, found.on_bird) == (3 / 8, 3 / 16, 4 / 8)
    assert (found.marks_of_bird, found.worn_of_bird, found.marks_of_picture) == (1 / 2, 1 / 4, 1 / 4)


def test_masks_of_a_field_guide(tmp_path: Path) -> None:
    """A ringed and a rosy bird differ by eye ring and breast; the ringed one wears a mark on the first alone."""
    guide = write_fieldguide(tmp_path / "guide", per_class=1, test_per_class=0, size=64, workers=1)
    source = "train/Barkpecker/Ringed-Barkpecker/000.jpg"
    found, parts = masks_of(guide, source, "Ringed-Barkpecker", "Rosy-Barkpecker"), load_masks(guide, source)
    assert found is not None
    np.testing.assert_array_equal(found.worn, parts["eye_ring"])
    np.testing.assert_array_equal(found.marks, parts["eye_ring"] | parts["breast"])
    assert masks_of(guide, source, "oat", "rye") is None
    assert masks_of(guide, "none.jpg", "Ringed-Barkpecker", "Rosy-Barkpecker") is None


def test_rollout_by_hand() -> None:
    """The second token takes all from the first: half of it by attention, half by the residual stream."""
    attention = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    torch.testing.assert_close(roll_out(attention), torch.tensor([[1.0, 0.0], [0.5, 0.5]]))
    torch.testing.assert_close(roll_out(attention.repeat(2, 1, 1))[1], torch.tensor([0.75, 0.25]))


def test_rollout_lies_on_the_picture() -> None:
    found = attribute_image(
        opened("llava"), tiny.noise(112, 112), NameTarget("Oat"), "rollout", checked=False
    )
    assert 0 < found.values.sum() < 1
    assert (found.values >= 0).all()


def a_map(**more: Any) -> Map:
    about = {"method": "ig", "entry": "pixels", "target": "t", "classes": ("oat", "rye"), "score": 1.0}
    values = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    return Map(values, np.zeros((30, 40, 3), np.uint8), **about, blurred_score=0.0, **more)  # pyright: ignore[reportArgumentType]


def test_a_map_that_fails_says_so(tmp_path: Path) -> None:
    good = Faithfulness(1.0, 3.0, 2.0, 2.0, (2.0, 2.1), (2.0, 2.0))
    bad = Faithfulness(2.0, 2.0, 2.0, 2.0, (2.0, 2.1), (2.0, 2.2))
    assert a_map(faithfulness=good).remark == ""
    failed = a_map(faithfulness=bad, row=3, fine="oat")
    assert "Not to be believed" in failed.remark
    assert failed.remark in failed.figure().to_dict()["layout"]["title"]["text"]
    failed.save(tmp_path / "one.npz", "key")
    assert Map.read(tmp_path / "one.npz", "other") is None
    again = Map.read(tmp_path / "one.npz", "key")
    assert again is not None
    assert again.json() == failed.json()
    told = AttributionMaps((failed,), {"ig@pixels": [0.9]}).sentences()
    assert "hardly change when the model's weights are shuffled" in told[0]
