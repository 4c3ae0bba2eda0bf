"""How likely the VLM finds each class name as its answer.

The image and the question are run once and kept in the key-value cache; only the names' own tokens are run for each
name. A name's last token is read but never run, and names that differ in their last token alone share one row.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fgdiag.family_table import quirk_of
from fgdiag.progress import say
from fgdiag.prompts import with_answer

if TYPE_CHECKING:
    from PIL.Image import Image

    from fgdiag.vlm import VLM

ROWS_AT_ONCE = 256
BYTES_AT_ONCE = 1 << 29
"""Of repeated cache and of logits, each; rows run at once are cut to fit."""
COMPARED = 4
"""Names that are scored both ways before the cache is trusted."""
ROUNDING = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Nats by which cached scores may differ from those of whole passes, in the median, and again for each 10 nats."""


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
        (pictures, names) float32, in nats, summed over the tokens of a name: log P(the answer begins with the
        name | picture, question). A name that begins another one ("Orange", "Orange Juice") gets the answers that
        do not go on to the longer name, so that the shorter one does not always win.

    Notes
    -----
    The closed-world likelihood of Zhang et al. (2024, arXiv 2405.18415), without its length or prior correction.
    Models whose cache does not reproduce a whole forward pass, which is checked on the first picture, and
    encoder-decoders are run once a name instead.
    """
    if not len(pictures):
        return np.zeros((0, len(names)), np.float32)
    prompt = vlm.chat(question)
    ids = [answer_ids(vlm, prompt, name) for name in names]
    score = _way_of_scoring(vlm, pictures[0], prompt, ids)
    starts = range(0, len(pictures), batch_size)
    scores = [score(vlm, pictures[start : start + batch_size], prompt, ids) for start in starts]
    return _without_longer_names(np.concatenate(scores), ids)


def answer_ids(vlm: "VLM", prompt: str, name: str) -> tuple[int, ...]:
    """Tokens of a name where it stands behind the prompt."""
    tokenizer: Any = vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    answered = with_answer(prompt, name)
    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    whole = tokenizer(answered, add_special_tokens=False)["input_ids"]
    if whole[: len(before)] == before:
        return tuple(whole[len(before) :])
    return tuple(tokenizer(answered.removeprefix(prompt), add_special_tokens=False)["input_ids"])


def _way_of_scoring(vlm: "VLM", picture: "Image", prompt: str, ids: Sequence[tuple[int, ...]]):
    if getattr(vlm.model.config.get_text_config(), "is_encoder_decoder", False):
        return _score_by_decoder
    if quirk_of(vlm.anatomy.model_type).cross_attends:  # what the image is to a token is not in the cache
        return _score_by_whole_passes
    some = sorted(ids, key=len)[-COMPARED:]
    whole = _score_by_whole_passes(vlm, [picture], prompt, some)
    try:
        cached = _score_by_cache(vlm, [picture], prompt, some)
        error = float(np.median(abs(cached - whole) / (1 + abs(whole) / 10)))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        error = np.inf
    if error < ROUNDING.get(vlm.dtype, 0.3):
        return _score_by_cache
    _say_slow(vlm.name)
    return _score_by_whole_passes


@cache
def _say_slow(model: str) -> None:
    say(
        f"the cache of {model} does not reproduce a whole pass: each name takes a pass of its own, which is slow"
    )


# --- one pass for the prompt, and the names behind its cache --------------------------------------------------------


@dataclass(frozen=True)
class _Row:
    """Tokens to run behind the prompt, and the names read off them: (index, tokens of the name)."""

    run: tuple[int, ...]
    names: tuple[tuple[int, tuple[int, ...]], ...]


def _rows(ids: Sequence[tuple[int, ...]]) -> list[_Row]:
    """Fewest rows that cover every name: a name's tokens but the last, unless they begin a longer row."""
    kept: list[tuple[int, ...]] = []
    for prefix in sorted({i[:-1] for i in ids}, key=len, reverse=True):
        if not any(longer[: len(prefix)] == prefix for longer in kept):
            kept.append(prefix)
    named: dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]] = {row: [] for row in kept}
    for index, name in enumerate(ids):
        row = next(row for row in kept if row[: len(name) - 1] == name[:-1])
        named[row].append((index, name))
    return [_Row(row, tuple(names)) for row, names in named.items()]


def _score_by_cache(vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[tuple[int, ...]]):
    inputs = vlm.inputs(pictures, prompt)
    out = vlm.model(**inputs, use_cache=True, logits_to_keep=1)
    first = _log_probabilities(out.logits[:, -1:])
    scores = np.full((len(pictures), len(ids)), np.nan, np.float32)
    for rows in _groups(_rows(ids), out.past_key_values, first):
        logs = _behind(vlm, inputs["attention_mask"], out.past_key_values, first, rows)
        for k, row in enumerate(rows):
            for index, name in row.names:
                steps = torch.arange(len(name), device=logs.device)
                scores[:, index] = logs[:, k, steps, list(name)].sum(1).cpu().numpy()
    return scores


