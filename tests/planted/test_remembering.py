"""An encoder that remembers gives back what it gave before, and is itself again afterwards."""

from typing import Any

import torch
from fgdiag_probes.remembering import Memory, remembering

from tests.planted.conftest import Bench


def test_a_second_look_gives_the_same_without_the_encoders_blocks(bench: Bench):
    vlm, ran = bench.vlm, []
    model: Any = vlm.model
    encoder = vlm.model.get_encoder(modality="image")
    pixels = [
        torch.as_tensor(vlm.inputs(bench.batch(rows), vlm.chat("?"))["pixel_values"])
        for rows in ([0, 1], [1, 0])
    ]
    plain = encoder(pixels[0]).last_hidden_state
    first_block = vlm.model.get_submodule(vlm.anatomy.site("vision.0").path)
    handle = first_block.register_forward_hook(lambda *_: ran.append(True))
    with remembering(vlm, Memory()):
        first = encoder(pixels[0]).last_hidden_state
        turned = encoder(pixels[1]).last_hidden_state
        assert len(ran) == 1
        once = model.get_image_features(pixels[0]).pooler_output
        again = model.get_image_features(pixels[0]).pooler_output
        assert len(ran) == 2
        assert torch.equal(torch.cat(list(once)), torch.cat(list(again)))
        assert len(encoder(pixels[0], output_hidden_states=True).hidden_states) > 1
        assert len(ran) == 3
    again = encoder(pixels[0]).last_hidden_state
    handle.remove()
    assert len(ran) == 4
    assert torch.equal(first, plain)
    assert torch.equal(turned, plain.flip(0))
    assert torch.equal(again, plain)
    assert "forward" not in vars(encoder)


def test_what_does_not_fit_is_seen_anew(bench: Bench):
    encoder, ran = bench.vlm.model.get_encoder(modality="image"), []
    pixels = torch.as_tensor(bench.vlm.inputs(bench.batch([0, 1]), bench.vlm.chat("?"))["pixel_values"])
    block = bench.vlm.model.get_submodule(bench.vlm.anatomy.site("vision.0").path)
    handle = block.register_forward_hook(lambda *_: ran.append(True))
    with remembering(bench.vlm, Memory(most_bytes=10)):
        encoder(pixels)
        encoder(pixels)
    handle.remove()
    assert len(ran) == 2
