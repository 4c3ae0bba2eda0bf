"""Speed of training with a frozen encoder: `fgdiag train` against a plain `transformers.Trainer`.

python tests/benchmarks/train.py [--quick] [--json]

Both train the projector of the same assembled VLM (DINOv2-small, SmolLM2-135M) on the same drawn birds with the same
questions, batch, optimiser and precision, in turns. The peer runs the whole model on pixels, in the way its
documentation shows for VLMs: the processor in the collator, the loss of the model. Each turn is a process of its own,
because ours also tells the C library to keep freed memory, which would hasten the peer in the same process. `ratio` is
the median over turns of its time by ours for as many steps; encoding the images, which we do once, is counted with ours
(`encoding_s`), spread over `PASSES` passes as in the default plan.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import Dataset
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from fgdiag.assemble import assemble, write_assembled
from fgdiag.fieldguide import write_fieldguide
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.precision import fast_dtype
from fgdiag.training import Plan, Stage, Teaching
from fgdiag.training.stage import RunningStage
from fgdiag.training.train import Training

PASSES, BATCH = 6, 32
PLAN = Plan((Stage(epochs=PASSES),), {"fine": 1.0}, batch_size=BATCH)


def main() -> None:
    """Measure, print a line a turn, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="Speed of training against transformers.Trainer.")
    parser.add_argument("--quick", action="store_true", help="few turns: ends within 3 minutes")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    parser.add_argument("--turn", nargs=3, metavar=("WAY", "FOLDER", "STEPS"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.turn:
        way, folder, steps = asked.turn
        return print(json.dumps(WAYS[way](Path(folder), int(steps))))
    steps, turns = (2, 2) if asked.quick else (6, 5)
    with tempfile.TemporaryDirectory() as folder:
        write_assembled(*assemble("dinov2-small", "smollm2-135m"), Path(folder) / "joined")
        write_fieldguide(Path(folder) / "birds", per_class=4, test_per_class=0, seed=5)
        _report([_turn(Path(folder), steps) for _ in range(turns)], steps, as_json=asked.json)


def _turn(folder: Path, steps: int) -> dict[str, float]:
    """Seconds of the steps and of encoding, each way in a fresh process."""
    found: dict[str, float] = {}
    for way in WAYS:
        command = [sys.executable, __file__, "--turn", way, str(folder), str(steps)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found |= json.loads(done.stdout.splitlines()[-1])
    ratio = found["trainer"] / (found["own"] + found["encoding"])
    print(
        f"{steps} steps: {found['own']:.2f} s and {found['encoding']:.2f} s of encoding, Trainer "
        f"{found['trainer']:.2f} s: {ratio:.1f}"
    )
    return found | {"ratio": ratio}


def _report(turns: list[dict[str, float]], steps: int, *, as_json: bool) -> None:
    middle = {name: median(turn[name] for turn in turns) for name in turns[0]}
    speeds = {way: steps * BATCH / middle[way] for way in ("own", "trainer")}
    ratios = [turn["ratio"] for turn in turns]
    low, _, high = quantiles(ratios, n=4)
    print(
        f"ratio {middle['ratio']:.1f} ({low:.1f} to {high:.1f}); images a second {speeds['own']:.1f}, "
        f"Trainer {speeds['trainer']:.1f}"
    )
    if as_json:
        figures = {"ratio": middle["ratio"], "ratio_quartiles": [low, high], "encoding_s": middle["encoding"]}
        print(json.dumps(figures | {f"images_a_second_{way}": speed for way, speed in speeds.items()}))


def _own(folder: Path, steps: int) -> dict[str, float]:
    """Seconds of some steps, and of encoding as many images, shared by all passes."""
    out = Path(tempfile.mkdtemp(dir=folder))
    (out / "training").mkdir()
    images = open_images(folder / "birds")
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    training = Training(str(folder / "joined"), [Teaching(images)], out, PLAN, accelerator)
    training.model.to(training.fast)
    started = time.perf_counter()
    training.school.encoded(training.model)
    encoding = (time.perf_counter() - started) / len(images)
    stage = RunningStage(training, 0, PLAN.stages[0])
    stage._descend(1e-3)
    started = time.perf_counter()
    for number in range(1, steps + 1):
        stage.progress = replace(stage.progress, step=number)
        stage._descend(1e-3)
    return {"own": time.perf_counter() - started, "encoding": encoding * steps * BATCH / PASSES}


class _Asked(Dataset):
    """Images with one question each, as a Trainer's collator is given them."""

    def __init__(self, images: ImageSet) -> None:
        self.images, self.teaching = images, Teaching(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> tuple[Any, str, str]:
        return self.images.open(row), *self.teaching.draw(row, PLAN.ask, np.random.default_rng(row))


def _trainer(folder: Path, steps: int) -> dict[str, float]:
    """Seconds between the ends of the first step and of `steps` more."""
    processor = AutoProcessor.from_pretrained(folder / "joined")
    model: Any = AutoModelForImageTextToText.from_pretrained(folder / "joined", dtype=torch.float32)
    model.requires_grad_(False)
    model.model.multi_modal_projector.requires_grad_(True)

    def collate(rows: list[tuple[Any, str, str]]) -> Any:
        texts, starts = [], []
        for _, question, answer in rows:
            content = [{"type": "image"}, {"type": "text", "text": question}]
            prompt = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
            texts.append(prompt + answer + processor.tokenizer.eos_token)
            starts.append(prompt)
        pictures = [[picture] for picture, *_ in rows]
        batch = processor(
            text=texts, images=pictures, return_tensors="pt", padding=True, padding_side="right"
        )
        asked = processor(
            text=starts, images=pictures, return_tensors="pt", padding=True, padding_side="right"
        )
        labels = batch["input_ids"].clone()
        labels[batch["attention_mask"] == 0] = -100
        for row, length in enumerate(asked["attention_mask"].sum(1)):
            labels[row, :length] = -100
        return batch | {"labels": labels}

    clock = _Clock()
    arguments = TrainingArguments(
        output_dir=str(folder / "trainer"),
        per_device_train_batch_size=BATCH,
        max_steps=steps + 1,
        bf16=fast_dtype() is torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        dataloader_drop_last=True,
        report_to=[],
        save_strategy="no",
        remove_unused_columns=False,
        disable_tqdm=True,
    )
    data = _Asked(open_images(folder / "birds"))
    Trainer(model, arguments, train_dataset=data, data_collator=collate, callbacks=[clock]).train()
    return {"trainer": clock.ends[-1] - clock.ends[0]}


class _Clock(TrainerCallback):
    """Notes when each step ends."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
        self.ends.append(time.perf_counter())


WAYS = {"own": _own, "trainer": _trainer}


if __name__ == "__main__":
    main()
