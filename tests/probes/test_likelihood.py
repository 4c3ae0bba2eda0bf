"""Class-name likelihood: the prompt's cache and one whole forward pass a name must agree, in every kind of model."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from fgdiag_probes import Answers, likelihood, name_scoring
from fgdiag_probes.likelihood import WAYS, Way, answer_ids, name_lengths, name_likelihood
from fgdiag_probes.name_scoring import (
    score_by_decoder_rows,
    score_by_rows,
    score_by_trie,
    score_by_whole_passes,
)
from fgdiag_probes.name_trie import tries

from fgdiag.prompts import spoken, with_answer
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

NAMES = ["Oat", "Oat Milk", "Oat Milk Bar", "Rye", "Rice", "Granny Smith", "Granny Apple", "Z"]
QUESTION = "What exactly is this?"


def opened(built: tiny.Built) -> VLM:
    model, processor = built
    return open_vlm(model, processor=processor)


def close(found: np.ndarray, expected: np.ndarray | float) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-4, rtol=1e-4)


def by_hand(vlm: VLM, names: list[str]) -> np.ndarray:
    """Log P(answer begins with a name): prompt and name in one text, one pass for each picture and name."""
    prompt, scores = vlm.chat(QUESTION), []
    for picture in tiny.unequal_images():
        asked = vlm.inputs([picture], prompt)
        for name in names:
            inputs = vlm.inputs([picture], with_answer(prompt, name))
            # InstructBLIP's Q-Former reads the question, and must not read the answer.
            inputs |= {key: value for key, value in asked.items() if key.startswith("qformer")}
            ids = inputs["input_ids"][0]
            count = len(answer_ids(vlm, prompt, name))
            with torch.no_grad():
                logs = vlm.model(**inputs).logits[0].log_softmax(-1)
            at = torch.arange(len(ids) - count, len(ids))
            scores.append(float(logs[at - 1, ids[at]].sum()))
    return np.array(scores).reshape(-1, len(names))


def exactly(starts: np.ndarray) -> np.ndarray:
    """From "begins with" to "is exactly", for the three oat names, which begin one another."""
    chance = np.exp(starts.astype(np.float64))
    chance[:, 0] -= chance[:, 1]
    chance[:, 1] -= chance[:, 2]
    return np.log(chance)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("build", "way"),
    [
        (tiny.llava, score_by_trie),
        (tiny.llava_next, score_by_trie),
        (tiny.llava_onevision, score_by_trie),
        (tiny.aya_vision, score_by_trie),  # sliding windows shorter than the prompt
        (tiny.internvl, score_by_trie),
        (tiny.gemma3, score_by_trie),  # sliding windows
        (tiny.idefics3, score_by_trie),
        (tiny.smolvlm, score_by_trie),
        (tiny.pixtral, score_by_trie),
        (tiny.qwen2_vl, score_by_trie),  # rotary positions that an image takes less of
        (tiny.qwen2_5_vl, score_by_trie),
        (tiny.qwen3_vl, score_by_trie),
        (tiny.qwen3_5, score_by_rows),  # a state instead of keys, in three of four blocks
        (tiny.mistral3, score_by_trie),
        (tiny.mllama, score_by_trie),  # cross-attention
        (tiny.blip2, score_by_whole_passes),
        (tiny.instructblip, score_by_whole_passes),
    ],
)
def test_it_is_what_one_pass_for_each_name_gives(build: Callable[[], tiny.Built], way: Way, side: str):
    """Whatever side the tokenizer would pad on: the pictures take different numbers of tokens in many families."""
    vlm = opened(build())
    vlm.processor.tokenizer.padding_side = side  # pyright: ignore[reportAttributeAccessIssue]
    found = name_likelihood(vlm, tiny.unequal_images(), NAMES, QUESTION, batch_size=2)
    close(found, exactly(by_hand(vlm, NAMES)))
    assert likelihood._proven[vlm] is way


@pytest.mark.parametrize("score", WAYS)
def test_every_way_gives_the_same(score: Way):
    vlm = opened(tiny.llava_next())
    prompt = vlm.chat(QUESTION)
    ids = [answer_ids(vlm, prompt, name) for name in NAMES]
    with torch.inference_mode():
        close(score(vlm, tiny.unequal_images(), prompt, ids), by_hand(vlm, NAMES))


def test_a_trie_holds_every_beginning_once_and_sees_only_its_own():
    (trie,) = tries([(1, 2, 3), (1, 2, 4), (1, 5), (6,)], most=9)
    assert trie.nodes == ((1,), (1, 2))
    assert trie.tokens == [1, 2]
    assert trie.depths.tolist() == [0, 1]
    assert trie.sees.tolist() == [[True, False], [True, True]]
    reads = {tuple(row) for row in trie.reads.tolist()}
    assert reads == {
        (0, 0, 1),
        (0, 1, 2),
        (0, 2, 3),
        (1, 0, 1),
        (1, 1, 2),
        (1, 2, 4),
        (2, 0, 1),
        (2, 1, 5),
        (3, 0, 6),
    }


def test_tries_share_names_out_by_their_nodes():
    rng = np.random.default_rng(0)
    ids = [tuple(rng.integers(0, 4, rng.integers(1, 6)).tolist()) for _ in range(200)]
    found = list(tries(ids, most=10))
    assert sorted(index for trie in found for index, _ in trie.names) == list(range(200))
    assert all(1 <= len(trie.nodes) <= 10 for trie in found[1:])
    for trie in found:
        assert set(trie.nodes) == {name[:k] for _, name in trie.names for k in range(1, len(name))}
        for row, node in enumerate(trie.nodes):
            assert [trie.nodes[k] for k in np.flatnonzero(trie.sees[row])] == [
                node[: k + 1] for k in range(len(node))
            ]


def test_lengths_are_those_of_the_tokens():
    vlm = opened(tiny.llava())
    prompt = vlm.chat(QUESTION)
    assert name_lengths(vlm, NAMES, QUESTION).tolist() == [
        len(answer_ids(vlm, prompt, name)) for name in NAMES
    ]


def test_prefix_attention_reads_names_causally():
    """PaliGemma's prompt sees itself both ways; the answer must not, so a score needs no token behind it."""
    vlm = opened(tiny.paligemma())
    found = name_likelihood(vlm, tiny.unequal_images(), ["Rye", "Rice"], QUESTION)
    alone = name_likelihood(vlm, tiny.unequal_images(), ["Rye"], QUESTION)
    close(found[:, :1], alone)
    prompt = vlm.chat(QUESTION)
    inputs = vlm.inputs(tiny.unequal_images()[:1], prompt)
    first = answer_ids(vlm, prompt, "Rye")[0]
    with torch.no_grad():
        expected = vlm.model(**inputs).logits[0, -1].log_softmax(-1)[first]
    one_token = name_likelihood(vlm, tiny.unequal_images()[:1], ["R", "Z"], QUESTION)
    close(one_token[0, 0], float(expected))


