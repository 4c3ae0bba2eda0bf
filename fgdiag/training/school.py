"""The images of all teachings, in the order in which they are seen, and what is asked about them at each step."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fgdiag.errors import ImagesNotUsable
from fgdiag.fingerprint import fingerprint_of
from fgdiag.training.features import cache_features, view_of
from fgdiag.training.lessons import Lesson, Teaching, Tokenized
from fgdiag.training.loss import Batch
from fgdiag.training.plan import Plan, PlanNotUsable

VALIDATED = 128
"""Validation images, at most."""
Row = tuple[int, int]
"""Which teaching, and which row of its images."""


class School:
    """All that a model is taught: images, questions, and the features of the images where they are kept.

    Raises
    ------
    ImagesNotUsable
        There is no readable training image.
    PlanNotUsable
        A stage has patience, and there is no readable validation image.
    """

    def __init__(self, processor: Any, teachings: Sequence[Teaching], plan: Plan, work: Path) -> None:
        self.processor, self.plan, self.work = processor, plan, work
        self.teachings = [Teaching(_used(one.images), one.questions) for one in teachings]
        self.tokenized = Tokenized(processor)
        splits = [one.images.table["split"].tolist() for one in self.teachings]
        rows = [(k, row) for k, own in enumerate(splits) for row in range(len(own))]
        self.train_rows = [(k, row) for k, row in rows if splits[k][row] == "train"]
        self.val_rows = [(k, row) for k, row in rows if splits[k][row] == "val"]
        if not self.train_rows:
            raise ImagesNotUsable("No training image can be read; give images with a `train` split.")
        patience = max((stage.patience for stage in plan.stages), default=0)
        if patience and not self.val_rows:
            raise PlanNotUsable(
                f"A stage has patience = {patience}, but no image of a split `val` can be read; give images with a "
                "folder `val/` beside `train/` and `test/`, or leave patience out."
            )

    def encoded(self, model: Any) -> list[np.ndarray]:
        """Let the frozen encoder see every view of every image once; kept on disk for this encoder."""
        plan, eye = self.plan, fingerprint_of(model.model.vision_tower)[:12]
        shown = hashlib.blake2b(
            str(self.processor.image_processor.to_dict()).encode(), digest_size=4
        ).hexdigest()
        folders = [
            self.work / f"features-{eye}-{shown}-{one.images.digest[:12]}-{plan.views}-{plan.seed}"
            for one in self.teachings
        ]
        return [
            cache_features(model, self.processor, one.images, folder, plan.views, plan.seed)
            for one, folder in zip(self.teachings, folders, strict=True)
        ]

    def at(self, features: "Sequence[np.ndarray] | None") -> "Classes":
        """Batches of features where they are given, of pixels else."""
        return Classes(self, features)


@dataclass(frozen=True)
class Classes:
    """Batches of one stage; which images and questions are in one depends on the seed and its number alone."""

    school: School
    features: Sequence[np.ndarray] | None

    @property
    def batch_size(self) -> int:
        """Images a step; no more than there are, so that every pass has a batch."""
        return min(self.school.plan.batch_size, len(self.school.train_rows))

    @property
    def steps_a_pass(self) -> int:
        """Steps in which every image is seen once, but for a rest that fills no batch."""
        return len(self.school.train_rows) // self.batch_size

    def batch(self, step: int, number: int, devices: int, device: torch.device) -> tuple[Batch, int]:
        """Return a device's share of a step's batch, and how many answer tokens all devices have together."""
        seed, rows = self.school.plan.seed, self.school.train_rows
        passed, at = divmod(step, self.steps_a_pass)
        order = np.random.default_rng((seed, passed)).permutation(len(rows))
        chosen = [rows[i] for i in order[at * self.batch_size : (at + 1) * self.batch_size]]
        lessons = self._lessons(chosen, np.random.default_rng((seed, step, 1)))
        tokens = sum(len(lesson.answer) for lesson in lessons)
        own, view = chosen[number::devices], passed % self.school.plan.views
        return Batch(self.seen(own, view).to(device), lessons[number::devices]), tokens

    def validation(self, device: torch.device) -> Batch | None:
        """Return up to `VALIDATED` validation images as they are, always the same; None where there are none."""
        rows = self.school.val_rows
        if not rows:
            return None
        rng = np.random.default_rng(self.school.plan.seed)
        chosen = [rows[i] for i in rng.permutation(len(rows))[:VALIDATED]]
        return Batch(self.seen(chosen, 0).to(device), self._lessons(chosen, rng))

    def seen(self, rows: Sequence[Row], view: int) -> Tensor:
        """What the model is given of some images: (images, tokens, width) features, or pixels, float32."""
        if self.features is not None:
            return torch.from_numpy(np.stack([self.features[k][row, view] for k, row in rows])).float()
        seed, teachings = self.school.plan.seed, self.school.teachings
        pictures = [view_of(teachings[k].images, row, view, seed) for k, row in rows]
        return self.school.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]

    def _lessons(self, rows: Sequence[Row], rng: np.random.Generator) -> list[Lesson]:
        ask, teachings = self.school.plan.ask, self.school.teachings
        drawn = [teachings[k].draw(row, ask, rng) for k, row in rows]
        return [self.school.tokenized.lesson(*texts) for texts in drawn]


def _used(images: Any) -> Any:
    """Readable training and validation images."""
    wanted = images.table["split"].isin(["train", "val"]) & (images.table["status"] == "ok")
    return images.subset(wanted.to_numpy())
