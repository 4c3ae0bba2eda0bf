"""What the VLM itself says: the likelihood of every class name as its answer.

The image and the question are run once and kept in the key-value cache; only the names' own tokens are run for each
name. A name's last token is read but never run, and names that differ in their last token alone share one row.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from fgdiag.progress import track
from fgdiag.prompts import COARSE_QUESTION, spoken

if TYPE_CHECKING:
    from PIL.Image import Image

    from fgdiag.images import ImageSet
    from fgdiag.store import Run
    from fgdiag.vlm import VLM

IMAGES_A_PART = 64
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Answers:
    """What the VLM said of every test image, by the likelihood of the class names.

    Attributes
    ----------
    table
        One row a test image: `row`, `fine`, `coarse`; `said_fine` among all fine names, `said_fine_within_coarse`
        among those of the image's coarse class, `said_coarse` among all coarse names; and `bits_...`, minus the
        log2 of the true name's probability among the same names.
    """

    table: pd.DataFrame

    def accuracy(self) -> dict[str, float]:
        """Share of test images named right, by level; fine|coarse counts images whose class has siblings."""
        table, right = self.table, {}
        right["fine"] = float((table["said_fine"] == table["fine"]).mean())
        if "said_coarse" in table:
            right["coarse"] = float((table["said_coarse"] == table["coarse"]).mean())
            siblings = table[table["siblings"] > 1]
            right["fine|coarse"] = float((siblings["said_fine_within_coarse"] == siblings["fine"]).mean())
        return right

    def frame(self) -> pd.DataFrame:
        """One row a level: `level`, `accuracy` in [0, 1]."""
        return pd.DataFrame(list(self.accuracy().items()), columns=["level", "accuracy"])

    def json(self) -> dict[str, Any]:
        """Accuracy by level, and how many images were asked about."""
        return {"images": len(self.table), "accuracy": self.accuracy()}


def answer(run: "Run", vlm: "VLM", images: "ImageSet") -> Answers:
    """Ask the VLM about every readable test image and write `results/answers.parquet`.

    The fine names are asked for with the run's own prompt, the coarse ones with "What kind of thing is this?".
    Parts of 64 images are kept in `results/answers/`, so an interrupted call goes on where it stopped.
    """
    table = run.images
    test = table.index[(table["split"] == "test") & (table["status"] == "ok")].to_numpy()
    usable = table[table["split"] != "excluded"]
    names = {level: sorted(usable[level].astype(str).unique()) for level in images.levels}
    starts = range(0, len(test), IMAGES_A_PART)
    files = [run.result_path(f"answers/{start:06d}.parquet") for start in starts]
    todo = [(start, file) for start, file in zip(starts, files, strict=True) if not file.exists()]
    done = len(test) - sum(len(test[start : start + IMAGES_A_PART]) for start, _ in todo)
    for start, file in track(
        todo, description="asking the model", total=len(test), done=done, size=IMAGES_A_PART
    ):
        rows = test[start : start + IMAGES_A_PART]
        part = _ask(vlm, images, table, rows, names, run.manifest["prompt"])
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch = file.with_suffix(".tmp")
        part.to_parquet(scratch)
        scratch.rename(file)
    answers = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True)
    run.write_table("answers", answers)
    return Answers(answers)


def _ask(vlm, images, table, rows: np.ndarray, names: dict[str, list[str]], prompt: str) -> pd.DataFrame:
    pictures = [images.open(int(row)) for row in rows]
    truth = table.loc[rows]
    part = pd.DataFrame({"row": rows, "fine": truth["fine"].to_numpy(), "coarse": truth["coarse"].to_numpy()})
    fine_names = np.array(names["fine"])
    fine = name_likelihood(vlm, pictures, [spoken(name) for name in fine_names], prompt)
    _record(part, "fine", fine, fine_names)
    if "coarse" in names:
        coarse_names = np.array(names["coarse"])
        coarse = name_likelihood(vlm, pictures, [spoken(name) for name in coarse_names], COARSE_QUESTION)
        _record(part, "coarse", coarse, coarse_names)
        coarse_of = table.drop_duplicates("fine").set_index("fine")["coarse"]
        siblings = coarse_of.loc[fine_names].to_numpy()[None] == part["coarse"].to_numpy()[:, None]
        _record(part, "fine_within_coarse", np.where(siblings, fine, -np.inf), fine_names)
        part["siblings"] = siblings.sum(1)
    return part


def _record(part: pd.DataFrame, what: str, scores: np.ndarray, names: np.ndarray) -> None:
    """Add what was said and the bits of the true name, its probability taken among the given names."""
    truth = part["coarse" if what == "coarse" else "fine"].to_numpy()
    true = scores[np.arange(len(scores)), np.searchsorted(names, truth)]
    total = np.logaddexp.reduce(scores.astype(np.float64), axis=1)
    part[f"said_{what}"] = names[scores.argmax(1)]
    part[f"bits_{what}"] = ((total - true) / np.log(2)).astype(np.float32)


@torch.inference_mode()
def name_likelihood(
    vlm: "VLM", pictures: Sequence["Image"], names: Sequence[str], question: str, *, batch_size: int = 8
) -> np.ndarray:
    """Log-probability of each name as the answer to the question about each picture.

    Parameters
    ----------
    pictures
        RGB images.
    names
        Class names as they would be spoken.
    question
        What is asked; the chat template of the model is put around it.
    batch_size
        Pictures whose prompts run together.

    Returns
    -------
    ndarray
        (pictures, names) float32, in nats, summed over the tokens of a name: log P(name | picture, question).
        The end of the answer is not scored.

    Notes
    -----
    The closed-world likelihood of Zhang et al. (2024, arXiv 2405.18415), without its length or prior correction.
    """
    prompt = vlm.chat(question)
    rows = _rows([_answer_ids(vlm, prompt, name) for name in names])
    scores = [
        _score(vlm, pictures[start : start + batch_size], prompt, rows, len(names))
        for start in range(0, len(pictures), batch_size)
    ]
    return np.concatenate(scores) if scores else np.zeros((0, len(names)), np.float32)


def _answer_ids(vlm: "VLM", prompt: str, name: str) -> tuple[int, ...]:
    """Tokens of a name where it stands behind the prompt."""
    tokenizer = vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    blank = "" if prompt[-1:].isspace() else " "
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(prompt + blank + name, add_special_tokens=False)["input_ids"]
    if whole[: len(before)] == before:
        return tuple(whole[len(before) :])
    return tuple(tokenizer(blank + name, add_special_tokens=False)["input_ids"])


@dataclass(frozen=True)
class _Row:
    """Tokens to run behind the prompt, and the names read off them: (index, tokens of the name)."""

    run: tuple[int, ...]
    names: tuple[tuple[int, tuple[int, ...]], ...]


def _rows(ids: Sequence[tuple[int, ...]]) -> list[_Row]:
    """Fewest rows that cover every name: a name's tokens but the last, unless they begin a longer row."""
    needed = sorted({i[:-1] for i in ids}, key=len, reverse=True)
    kept: list[tuple[int, ...]] = []
    for prefix in needed:
        if not any(longer[: len(prefix)] == prefix for longer in kept):
            kept.append(prefix)
    named: dict[tuple[int, ...], list] = {row: [] for row in kept}
    for index, name in enumerate(ids):
        row = next(row for row in kept if row[: len(name) - 1] == name[:-1])
        named[row].append((index, name))
    return [_Row(row, tuple(names)) for row, names in named.items()]


