"""Every fault shows at its site and behind it, never before, and leaves the model as it was bit for bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fgdiag_probes import name_likelihood
from fgdiag_probes.faults import (
    BiasedAnswers,
    BlindedEncoder,
    ErasedClasses,
    LowRankProjector,
    NoisyLayer,
    ShuffledNames,
)
from fgdiag_probes.harmless import ChangedBasis
from fgdiag_probes.likelihood import WAYS, answer_ids
from fgdiag_probes.planting import CannotPlant, Fault
from torch import Tensor

from fgdiag.errors import SiteNotFound
from fgdiag.hooks import capture
from fgdiag.prompts import FINE_QUESTION
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny
from tests.planted.conftest import Bench

FINE, COARSE = ("oat", "rye", "rice"), ("ear", "grain")
ROWS = [0, 40, 100, 170]
Make = Callable[[Bench], Fault]

DAMAGE: dict[str, Make] = {
    "blinded": lambda bench: BlindedEncoder(8),
    "rank": lambda bench: LowRankProjector(bench.run, 2),
    "noise": lambda bench: NoisyLayer(bench.run, "llm.1", 1),
    "erased at": lambda bench: ErasedClasses(bench.run, "llm.1", onwards=False),
    "erased from": lambda bench: ErasedClasses(bench.run, "llm.1"),
    "shuffled": lambda bench: ShuffledNames(FINE, COARSE),
    "biased": lambda bench: BiasedAnswers(3),
}
TWINS: dict[str, Make] = {
    "rotated": lambda bench: ChangedBasis("llm.1", "rotated"),
    "rescaled": lambda bench: ChangedBasis("llm.1", "rescaled"),
    "permuted": lambda bench: ChangedBasis("llm.1", "permuted"),
    "last block": lambda bench: ChangedBasis("llm.3", "rotated"),
}
IN_THE_LLM = {"llm.1", "llm.2", "llm.3", "llm.norm"}
SEEN_AT: dict[str, set[str]] = {
    "blinded": {"vision", "projector", "llm.0", *IN_THE_LLM},
    "rank": {"projector", "llm.0", *IN_THE_LLM},
    "noise": IN_THE_LLM,
    "erased at": IN_THE_LLM,
    "erased from": IN_THE_LLM,
    "shuffled": set(),
    "biased": set(),
    "rotated": {"llm.1"},
    "rescaled": {"llm.1"},
    "permuted": {"llm.1"},
    "last block": {"llm.3"},
}


@pytest.fixture(params=[*DAMAGE, *TWINS])
def fault(request: pytest.FixtureRequest, bench: Bench) -> tuple[str, Fault]:
    return request.param, (DAMAGE | TWINS)[request.param](bench)


def inputs_of(bench: Bench, rows: list[int]) -> Any:
    return bench.vlm.inputs(bench.batch(rows), bench.vlm.chat(FINE_QUESTION))


def logits_of(bench: Bench) -> Tensor:
    with torch.inference_mode():
        return bench.vlm.model(**inputs_of(bench, ROWS)).logits


def hooks_on(vlm: VLM) -> int:
    modules = list(vlm.model.modules())
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules)


def test_the_model_is_restored_bit_for_bit(bench: Bench, fault: tuple[str, Fault]):
    name, planted = fault
    weights = {key: value.clone() for key, value in bench.vlm.model.state_dict().items()}
    before, hooks = logits_of(bench), hooks_on(bench.vlm)
    with planted.planted(bench.vlm):
        assert torch.equal(before, logits_of(bench)) == (name in TWINS)
    assert torch.equal(before, logits_of(bench))
    with pytest.raises(KeyboardInterrupt), planted.planted(bench.vlm):
        raise KeyboardInterrupt
    assert hooks_on(bench.vlm) == hooks
    assert torch.equal(before, logits_of(bench))
    assert all(torch.equal(value, weights[key]) for key, value in bench.vlm.model.state_dict().items())


def test_it_is_seen_at_its_site_and_not_before(bench: Bench, fault: tuple[str, Fault]):
    name, planted = fault
    inputs = inputs_of(bench, ROWS)
    before = capture(bench.vlm, inputs)
    with planted.planted(bench.vlm):
        under = capture(bench.vlm, inputs)
    changed = {
        site
        for (site, readout), v in before.items()
        if readout != "pre" and not _same(v, under[site, readout])
    }
    assert changed == SEEN_AT[name]
    if name == "blinded":
        assert not _same(before["vision", "cls"], under["vision", "cls"])
    if planted.site:
        assert planted.site in changed
    assert set(before) == set(under)


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5, rtol=1e-5)


def test_it_does_the_same_behind_the_cache(bench: Bench, fault: tuple[str, Fault]):
    """Names are scored behind the cached prompt: prefill and continuation are damaged alike."""
    vlm, prompt = bench.vlm, bench.vlm.chat(FINE_QUESTION)
    ids = [answer_ids(vlm, prompt, name) for name in (*FINE, *COARSE)]
    with torch.inference_mode(), fault[1].planted(vlm):
        trie, rows, whole = (score(vlm, bench.batch(ROWS), prompt, ids) for score in WAYS)
    np.testing.assert_allclose(trie, whole, atol=1e-3)
    np.testing.assert_allclose(rows, whole, atol=1e-3)


@pytest.mark.parametrize("name", TWINS)
def test_a_harmless_twin_changes_no_answer(bench: Bench, name: str):
    clean = name_likelihood(bench.vlm, bench.batch(ROWS), FINE, FINE_QUESTION)
    with TWINS[name](bench).planted(bench.vlm):
        found = name_likelihood(bench.vlm, bench.batch(ROWS), FINE, FINE_QUESTION)
    np.testing.assert_allclose(found, clean, atol=1e-4)


def test_a_permutation_is_what_is_recorded(bench: Bench):
    inputs = inputs_of(bench, ROWS)
    before = capture(bench.vlm, inputs, sites=["llm.1"])["llm.1", "image"]
    with TWINS["permuted"](bench).planted(bench.vlm):
        under = capture(bench.vlm, inputs, sites=["llm.1"])["llm.1", "image"]
    torch.testing.assert_close(under.sort(1).values, before.sort(1).values)
    assert not _same(under, before)


def test_a_rank_is_the_rank_that_is_left(bench: Bench):
    with LowRankProjector(bench.run, 3).planted(bench.vlm):
        seen = capture(bench.vlm, inputs_of(bench, list(range(0, 200, 10))), sites=["projector"])
    values = torch.linalg.svdvals(seen["projector", "image"] - seen["projector", "image"].mean(0))
    assert int((values > 1e-4 * values[0]).sum()) == 3


def test_erased_classes_have_the_same_mean_in_each_readout(bench: Bench):
    """Which is what LEACE promises, and why no linear probe can tell them apart (Belrose et al. 2023)."""
    fine = bench.run.images["fine"].to_numpy(str)
    spread = {}
    for name, fault in {"before": BiasedAnswers(0), "under": ErasedClasses(bench.run, "llm.1")}.items():
        with fault.planted(bench.vlm):
            seen = capture(bench.vlm, inputs_of(bench, list(range(len(fine)))), sites=["llm.1"])
        for readout in ("image", "last"):
            values = seen["llm.1", readout].numpy()
            means = np.stack([values[fine == one].mean(0) for one in np.unique(fine)])
            spread[name, readout] = float(means.std(0).max())
    for readout in ("image", "last"):
        assert spread["under", readout] < 1e-3 * spread["before", readout]


def test_noise_belongs_to_the_image_and_to_the_seed(bench: Bench):
    def noise(rows: list[int], seed: int = 0) -> dict[tuple[str, str], Tensor]:
        inputs = inputs_of(bench, rows)
        clean = capture(bench.vlm, inputs, sites=["llm.1"])
        with NoisyLayer(bench.run, "llm.1", 2, seed).planted(bench.vlm):
            return {
                place: v - clean[place] for place, v in capture(bench.vlm, inputs, sites=["llm.1"]).items()
            }

    four, two = noise([0, 40, 100, 170]), noise([100, 0])
    torch.testing.assert_close(two["llm.1", "image"], four["llm.1", "image"][[2, 0]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(four["llm.1", "last"], four["llm.1", "image"], atol=1e-5, rtol=1e-4)
    assert not _same(noise([100, 0], seed=1)["llm.1", "image"], two["llm.1", "image"])


def test_noise_has_the_spread_that_is_asked_for(bench: Bench):
    inputs = inputs_of(bench, list(range(0, 200, 2)))
    clean = capture(bench.vlm, inputs, sites=["llm.1"])["llm.1", "image"]
    with NoisyLayer(bench.run, "llm.1", 3).planted(bench.vlm):
        noise = capture(bench.vlm, inputs, sites=["llm.1"])["llm.1", "image"] - clean
    parts = [bench.run.activations("llm.1", readout).var(0) for readout in ("image", "last")]
    ratio = noise.numpy().std(0) / np.sqrt(np.mean(parts, axis=0))
    assert 2.8 < ratio.mean() < 3.2


def test_shuffled_fine_names_leave_coarse_names_as_likely(bench: Bench):
    clean = name_likelihood(bench.vlm, bench.batch(ROWS), (*FINE, *COARSE), FINE_QUESTION)
    with ShuffledNames(FINE, COARSE).planted(bench.vlm):
        found = name_likelihood(bench.vlm, bench.batch(ROWS), (*FINE, *COARSE), FINE_QUESTION)
    np.testing.assert_allclose(found[:, 3:], clean[:, 3:], atol=1e-4)
    assert abs(found[:, :3] - clean[:, :3]).min() > 1e-3


def test_biased_answers_are_the_same_for_every_image(bench: Bench):
    with BiasedAnswers(200).planted(bench.vlm):
        found = name_likelihood(bench.vlm, bench.batch(ROWS), FINE, FINE_QUESTION)
    assert len(set(found.argmax(1))) == 1


def test_what_cannot_be_planted_is_said():
    model, processor = tiny.qwen2_vl()
    vlm = open_vlm(model, processor=processor)
    inputs = vlm.inputs([tiny.noise(56, 56)], vlm.chat(FINE_QUESTION))
    with pytest.raises(CannotPlant, match="cannot be blinded"), BlindedEncoder(8).planted(vlm):
        capture(vlm, inputs)
    with (
        pytest.raises(CannotPlant, match="expected enough to exchange two"),
        ShuffledNames(FINE, FINE).planted(vlm),
    ):
        pass
    with (
        pytest.raises(SiteNotFound, match="no layer of the language model"),
        ChangedBasis("vision", "rotated").planted(vlm),
    ):
        pass
    with (
        pytest.raises(SiteNotFound, match=r"reads 'llm\.norm'"),
        ChangedBasis("llm.norm", "rotated").planted(vlm),
    ):
        pass
