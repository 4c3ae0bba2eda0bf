"""How well the demo VLM answers in its own words: greedy text that is exactly the class name.

    python tests/benchmarks/demo_answers.py [--images FOLDER ...] [--quick] [--json]

Without `--images`, birds are drawn that neither the training nor `fgdiag demo` has shown. Test splits only.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fgdiag.fieldguide import write_fieldguide
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.memory import keep_freed_memory
from fgdiag.progress import track
from fgdiag.prompts import COARSE_QUESTION, FINE_QUESTION, spoken
from fgdiag.vlm import VLM, open_vlm

BATCH, MAX_TOKENS, SEED = 16, 16, 990_000


def main() -> None:
    """Ask, print a line a set, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="Exact-match accuracy of the demo VLM.")
    parser.add_argument("--images", nargs="*", default=[], metavar="FOLDER")
    parser.add_argument("--quick", action="store_true", help="80 images of each set at most")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    asked = parser.parse_args()
    keep_freed_memory()
    vlm = open_vlm("demo")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        sets = [open_images(source) for source in asked.images] or [new_birds(Path(folder) / "birds")]
        for images in sets:
            rows = np.flatnonzero(images.table["split"] == "test")
            if asked.quick:
                rows = np.random.default_rng(0).permutation(rows)[:80]
            for level, question in (("fine", FINE_QUESTION), ("coarse", COARSE_QUESTION)):
                share = exact_share(vlm, images, rows, level, question)
                figures[f"{images.name}_{level}"] = share
                print(
                    f"{images.name}, {level}: {100 * share:.1f} % of {len(rows)} answers are exactly the name"
                )
    if asked.json:
        print(json.dumps(figures))


def new_birds(folder: Path) -> ImageSet:
    """Draw eight test images of each species."""
    return open_images(write_fieldguide(folder, per_class=1, test_per_class=8, seed=SEED))


@torch.inference_mode()
def exact_share(vlm: VLM, images: ImageSet, rows: np.ndarray, level: str, question: str) -> float:
    """Share of greedy answers that are the name and nothing else, but for case."""
    right, tokenizer = 0, vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    starts = range(0, len(rows), BATCH)
    for start in track(starts, description=f"asking for {level} names", total=len(rows), size=BATCH):
        some = rows[start : start + BATCH]
        inputs = vlm.inputs([images.open(int(row)) for row in some], vlm.chat(question))
        said = vlm.model.generate(**inputs, max_new_tokens=MAX_TOKENS, do_sample=False)  # pyright: ignore[reportCallIssue]
        answers = tokenizer.batch_decode(said[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        names = [spoken(images.table[level].iloc[row]) for row in some]
        right += sum(a.strip().lower() == n.lower() for a, n in zip(answers, names, strict=True))
    return right / len(rows)


if __name__ == "__main__":
    main()