def _score(vlm: "VLM", pictures, prompt: str, rows: list[_Row], count: int) -> np.ndarray:
    inputs = vlm.inputs(pictures, [prompt] * len(pictures))
    out = vlm.model(**inputs, use_cache=True, logits_to_keep=1)
    first = out.logits[:, -1:].float().log_softmax(-1)
    scores = np.full((len(pictures), count), np.nan, np.float32)
    for length in sorted({len(row.run) for row in rows}):
        bucket = [row for row in rows if len(row.run) == length]
        size = max(1, ROWS_AT_ONCE // len(pictures))
        for start in range(0, len(bucket), size):
            some = bucket[start : start + size]
            _fill(scores, vlm, inputs, out.past_key_values, first, some, length)
    return scores


def _fill(scores: np.ndarray, vlm, inputs, cache, first: torch.Tensor, rows: list[_Row], length: int) -> None:
    """Read the names of rows of one length; `first` is the (pictures, 1, vocabulary) log-probability of token 1."""
    pictures = len(first)
    logs = first[:, None].expand(-1, len(rows), -1, -1)
    if length:
        tokens = torch.tensor([row.run for row in rows], device=first.device).repeat(pictures, 1)
        kept = copy.deepcopy(cache)
        kept.batch_repeat_interleave(len(rows))
        mask = inputs["attention_mask"].repeat_interleave(len(rows), 0)
        mask = torch.cat([mask, mask.new_ones(len(mask), length)], 1)
        out = vlm.model(input_ids=tokens, attention_mask=mask, past_key_values=kept, use_cache=True)
        behind = out.logits.float().log_softmax(-1).unflatten(0, (pictures, len(rows)))
        logs = torch.cat([logs, behind], 2)
    for k, row in enumerate(rows):
        for index, name in row.names:
            steps = torch.arange(len(name), device=logs.device)
            picked = logs[:, k, steps, torch.tensor(name, device=logs.device)]
            scores[:, index] = picked.sum(1).cpu().numpy()