def _groups(rows: Sequence[_Row], cache: Any, first: Tensor) -> Iterator[list[_Row]]:
    """Rows of one length, as many at once as memory is meant for."""
    pictures, _, vocabulary = first.shape
    for length in sorted({len(row.run) for row in rows}):
        bucket = [row for row in rows if len(row.run) == length]
        row_bytes = max(_cache_bytes(cache), 4 * vocabulary * (length + 1) * pictures)
        size = max(1, min(ROWS_AT_ONCE // pictures, BYTES_AT_ONCE // row_bytes))
        yield from (bucket[start : start + size] for start in range(0, len(bucket), size))


def _cache_bytes(cache: Any) -> int:
    tensors = [t for layer in cache.layers for t in (layer.keys, layer.values) if isinstance(t, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


def _behind(vlm: "VLM", mask: Tensor, cache: Any, first: Tensor, rows: Sequence[_Row]) -> Tensor:
    """Log-probabilities (pictures, rows, tokens + 1, vocabulary) of each row's tokens and of the one behind them."""
    pictures, length = len(first), len(rows[0].run)
    logs = first[:, None].expand(-1, len(rows), -1, -1)
    if length == 0:
        return logs
    kept = copy.deepcopy(cache)
    kept.batch_repeat_interleave(len(rows))
    mask = mask.repeat_interleave(len(rows), 0)
    out = vlm.model(
        input_ids=torch.tensor([row.run for row in rows], device=first.device).repeat(pictures, 1),
        attention_mask=torch.cat([mask, mask.new_ones(len(mask), length)], 1),
        past_key_values=kept,
        use_cache=True,
    )
    return torch.cat([logs, _log_probabilities(out.logits).unflatten(0, (pictures, len(rows)))], 2)


# --- a pass for each name -------------------------------------------------------------------------------------------


def _score_by_whole_passes(
    vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[tuple[int, ...]]
):
    inputs = vlm.inputs(pictures, prompt)
    token_type = int(quirk_of(vlm.anatomy.model_type).prefix_attention)
    return _each_name(
        ids, lambda name: vlm.model(**_continued(inputs, name, token_type), use_cache=False).logits[:, :-1]
    )


def _continued(inputs: Any, name: tuple[int, ...], token_type: int) -> dict[str, Any]:
    """Inputs (padded on the left) with the tokens of a name behind the prompt."""
    ids = inputs["input_ids"]
    more = dict(inputs)
    more["input_ids"] = torch.cat([ids, torch.tensor([name], device=ids.device).expand(len(ids), -1)], 1)
    for key, value in inputs.items():
        if key == "attention_mask":
            more[key] = torch.cat([value, value.new_ones(len(ids), len(name))], 1)
        elif key in ("token_type_ids", "mm_token_type_ids"):
            more[key] = torch.cat([value, value.new_full((len(ids), len(name)), token_type)], 1)
        elif key == "cross_attention_mask":
            more[key] = torch.cat([value, value[:, -1:].expand(-1, len(name), -1, -1)], 1)
    return more


def _score_by_decoder(vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[tuple[int, ...]]):
    inputs = vlm.inputs(pictures, prompt)
    start = vlm.model.config.get_text_config().decoder_start_token_id

    def logits(name: tuple[int, ...]) -> Tensor:
        given = torch.tensor([(start, *name[:-1])], device=vlm.device).expand(len(pictures), -1)
        return vlm.model(**inputs, decoder_input_ids=given, use_cache=False).logits

    return _each_name(ids, logits)


def _each_name(ids: Sequence[tuple[int, ...]], logits_of: Any) -> np.ndarray:
    """Score names one by one; `logits_of` ends with those that each token of a name is read from."""
    columns = []
    for name in ids:
        logs = _log_probabilities(logits_of(name)[:, -len(name) :])
        columns.append(logs[:, torch.arange(len(name)), list(name)].sum(1).cpu().numpy())
    return np.stack(columns, 1)


def _log_probabilities(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _without_longer_names(scores: np.ndarray, ids: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Take from each name's probability that of the next longer names which begin with it."""
    exact = scores.copy()
    for index, name in enumerate(ids):
        longer = [k for k, other in enumerate(ids) if len(other) > len(name) and other[: len(name)] == name]
        nearest = [k for k in longer if not any(j != k and ids[k][: len(ids[j])] == ids[j] for j in longer)]
        if nearest:
            going_on = np.exp(scores[:, nearest].astype(np.float64) - scores[:, [index]]).sum(1)
            exact[:, index] += np.log(np.clip(1 - going_on, 1e-6, None))
    return exact
