"""Where a training stands: its weights and its optimiser in one safetensors file, whole or not at all."""

from dataclasses import asdict, dataclass, replace
from json import dumps, loads
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

WEIGHT, MOMENT = "weight.", "moment."


@dataclass(frozen=True)
class Progress:
    """How far a stage has come.

    Attributes
    ----------
    stage
        From 0 on.
    step
        Steps of the optimiser that are done.
    seconds
        Spent in them.
    loss
        Smoothed loss of training, nats a token; NaN before the first step.
    best, waited
        Lowest validation loss yet, and for how many passes there was no lower one.
    """

    stage: int
    step: int = 0
    seconds: float = 0.0
    loss: float = float("nan")
    best: float = float("inf")
    waited: int = 0

    def stepped(self, loss: float, seconds: float) -> "Progress":
        """After one more step."""
        smooth = loss if self.step == 0 else 0.95 * self.loss + 0.05 * loss
        return replace(self, step=self.step + 1, seconds=self.seconds + seconds, loss=smooth)

    def validated(self, loss: float) -> "Progress":
        """After a validation; a loss of NaN, of no validation image, is never lower."""
        waited = 0 if loss < self.best else self.waited + 1
        return replace(self, best=min(self.best, loss), waited=waited)


def save(file: Path, progress: Progress, weights: dict[str, Tensor], optimiser: Any = None) -> None:
    """Write a checkpoint; without an optimiser only the weights."""
    tensors = {WEIGHT + name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    state = optimiser.state_dict()["state"] if optimiser is not None else {}
    for key, moments in state.items():
        tensors |= {f"{MOMENT}{key}.{name}": tensor.cpu() for name, tensor in moments.items()}
    scratch = file.with_suffix(".tmp")
    save_file(tensors, scratch, metadata={"progress": dumps(asdict(progress))})
    scratch.rename(file)


def progress_of(file: Path) -> Progress:
    """Read how far a checkpoint is."""
    with safe_open(file, "pt") as opened:
        return Progress(**loads(opened.metadata()["progress"]))


@torch.no_grad()
def load(file: Path, weights: dict[str, Tensor], optimiser: Any = None) -> Progress:
    """Put the weights of a checkpoint into place, and the optimiser where one is given."""
    with safe_open(file, "pt") as opened:
        for name, tensor in weights.items():
            tensor.copy_(opened.get_tensor(WEIGHT + name))
        if optimiser is not None:
            state = optimiser.state_dict()
            for name in opened.keys():  # noqa: SIM118  (safe_open has no iterator)
                if name.startswith(MOMENT):
                    _, key, what = name.split(".", 2)
                    state["state"].setdefault(int(key), {})[what] = opened.get_tensor(name)
            optimiser.load_state_dict(state)
    return progress_of(file)
