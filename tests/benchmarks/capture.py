"""What watching every site costs: a forward pass with all sites captured against the bare one, and its peak memory.

    python tests/benchmarks/capture.py [--quick] [--json]

Bare and captured passes alternate in one process, first one first and then the other; the overhead is the median of
the ratios of neighbours. Peak memory is that of the tensors a forward pass allocates, weights and inputs not
counted, so the ratio is stricter than one of whole-process memory.
"""

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile

from fgdiag.errors import FgdiagError
from fgdiag.hooks import capture
from fgdiag.prompts import FINE_QUESTION
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny


@dataclass(frozen=True)
class Cost:
    """What capturing costs in one model."""

    model: str
    sites: int
    bare_seconds: float
    overhead: float
    """Time of a captured pass over that of a bare one, median of pairs."""
    spread: tuple[float, float]
    """Quartiles of the same."""
    memory_ratio: float
    """Peak of a captured pass over that of a bare one."""
    growth: float
    """Peak with all sites captured over that with one site, minus 1."""


def main() -> None:
    """Measure, print a table, and with `--json` one line of figures last: the worst over the models."""
    parser = argparse.ArgumentParser(description="Cost of capturing every site in a forward pass.")
    parser.add_argument("--quick", action="store_true", help="few passes: ends within 2 minutes")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    asked = parser.parse_args()
    pairs, batch = (8, 4) if asked.quick else (30, 8)
    costs = [measure(vlm, pairs, batch) for vlm in models()]
    for cost in costs:
        low, high = cost.spread
        print(
            f"{cost.model:>28}: {cost.sites} sites, bare pass {cost.bare_seconds:.2f} s, overhead "
            f"{cost.overhead:.4f} ({low:.4f} to {high:.4f}), memory {cost.memory_ratio:.4f}, "
            f"growth {cost.growth:+.4f}"
        )
    if asked.json:
        worst = {
            name: max(getattr(cost, name) for cost in costs)
            for name in ("overhead", "memory_ratio", "growth")
        }
        print(json.dumps(worst | {"models": {cost.model: vars(cost) for cost in costs}}))


def models() -> list[VLM]:
    """A random VLM with a 30-block LLM, and the demo VLM where its weights are at hand."""
    found = [open_vlm(model, processor=processor) for model, processor in [thirty_blocks()]]
    try:
        found.append(open_vlm("demo"))
    except (FgdiagError, OSError) as error:
        print(f"without the demo VLM: {error}", file=sys.stderr)
    return found


def thirty_blocks() -> tiny.Built:
    """LLaVA of the demo's proportions: a 12-block encoder of width 384, a 30-block LLM of width 576."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    _, processor = tiny.llava()
    words: Any = processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    images: Any = processor.image_processor  # pyright: ignore[reportAttributeAccessIssue]
    images.size, images.crop_size = {"shortest_edge": 224}, {"height": 224, "width": 224}
    vision = CLIPVisionConfig(
        hidden_size=384,
        intermediate_size=1536,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=224,
        patch_size=14,
    )
    text = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=len(words),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_seq_length=256,
    )
    torch.manual_seed(0)
    return LlavaForConditionalGeneration(config).eval(), processor


def measure(vlm: VLM, pairs: int, batch: int) -> Cost:
    """Time pairs of passes and record the peaks of three kinds of pass."""
    noise = np.random.default_rng(0).integers(0, 256, (batch, 240, 320, 3), dtype=np.uint8)
    inputs = vlm.inputs([Image.fromarray(pixels) for pixels in noise], vlm.chat(FINE_QUESTION))
    every = [str(spec.site) for spec in vlm.anatomy.sites]

    def bare() -> None:
        with torch.inference_mode():
            vlm.forward(inputs)

    def captured(sites: Sequence[str] = every) -> None:
        capture(vlm, inputs, sites=sites)

    ratios, seconds = paired(bare, captured, vlm.device, pairs)
    peaks = [peak_bytes(run, vlm.device) for run in (bare, captured, lambda: captured(["llm.0"]))]
    low, _, high = quantiles(ratios, n=4)
    return Cost(
        vlm.name,
        len(every),
        seconds,
        median(ratios),
        (low, high),
        peaks[1] / peaks[0],
        peaks[1] / peaks[2] - 1,
    )


def paired(
    bare: Callable[[], None], captured: Callable[[], None], device: torch.device, pairs: int
) -> tuple[list[float], float]:
    """Ratios of neighbouring passes, and the median time of a bare one in seconds."""
    for run in (bare, captured):
        seconds_of(run, device)
    ratios, times = [], []
    for pair in range(pairs):
        order = (bare, captured) if pair % 2 == 0 else (captured, bare)
        taken = {run: seconds_of(run, device) for run in order}
        ratios.append(taken[captured] / taken[bare])
        times.append(taken[bare])
    return ratios, median(times)


def seconds_of(run: Callable[[], None], device: torch.device) -> float:
    """Wall-clock time of one pass, the device's queue included."""
    _finish(device)
    start = time.perf_counter()
    run()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_bytes(run: Callable[[], None], device: torch.device) -> int:
    """Most bytes that the tensors made during one pass take at one time."""
    gc.collect()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    kineto: Any = seen.profiler.kineto_results  # pyright: ignore[reportOptionalMemberAccess]
    steps = [event for event in kineto.events() if event.name() == "[memory]"]
    held = np.cumsum([event.nbytes() for event in sorted(steps, key=lambda event: event.start_ns())])
    return int(held.max())


if __name__ == "__main__":
    main()
