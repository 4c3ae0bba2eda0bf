"""Train the projector between a frozen vision encoder and a frozen LLM on labelled images.

The encoder sees each image once: what the projector is fed is cached on disk. The projector starts in closed form, the
mean of its image tokens pointing at the embedding of the class name, and is then trained through the LLM on questions
and answers at both levels, the loss falling on the answer's tokens only.
"""

import csv
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from fgdiag.assemble import assemble, write_joined
from fgdiag.errors import ImagesNotUsable, RunMismatch
from fgdiag.features import FeatureCache, cache_features
from fgdiag.images import ImageSet
from fgdiag.memory import keep_freed_memory
from fgdiag.precision import fast_dtype
from fgdiag.progress import say, track
from fgdiag.prompts import COARSE_QUESTION, FINE_QUESTION, spoken
from fgdiag.store import locked
from fgdiag.warm_start import mean_patch, start_projector

if TYPE_CHECKING:
    from transformers import AyaVisionForConditionalGeneration, LlavaProcessor

QUESTIONS = {
    "fine": (
        FINE_QUESTION,
        "Name exactly what is shown.",
        "Which exact kind is this?",
        "What is the specific name of this?",
        "Tell me precisely what you see.",
    ),
    "coarse": (
        COARSE_QUESTION,
        "Name the general kind of thing shown.",
        "Which kind does this belong to?",
        "In general, what is this?",
    ),
}
FINE_SHARE = 0.7
COARSE_WEIGHT = 0.5
"""Of the coarse name beside the fine one, in what the projector starts from."""
CHECKPOINT_EVERY_SECONDS = 120.0
VALIDATED = 128
"""Validation images whose loss is noted at a checkpoint."""
PROJECTOR, CHECKPOINT = "projector.safetensors", "checkpoint.safetensors"

Row = tuple[int, int]
"""Which feature cache, and which row of it."""


@dataclass(frozen=True)
class TrainingPlan:
    """What a training run is made of; a run resumes only under the same plan.

    Attributes
    ----------
    epochs
        Passes over the training images through the LLM.
    batch_size
        Images a step.
    learning_rate
        Peak of AdamW's cosine schedule.
    views
        How many versions of each image are cached: the image itself, then random crops.
    seed
        Of the projector, the crops, the questions and the order.
    """

    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    views: int = 1
    seed: int = 0


@dataclass(frozen=True)
class Lesson:
    """Token ids around the image: `before` <image> `question`, then the `answer` the loss falls on."""

    before: list[int]
    question: list[int]
    answer: list[int]


def train_projector(
    encoder: str | Path, llm: str | Path, images: Sequence[ImageSet], out: str | Path, plan: TrainingPlan
) -> Path:
    """Train a projector and write the whole VLM as a `transformers` folder.

    Parameters
    ----------
    encoder, llm
        Hub ids or folders, see `assemble`.
    images
        Labelled image sets; their `train` rows are learnt from, their `val` rows are only scored.
    out
        Folder of the finished VLM. `out/training` keeps features, checkpoint and `history.csv`; called again
        after an interruption, the training goes on from there.
    plan
        The recipe.

    Returns
    -------
    Path
        `out`, which `AutoModelForImageTextToText.from_pretrained` opens.

    Raises
    ------
    ImagesNotUsable
        When there is no readable training image.
    RunBusy
        When another process is training in `out`.
    RunMismatch
        When `out` holds a training under another plan or of other images.
    """
    out = Path(out)
    with locked(out / "training"):
        _train(encoder, llm, images, out, plan)
    write_joined(encoder, llm, out / PROJECTOR, out)
    return out


def _train(
    encoder: str | Path, llm: str | Path, images: Sequence[ImageSet], out: Path, plan: TrainingPlan
) -> None:
    work = out / "training"
    keep_freed_memory()
    model, processor = assemble(encoder, llm, seed=plan.seed)
    _same_plan(work / "plan.json", plan, images, str(encoder), str(llm))
    model.requires_grad_(False).type(fast_dtype())
    cached = [
        cache_features(
            model, processor, image_set, work / f"features-{image_set.digest[:12]}", plan.views, plan.seed
        )
        for image_set in images
    ]
    run = _Training(model, processor, cached, plan, work)
    run.warm_start()
    run.train()
    weights = {name: weight.half() for name, weight in run.projector.state_dict().items()}
    save_file(weights, out / PROJECTOR)


def _same_plan(file: Path, plan: TrainingPlan, images: Sequence[ImageSet], encoder: str, llm: str) -> None:
    asked = {"encoder": encoder, "llm": llm, "images": [i.digest for i in images], **asdict(plan)}
    if not file.exists():
        file.write_text(json.dumps(asked, indent=2))
    known = json.loads(file.read_text())
    for name, value in asked.items():
        if known.get(name) != value:
            raise RunMismatch(
                f"{file.parent} holds a training with {name} = {known.get(name)}, but {value} is asked now: "
                "go on with the old value, or choose another folder."
            )


