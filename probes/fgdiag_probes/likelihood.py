"""How likely the VLM finds each class name as its answer.

The image and the question are run once and kept in the key-value cache; behind it run the names' own tokens, as one
trie. Models whose layers keep a state instead of keys (hybrid, linear attention) run the names as rows of a batch, and
models whose cache does not reproduce a whole pass run each name by itself.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np
import torch

from fgdiag.memory import keep_freed_memory, no_memory
from fgdiag.progress import say
from fgdiag.prompts import answer_tokens
from fgdiag_probes.name_scoring import (
    score_by_decoder_passes,
    score_by_decoder_rows,
    score_by_rows,
    score_by_trie,
    score_by_whole_passes,
)
from fgdiag_probes.name_trie import Tokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from fgdiag.vlm import VLM

COMPARED = 2
"""Names that are scored both ways, in every order, before the cache is trusted."""
ROUNDING = {torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.3}
"""Nats by which cached scores may differ from those of whole passes, in the median, and again for each 10 nats."""

Way = Callable[["VLM", Sequence["Image"], str, Sequence[Tokens]], np.ndarray]
WAYS: tuple[Way, ...] = (score_by_trie, score_by_rows, score_by_whole_passes)
DECODER_WAYS: tuple[Way, ...] = (score_by_decoder_rows, score_by_decoder_passes)
"""The fastest first; the last is right whatever the model."""


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
        Pictures that run together.

    Returns
    -------
    ndarray
        (pictures, names) float32, in nats, summed over the tokens of a name: log P(the answer begins with the
        name | picture, question). A name that begins another one ("Orange", "Orange Juice") gets the answers that
        do not go on to the longer name, so that the shorter one does not always win.

    Notes
    -----
    The closed-world likelihood of Zhang et al. (2024, arXiv 2405.18415), without its length or prior correction:
    divide by `name_lengths` for their mean over tokens. The cache is compared with whole forward passes on the first
    picture that an opened model is asked about; one that fails is run once for each name instead.
    """
    if not len(pictures):
        return np.zeros((0, len(names)), np.float32)
    if vlm.device.type == "cpu":
        keep_freed_memory()
    prompt = vlm.chat(question)
    ids = [answer_ids(vlm, prompt, name) for name in names]
    score = _way_of_scoring(vlm, pictures[0], prompt, ids)
    starts = range(0, len(pictures), batch_size)
    scores = [score(vlm, pictures[start : start + batch_size], prompt, ids) for start in starts]
    return _without_longer_names(np.concatenate(scores), ids)


def name_lengths(vlm: "VLM", names: Sequence[str], question: str) -> np.ndarray:
    """Tokens of each name as the answer to the question, (names,) int64."""
    prompt = vlm.chat(question)
    return np.array([len(answer_ids(vlm, prompt, name)) for name in names])


def answer_ids(vlm: "VLM", prompt: str, name: str) -> Tokens:
    """Tokens of a name where it stands behind the prompt."""
    return answer_tokens(vlm.processor.tokenizer, prompt, name)  # pyright: ignore[reportAttributeAccessIssue]


# --- which way a model allows ---------------------------------------------------------------------------------------

_proven: "WeakKeyDictionary[VLM, Way]" = WeakKeyDictionary()


def _way_of_scoring(vlm: "VLM", picture: "Image", prompt: str, ids: Sequence[Tokens]) -> Way:
    """The fastest way that gives what whole passes give; tried once for each opened model."""
    if vlm not in _proven:
        longest = sorted(set(ids), key=len)[-COMPARED:]
        # Put behind each other, so that even names of one token branch and go deep.
        _proven[vlm] = _fastest(vlm, picture, prompt, [one + other for one in longest for other in longest])
    return _proven[vlm]


def _fastest(vlm: "VLM", picture: "Image", prompt: str, ids: Sequence[Tokens]) -> Way:
    decodes = getattr(vlm.model.config.get_text_config(), "is_encoder_decoder", False)
    *fast, safe = DECODER_WAYS if decodes else WAYS
    whole = safe(vlm, [picture], prompt, ids)
    for way in fast:
        try:
            error = abs(way(vlm, [picture], prompt, ids) - whole) / (1 + abs(whole) / 10)
        except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as failure:
            if no_memory(failure):
                raise
            continue
        if float(np.median(error)) < ROUNDING.get(vlm.dtype, 0.3):
            return way
    _say_slow(vlm.name)
    return safe


@cache
def _say_slow(model: str) -> None:
    say(
        f"the cache of {model} does not reproduce a whole pass: each name takes a pass of its own, which is slow"
    )


def _without_longer_names(scores: np.ndarray, ids: Sequence[Tokens]) -> np.ndarray:
    """Take from each name's probability that of the next longer names which begin with it."""
    place = {name: index for index, name in enumerate(ids)}
    longer: dict[int, list[int]] = {}
    for index, name in enumerate(ids):
        begun = [place[name[:k]] for k in range(len(name) - 1, 0, -1) if name[:k] in place]
        if begun:
            longer.setdefault(begun[0], []).append(index)
    exact = scores.copy()
    for index, nearest in longer.items():
        going_on = np.exp(scores[:, nearest].astype(np.float64) - scores[:, [index]]).sum(1)
        exact[:, index] += np.log(np.clip(1 - going_on, 1e-6, None))
    return exact