def test_an_encoder_decoder_says_names_with_its_decoder():
    vlm = opened(tiny.florence2())
    found = name_likelihood(vlm, tiny.unequal_images(), NAMES[3:], QUESTION)
    assert likelihood._proven[vlm] is score_by_decoder_rows
    prompt = vlm.chat(QUESTION)
    for row, picture in enumerate(tiny.unequal_images()):
        inputs = vlm.inputs([picture], prompt)
        for column, name in enumerate(NAMES[3:]):
            ids = torch.tensor([answer_ids(vlm, prompt, name)])
            start = torch.tensor([[vlm.model.config.get_text_config().decoder_start_token_id]])
            with torch.no_grad():
                logits = vlm.model(**inputs, decoder_input_ids=torch.cat([start, ids[:, :-1]], 1)).logits
            expected = float(logits[0].log_softmax(-1)[torch.arange(ids.shape[1]), ids[0]].sum())
            assert found[row, column] == pytest.approx(expected, abs=2e-4)


def test_small_memory_changes_nothing(monkeypatch: pytest.MonkeyPatch):
    vlm = opened(tiny.llava())
    roomy = name_likelihood(vlm, tiny.unequal_images(), NAMES, QUESTION)
    monkeypatch.setattr(name_scoring, "BYTES_AT_ONCE", 1)
    close(name_likelihood(vlm, tiny.unequal_images(), NAMES, QUESTION), roomy)


def test_a_model_whose_cache_is_wrong_is_run_once_a_name_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    vlm = opened(tiny.llava())
    vlm.name = "forgetful"
    monkeypatch.setattr(likelihood, "WAYS", (lambda *_: np.zeros((1, 1)), WAYS[-1]))
    found = name_likelihood(vlm, tiny.unequal_images(), NAMES, QUESTION)
    close(found, exactly(by_hand(vlm, NAMES)))
    name_likelihood(vlm, tiny.unequal_images(), NAMES, QUESTION)
    assert capsys.readouterr().err.count("the cache of forgetful does not reproduce a whole pass") == 1


def test_a_label_without_a_word_is_said_as_it_is_written():
    """An empty name would have the likelihood 1, and win every time."""
    assert spoken("---") == "---"
    assert spoken("Granny-Smith") == "Granny Smith"


def test_no_look_alikes_means_no_such_level():
    table = pd.DataFrame({"fine": ["a"], "coarse": ["A"], "said_fine": ["a"], "said_coarse": ["A"]})
    table["said_fine_within_coarse"], table["siblings"] = "a", 1
    assert Answers(table).accuracy() == {"fine": 1.0, "coarse": 1.0}
