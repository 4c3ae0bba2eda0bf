"""The readout `response`: hidden states of the words a model writes, against whole forward passes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fgdiag_probes import response_tokens
from fgdiag_probes.response_tokens import has_responses, last_sites, read_responses, record_responses

from fgdiag.errors import RunIncomplete
from fgdiag.extraction import extract
from fgdiag.images import open_images
from tests.fgdiag.recorded import tiny_vlm, write_images


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("response")
    vlm, images = tiny_vlm(), open_images(write_images(folder / "images", classes=2, per_class=6))
    run = extract(vlm, images, Path(folder / "run"), batch_size=4)
    with pytest.raises(RunIncomplete, match="no replies"):
        read_responses(run)
    return run, vlm, images, record_responses(run, vlm, images)


def test_features_are_those_of_whole_passes_over_prompt_and_reply(recorded) -> None:
    run, vlm, images, responses = recorded
    row = int(np.flatnonzero(run.images["status"] == "ok")[2])
    inputs = vlm.inputs([images.open(row)], vlm.chat(run.manifest["prompt"]))
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        whole = vlm.model.generate(
            **inputs, do_sample=False, min_new_tokens=1, max_new_tokens=response_tokens.MOST_TOKENS
        )
        stops = response_tokens._stops(vlm.model, vlm.processor.tokenizer)
        reply = [token for token in whole[0, -response_tokens.MOST_TOKENS :].tolist() if token not in stops]
        reply = reply[: response_tokens.MOST_TOKENS - 1]
        more = torch.tensor([reply])
        ids = torch.cat([inputs["input_ids"], more], 1)
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        hidden = vlm.model(**inputs, output_hidden_states=True).hidden_states[-1][0, length:]
    np.testing.assert_allclose(responses.features["llm.norm"][row], hidden.mean(0).numpy(), atol=1e-4)


def test_every_readable_image_has_a_reply_and_the_others_none(recorded) -> None:
    run, _, _, responses = recorded
    readable = ((run.images["status"] == "ok") & (run.images["split"] != "excluded")).to_numpy()
    for site in last_sites(run):
        assert (np.isfinite(responses.features[site]).all(1) == readable).all()


def test_an_interrupted_call_goes_on_and_a_finished_one_asks_nothing(recorded, monkeypatch) -> None:
    run, vlm, images, responses = recorded
    monkeypatch.setattr(response_tokens, "_reply", None)
    again = record_responses(run, vlm, images)
    assert has_responses(run)
    np.testing.assert_array_equal(again.texts, responses.texts)
