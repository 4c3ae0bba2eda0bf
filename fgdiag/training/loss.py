"""The loss of a batch: cross-entropy of the answers' tokens, given the image, the prompt and the answer so far."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fgdiag.training.lessons import Lesson


@dataclass(frozen=True)
class Batch:
    """Some images and one lesson about each.

    Attributes
    ----------
    seen
        (images, tokens, width) what the projector is fed, where that is kept; else
        (images, channels, height, width) pixels.
    lessons
        As many.
    """

    seen: Tensor
    lessons: Sequence[Lesson]

    @property
    def answer_tokens(self) -> int:
        """Over how many tokens the loss is a mean."""
        return sum(len(lesson.answer) for lesson in self.lessons)

    def parts(self, count: int) -> "list[Batch]":
        """Cut into `count` batches of about the same size; there must be as many lessons."""
        cuts = [len(self.lessons) * k // count for k in range(count + 1)]
        return [Batch(self.seen[at:end], self.lessons[at:end]) for at, end in pairwise(cuts)]


class AnswerLoss(nn.Module):
    """An assembled VLM as one function from a batch to its loss, so that it can be spread over devices.

    Parameters
    ----------
    model
        The VLM.
    autocast
        What its trained encoder or LLM, in float32, compute in; None where they are frozen in that format.
    """

    def __init__(self, model: Any, autocast: torch.dtype | None = None) -> None:
        super().__init__()
        self.model, self.autocast = model, autocast

    def forward(self, batch: Batch) -> Tensor:
        """Sum over the answers' tokens of the cross-entropy in nats, float32."""
        images = self._image_tokens(batch.seen)
        embeds, positions, answers = self._packed(images, batch.lessons)
        with self._computing():
            # Padding stands on the right, where a causal model never looks: no mask, so the fast kernel runs.
            hidden = self.model.get_decoder()(inputs_embeds=embeds, use_cache=False).last_hidden_state
            logits = self.model.lm_head(hidden.flatten(0, 1)[positions])
        return F.cross_entropy(logits.float(), answers, reduction="sum")

    def _image_tokens(self, seen: Tensor) -> Tensor:
        """(images, tokens, text width) as they enter the LLM."""
        trunk = self.model.model
        if seen.ndim == 3:
            images = trunk.multi_modal_projector(seen.float())
        else:
            with self._computing():
                images = trunk.get_image_features(pixel_values=seen).pooler_output
        if not isinstance(images, Tensor):
            images = torch.stack(list(images))
        return images.flatten(1, -2).to(self.model.get_input_embeddings().weight.dtype)

    def _packed(self, images: Tensor, lessons: Sequence[Lesson]) -> tuple[Tensor, Tensor, Tensor]:
        """Put prompt, image tokens and answers side by side; say where in the flat batch each answer token is read."""
        embed, device, count = self.model.get_input_embeddings(), images.device, images.shape[1]
        texts = [lesson.before + lesson.question + lesson.answer for lesson in lessons]
        length = max(map(len, texts)) + count
        words = embed(torch.tensor([token for text in texts for token in text], device=device))
        rows, positions = [], []
        for k, (lesson, own) in enumerate(zip(lessons, words.split([len(t) for t in texts]), strict=True)):
            cut = len(lesson.before)
            row = torch.cat([own[:cut], images[k], own[cut:]])
            rows.append(F.pad(row, (0, 0, 0, length - len(row))))
            first = k * length + cut + count + len(lesson.question) - 1
            positions.extend(range(first, first + len(lesson.answer)))
        answers = [token for lesson in lessons for token in lesson.answer]
        return (
            torch.stack(rows),
            torch.tensor(positions, device=device),
            torch.tensor(answers, device=device),
        )

    def _computing(self) -> Any:
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.model.device.type, self.autocast)
