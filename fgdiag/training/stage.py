"""One stage of a training: its parts learn, step by step, until its end."""

import math
import time
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list

from fgdiag.errors import TrainingDiverged
from fgdiag.progress import say, track
from fgdiag.training import checkpoint
from fgdiag.training.checkpoint import Progress
from fgdiag.training.history import History
from fgdiag.training.loss import AnswerLoss
from fgdiag.training.parts import learning, let_learn, merge_adapters
from fgdiag.training.plan import Stage
from fgdiag.training.warm_start import start_from_names

if TYPE_CHECKING:
    from pathlib import Path

    from fgdiag.training.train import Training

CHECKPOINT_EVERY_SECONDS = 120.0


class RunningStage:
    """One stage: its parts learn until its end."""

    def __init__(self, training: "Training", number: int, stage: Stage) -> None:
        self.training, self.number, self.stage = training, number, stage
        self.plan, self.accelerator, self.model = training.plan, training.accelerator, training.model
        self.file = training.work / "checkpoint.safetensors"
        self.best_file = training.work / "best.safetensors"
        self.history = History(training.work)
        torch.manual_seed(self.plan.seed)  # adapters start at random
        let_learn(self.model, stage, training.fast)
        encoded = None if "encoder" in stage.train else training.school.encoded(self.model)
        self.classes = training.school.at(encoded)
        self.weights = learning(self.model)
        whole = training.fast if {"encoder", "llm", "llm-lora"} & set(stage.train) else None
        self.loss: Any = AnswerLoss(self.model, None if whole is torch.float32 else whole)
        self.optimiser: Any = torch.optim.AdamW(self.weights.values(), weight_decay=stage.weight_decay)
        self.progress = Progress(number)

    def run(self) -> None:
        """Train from the last checkpoint on, and leave the model as plain weights."""
        self._begin()
        self.loss, self.optimiser = self.accelerator.prepare(self.loss, self.optimiser)
        percent = int(100 * self._share())
        title = f"training {', '.join(self.stage.train)} ({self.number + 1} of {len(self.plan.stages)})"
        for tick in track(range(percent, 100), description=title, total=100, unit="%", done=percent):
            while self._share() < (tick + 1) / 100 and not self._given_up():
                self._step()
        self.accelerator.wait_for_everyone()  # one process writes the best weights, all read them
        if self.stage.patience and self._has(self.best_file):
            checkpoint.load(self.best_file, self.weights)
        self.model.requires_grad_(False)
        merge_adapters(self.model)
        self._free()

    def _free(self) -> None:
        """Let go of gradients and moments, which the next stage would find in its way."""
        self.model.zero_grad(set_to_none=True)
        self.loss, self.optimiser = self.accelerator.free_memory(self.loss, self.optimiser)

    def _begin(self) -> None:
        if self._has(self.file):
            self.progress = checkpoint.load(self.file, self.weights, self.optimiser)
            say(f"going on with the training after {self.progress.step} steps")
        elif self.number == 0 and self.plan.warm_start and "projector" in self.stage.train:
            school = self.training.school
            start_from_names(self.model, self.training.processor, school.at(school.encoded(self.model)))
        self.saved = self.progress.seconds

    def _has(self, file: "Path") -> bool:
        """Whether a checkpoint is there that is of this stage, not left over from the one before."""
        return file.exists() and checkpoint.progress_of(file).stage == self.number

    def _share(self) -> float:
        """Share of the stage that is done."""
        if self.stage.minutes is not None:
            return self.progress.seconds / (60 * self.stage.minutes)
        return self.progress.step / self._steps()

    def _steps(self) -> int:
        if self.stage.steps is not None:
            return self.stage.steps
        return max(1, round((self.stage.epochs or 1) * self.classes.steps_a_pass))

    def _given_up(self) -> bool:
        return 0 < self.stage.patience <= self.progress.waited

    def _step(self) -> None:
        """One step of the optimiser; then validation and checkpoint where they are due."""
        started = time.monotonic()
        rate = self.stage.learning_rate * share_of_peak(self._share())
        loss = self._descend(rate)
        self.progress = self.progress.stepped(loss, self._agreed(time.monotonic() - started))
        whole_pass = self.progress.step % self.classes.steps_a_pass == 0
        ended = self._share() >= 1
        if whole_pass or ended:
            self._validate(rate)
        if whole_pass or ended or self.progress.seconds - self.saved > CHECKPOINT_EVERY_SECONDS:
            self._save()

    def _descend(self, rate: float) -> float:
        """Follow the gradient of one batch, of which every device has its share; nats a token."""
        number, devices = self.accelerator.process_index, self.accelerator.num_processes
        batch, tokens = self.classes.batch(self.progress.step, number, devices, self.accelerator.device)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = 0.0
        # All devices cut alike, for they meet after each part.
        for part in batch.parts(min(self.plan.accumulate, self.classes.batch_size // devices)):
            loss = self.loss(part) / tokens
            # Devices average their gradients; the loss is a mean over the tokens of all.
            self.accelerator.backward(loss * devices)
            total += float(loss.detach())
        norm = self.accelerator.clip_grad_norm_(list(self.weights.values()), 1.0)
        loss = float(self.accelerator.reduce(torch.tensor(total, device=self.accelerator.device)))  # pyright: ignore[reportArgumentType]
        self._refuse_divergence(loss, norm)
        self.optimiser.step()
        return loss

    def _refuse_divergence(self, *measured: Any) -> None:
        """Stop before a step would spoil the weights, so that the last checkpoint stays good."""
        if not all(math.isfinite(one) for one in measured):
            raise TrainingDiverged(
                f"The loss of stage {self.number + 1} is no longer a number after {self.progress.step} steps: train "
                f"into another folder with a learning_rate lower than {self.stage.learning_rate:g}."
            )

    def _agreed(self, measured: float) -> float:
        """What the first device has measured, so that all end after the same step."""
        said = [measured]
        broadcast_object_list(said)
        return said[0]

    def _validate(self, rate: float) -> None:
        loss = self._agreed(self._validation_loss())
        better = loss < self.progress.best
        self.progress = self.progress.validated(loss)
        if not self.accelerator.is_main_process:
            return
        speed = self.progress.step * self.classes.batch_size / max(1e-9, self.progress.seconds)
        self.history.note(self.progress, loss, rate, speed)
        if better and self.stage.patience:
            checkpoint.save(self.best_file, self.progress, self.weights)

    @torch.inference_mode()
    def _validation_loss(self) -> float:
        batch = self.classes.validation(self.accelerator.device)
        if batch is None:
            return math.nan
        bare = self.accelerator.unwrap_model(self.loss)
        parts = batch.parts(-(-len(batch.lessons) // self.classes.batch_size))
        return sum(float(bare(part)) for part in parts) / batch.answer_tokens

    def _save(self) -> None:
        self.saved = self.progress.seconds
        if self.accelerator.is_main_process:
            checkpoint.save(self.file, self.progress, self.weights, self.optimiser)


def share_of_peak(share: float) -> float:
    """Share of the peak learning rate when a share of a stage is done: a linear rise over 2 %, a cosine down to 2 %."""
    rise = (share + 1e-3) / 0.02
    return min(rise, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))
