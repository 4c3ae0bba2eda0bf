"""Class-name likelihood: the prompt's cache and one whole forward pass a name must agree, in every kind of model."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from fgdiag_probes import Answers, likelihood
from fgdiag_probes.likelihood import answer_ids, name_likelihood

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


@pytest.mark.parametrize(
    "build",
    [
        tiny.llava,
        tiny.llava_next,
        tiny.llava_onevision,
        tiny.aya_vision,
        tiny.internvl,
        tiny.gemma3,
        tiny.idefics3,
        tiny.smolvlm,
        tiny.pixtral,
        tiny.qwen2_vl,
        tiny.qwen2_5_vl,
        tiny.qwen3_vl,
        tiny.mistral3,
        tiny.mllama,
        tiny.blip2,
        tiny.instructblip,
    ],
)
def test_it_is_what_one_pass_for_each_name_gives(build: Callable[[], tiny.Built]):
    vlm = opened(build())
    found = name_likelihood(vlm, tiny.unequal_images(), NAMES, QUESTION, batch_size=2)
    close(found, exactly(by_hand(vlm, NAMES)))


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
    monkeypatch.setattr(likelihood, "BYTES_AT_ONCE", 1)
    close(name_likelihood(vlm, tiny.unequal_images(), NAMES, QUESTION), roomy)


def test_a_model_whose_cache_is_wrong_is_run_once_a_name_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    vlm = opened(tiny.llava())
    vlm.name = "forgetful"
    monkeypatch.setattr(likelihood, "_score_by_cache", lambda *_: np.zeros((1, 1)))
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