class _Training:
    """The state of one training: model, data, optimiser, and the checkpoint they are written to."""

    def __init__(
        self,
        model: "AyaVisionForConditionalGeneration",
        processor: "LlavaProcessor",
        cached: Sequence[FeatureCache],
        plan: TrainingPlan,
        work: Path,
    ) -> None:
        self.model, self.plan, self.work = model, plan, work
        # The projector learns in float32: steps of a thousandth of a weight would be lost in bfloat16.
        self.projector = model.model.multi_modal_projector.requires_grad_(True).float()
        self.decoder = model.get_decoder()
        # On a CPU the backward pass of the fused attention takes longer than these short sequences are worth.
        self.decoder.set_attn_implementation("eager")
        self.embed: Any = model.get_input_embeddings()
        self.tokenizer = processor.tokenizer
        self.features = cached
        rows = [(k, row) for k, cache in enumerate(cached) for row in range(len(cache.table))]
        split = [cached[k].table["split"].iloc[row] for k, row in rows]
        self.train_rows = [r for r, s in zip(rows, split, strict=True) if s == "train"]
        self.val_rows = [r for r, s in zip(rows, split, strict=True) if s == "val"]
        if not self.train_rows:
            raise ImagesNotUsable("No training image can be read; give images with a `train` split.")
        self.lessons = _lessons(processor, cached)

    @torch.no_grad()
    def warm_start(self) -> None:
        """Start the projector so that the mean of an image's tokens points at the embeddings of its class names."""
        if (self.work / CHECKPOINT).exists():
            return
        seen = [(row, view) for view in range(self.plan.views) for row in self.train_rows]
        size = self._batch_size(self.plan.batch_size)
        starts = range(0, len(seen), size)
        patches = [
            mean_patch(self.projector, self._features(seen[start : start + size]))
            for start in track(starts, description="starting the projector", total=len(seen), size=size)
        ]
        rows = [row for row, _ in seen]
        targets = self._name_embeddings("fine", rows) + COARSE_WEIGHT * self._name_embeddings("coarse", rows)
        words = self.embed.weight.float().mean(0)
        start_projector(self.projector, torch.cat(patches), words + targets)

    def _name_embeddings(self, level: str, rows: Sequence[Row]) -> torch.Tensor:
        """(rows, width) mean embedding of the tokens of each row's class name, less the mean over names."""
        labels = [str(self.features[k].table[level].iloc[row]) for k, row in rows]
        names = sorted(set(labels))
        ids = [self.tokenizer(spoken(name), add_special_tokens=False)["input_ids"] for name in names]
        means = torch.stack([self.embed.weight[i].float().mean(0) for i in ids])
        return (means - means.mean(0))[[names.index(label) for label in labels]]

    def train(self) -> None:
        """Train through the LLM, from the last checkpoint on."""
        size, optimiser = self._batch_size(self.plan.batch_size), self._optimiser()
        steps = self.plan.epochs * (len(self.train_rows) // size)
        done = self._load(optimiser)
        started = saved = time.monotonic()
        batches = enumerate(self._batches(size))
        left = (item for item in batches if item[0] >= done)
        smooth = math.nan
        for step, seen in track(
            left, description="training", total=steps * size, done=done * size, size=size
        ):
            loss = self._answer_loss(seen, np.random.default_rng((self.plan.seed, step)))
            self._step(loss, optimiser, self.plan.learning_rate * share_of_peak(step, steps))
            smooth = loss.item() if math.isnan(smooth) else 0.95 * smooth + 0.05 * loss.item()
            if time.monotonic() - saved > CHECKPOINT_EVERY_SECONDS or step + 1 == steps:
                saved = time.monotonic()
                self._save(optimiser, step + 1)
                self._note(step + 1, smooth, saved - started)

    def _answer_loss(self, seen: Sequence[tuple[Row, int]], rng: np.random.Generator) -> torch.Tensor:
        """Cross-entropy in nats a token, over the tokens of the answers."""
        lessons = [self._lesson(row, rng) for row, _ in seen]
        images = self.projector(self._features(seen)).flatten(1, 2).to(self.embed.weight.dtype)
        embeds, positions, answers = self._pack(images, lessons)
        # Padding stands on the right, where a causal model never looks: no mask, so the fast kernel runs.
        hidden = self.decoder(inputs_embeds=embeds, use_cache=False).last_hidden_state
        logits = self.model.lm_head(hidden.flatten(0, 1)[positions])
        return F.cross_entropy(logits.float(), answers)

    def _lesson(self, row: Row, rng: np.random.Generator) -> Lesson:
        level = "fine" if rng.random() < FINE_SHARE else "coarse"
        choices = self.lessons[level, str(self.features[row[0]].table[level].iloc[row[1]])]
        return choices[rng.integers(len(choices))]

    def _pack(self, images: torch.Tensor, lessons: Sequence[Lesson]):
        """Put prompt, image tokens and answers side by side; say where in the flat batch each answer token is read."""
        count = images.shape[1]
        length = max(len(x.before) + count + len(x.question) + len(x.answer) for x in lessons)
        rows, positions, answers = [], [], []
        for k, lesson in enumerate(lessons):
            text = torch.tensor(lesson.before + lesson.question + lesson.answer)
            words = self.embed(text)
            cut = len(lesson.before)
            row = torch.cat([words[:cut], images[k], words[cut:]])
            rows.append(F.pad(row, (0, 0, 0, length - len(row))))
            first = k * length + cut + count + len(lesson.question) - 1
            positions.extend(range(first, first + len(lesson.answer)))
            answers.extend(lesson.answer)
        return torch.stack(rows), torch.tensor(positions), torch.tensor(answers)

    def _features(self, seen: Sequence[tuple[Row, int]]) -> torch.Tensor:
        features = np.stack([self.features[k].array[row, view] for (k, row), view in seen])
        return torch.from_numpy(features).float()

    def _batches(self, size: int) -> Iterator[list[tuple[Row, int]]]:
        """Shuffled batches of rows and views; each epoch takes the next view of every image."""
        for epoch in range(self.plan.epochs):
            order = np.random.default_rng((self.plan.seed, epoch)).permutation(len(self.train_rows))
            view = epoch % self.plan.views
            for start in range(0, len(order) - size + 1, size):
                yield [(self.train_rows[i], view) for i in order[start : start + size]]

    def _batch_size(self, planned: int) -> int:
        """No more than there are images, so that every pass has a batch."""
        return min(planned, len(self.train_rows))

    def _optimiser(self) -> torch.optim.AdamW:
        return torch.optim.AdamW(self.projector.parameters(), weight_decay=self.plan.weight_decay)

    def _step(self, loss: Any, optimiser: torch.optim.AdamW, rate: float) -> None:
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.projector.parameters(), 1.0)
        optimiser.step()

    def _save(self, optimiser: torch.optim.AdamW, step: int) -> None:
        """Write weights and optimiser as one safetensors file, whole or not at all."""
        tensors = {f"projector.{name}": t for name, t in self.projector.state_dict().items()}
        for k, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{k}.{name}": t for name, t in state.items()}
        scratch = self.work / "checkpoint.tmp"
        save_file(tensors, scratch, metadata={"step": str(step)})
        scratch.rename(self.work / CHECKPOINT)

    def _load(self, optimiser: torch.optim.AdamW) -> int:
        """Go back to the last checkpoint, and return how many steps were done by then."""
        file = self.work / CHECKPOINT
        if not file.exists():
            return 0
        tensors = load_file(file)
        prefix = "projector."
        self.projector.load_state_dict(
            {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        )
        state = optimiser.state_dict()
        for name, t in tensors.items():
            if name.startswith("optimiser."):
                _, k, what = name.split(".", 2)
                state["state"].setdefault(int(k), {})[what] = t
        optimiser.load_state_dict(state)
        done = int(next(t for name, t in tensors.items() if name.endswith(".step")).item())
        say(f"going on with the training after {done} steps")
        return done

    def _note(self, step: int, loss: float, seconds: float) -> None:
        val = self._validation_loss()
        file = self.work / "history.csv"
        is_new = not file.exists()
        with file.open("a", newline="") as opened:
            writer = csv.writer(opened)
            if is_new:
                writer.writerow(["step", "train nats per token", "validation nats per token", "seconds"])
            writer.writerow([step, f"{loss:.4f}", f"{val:.4f}", f"{seconds:.0f}"])

    @torch.inference_mode()
    def _validation_loss(self) -> float:
        rng = np.random.default_rng(self.plan.seed)
        seen = [(self.val_rows[i], 0) for i in rng.permutation(len(self.val_rows))[:VALIDATED]]
        return self._answer_loss(seen, rng).item() if seen else math.nan


def share_of_peak(step: int, steps: int) -> float:
    """Share of the peak learning rate at a step: a short linear rise, then a cosine down to 2 %."""
    rise = (step + 1) / max(1, steps // 50)
    return min(rise, 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def _lessons(
    processor: "LlavaProcessor", cached: Sequence[FeatureCache]
) -> dict[tuple[str, str], list[Lesson]]:
    """Every class name at each level, asked for in every wording."""
    ids = lambda text: processor.tokenizer(text, add_special_tokens=False)["input_ids"]  # noqa: E731
    lessons = {}
    for level, questions in QUESTIONS.items():
        asked = []
        for question in questions:
            content: Any = [{"type": "image"}, {"type": "text", "text": question}]
            prompt = processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True
            )
            before, _, after = prompt.partition(processor.image_token)
            asked.append((ids(before), ids(after)))
        end = processor.tokenizer.eos_token
        for name in {str(name) for cache in cached for name in cache.table[level]}:
            answer = ids(spoken(name) + end)
            lessons[level, name] = [Lesson(before, question, answer) for before, question in asked]
    return lessons
