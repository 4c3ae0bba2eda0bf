"""The curves of a training: a CSV file, and TensorBoard's events where that is installed."""

import csv
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fgdiag.training.checkpoint import Progress

COLUMNS = (
    "stage",
    "step",
    "train nats per token",
    "validation nats per token",
    "learning rate",
    "images per second",
    "seconds",
)


class History:
    """Appends a row at each validation to `folder/history.csv`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "history.csv"

    @cached_property
    def board(self) -> Any:
        """TensorBoard's writer, opened at the first row, or None where that is not installed."""
        if find_spec("tensorboard") is None:
            return None
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self.folder / "tensorboard"))

    def note(self, progress: Progress, validation: float, rate: float, speed: float) -> None:
        """Write how things stand; losses in nats a token, `speed` in images a second."""
        row = (
            progress.stage + 1,
            progress.step,
            f"{progress.loss:.4f}",
            f"{validation:.4f}",
            f"{rate:.3g}",
            f"{speed:.2f}",
            f"{progress.seconds:.0f}",
        )
        is_new = not self.file.exists()
        with self.file.open("a", newline="") as opened:
            writer = csv.writer(opened)
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerow(row)
        if self.board is not None:
            for name, value in (("train", progress.loss), ("validation", validation)):
                self.board.add_scalar(f"stage {progress.stage + 1}/{name} loss", value, progress.step)
            self.board.flush()
