"""A padded batch gives the vectors that its images give one at a time, up to what each dtype rounds away."""

import pytest
import torch

from fgdiag.hooks import capture
from fgdiag.precision import DTYPES
from fgdiag.vlm import open_vlm
from tests.fgdiag import tiny

ROUNDING = {"float32": 1e-5, "float16": 4e-3, "bfloat16": 3e-2}
"""Share of a vector's length by which it may differ: some units in the last place, over a few blocks."""
QUESTIONS = ("What exactly is this?", "What?", "And which kind of thing is this one here?")


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("build", [tiny.llava, tiny.qwen2_5_vl, tiny.aya_vision])
def test_a_batch_is_its_images_one_at_a_time(build, dtype: str):
    model, processor = build()
    vlm = open_vlm(model.to(DTYPES[dtype]), processor=processor)
    images, prompts = tiny.unequal_images()[:3], [vlm.chat(question) for question in QUESTIONS]
    together = capture(vlm, vlm.inputs(images, prompts))
    assert all(vectors.dtype == torch.float32 for vectors in together.values())
    for row, (image, prompt) in enumerate(zip(images, prompts, strict=True)):
        for place, vectors in capture(vlm, vlm.inputs([image], prompt)).items():
            distance = (vectors[0] - together[place][row]).norm() / vectors[0].norm()
            assert distance < ROUNDING[dtype], f"{place}: {distance:.1e}"
