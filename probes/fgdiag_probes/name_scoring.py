"""Ways to run class names through a VLM, from the fastest to the one that every model allows.

Each takes (vlm, pictures, prompt, tokens of each name) and returns (pictures, names) float32: nats, summed over a
name's tokens. Which of them a model allows is `fgdiag_probes.likelihood`'s to find out.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils._pytree import tree_leaves
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.modeling_outputs import BaseModelOutput

from fgdiag.family_table import quirk_of
from fgdiag_probes.name_trie import Tokens, Trie, tries

if TYPE_CHECKING:
    from PIL.Image import Image

    from fgdiag.vlm import VLM

ROWS_AT_ONCE = 256
NODES_AT_ONCE = 512
BYTES_AT_ONCE = 1 << 29
"""Of logits, and of repeated cache; what is run at once is cut to fit."""


# --- one pass for the prompt, and the trie of names behind its cache ------------------------------------------------


def score_by_trie(vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[Tokens]) -> np.ndarray:
    """The trie is one sequence behind the cached prompt; what names have in common is run once."""
    inputs = vlm.inputs(pictures, prompt)
    out = vlm.model(**inputs, use_cache=True, logits_to_keep=1)
    first = out.logits[:, -1:]
    scores = np.zeros((len(pictures), len(ids)), np.float32)
    for trie in tries(ids, most=min(NODES_AT_ONCE, BYTES_AT_ONCE // (4 * first.numel()))):
        behind = _run_trie(vlm, inputs, out.past_key_values, trie) if trie.nodes else first[:, :0]
        name, place, token = torch.from_numpy(trie.reads.T)
        logs = _read(torch.cat([first, behind], 1), place, token)
        np.add.at(scores.T, name.numpy(), logs.T)
    return scores


def _run_trie(vlm: "VLM", inputs: Any, cache: Any, trie: Trie) -> Tensor:
    """Logits (pictures, nodes, vocabulary) of what follows each node."""
    mask = inputs["attention_mask"]
    depths = torch.from_numpy(trie.depths).to(mask.device)
    return vlm.model(
        input_ids=torch.tensor(trie.tokens, device=mask.device).expand(len(mask), -1),
        attention_mask=_tree_mask(mask, cache, trie, vlm.dtype),
        position_ids=_end_of_prompt(vlm, mask) + depths,
        past_key_values=copy.deepcopy(cache),
        use_cache=True,
        **_across(inputs, len(trie.nodes)),
    ).logits


def _end_of_prompt(vlm: "VLM", mask: Tensor) -> Tensor:
    """(pictures, 1) position of the first token behind the prompt that was run last."""
    moved = getattr(vlm.model.base_model, "rope_deltas", None)
    if moved is not None:  # M-RoPE: an image takes less positions than tokens, padding none
        return mask.sum(1, keepdim=True) + moved
    return torch.full_like(mask[:, :1], mask.shape[1] + quirk_of(vlm.anatomy.model_type).first_position)


def _tree_mask(mask: Tensor, cache: Any, trie: Trie, dtype: torch.dtype) -> Tensor | dict[str, Tensor]:
    """What each node sees of the prompt and of the trie; one for each kind of layer where there are several."""
    prompt = mask.bool()[:, None, None].expand(-1, 1, len(trie.nodes), -1)
    own = torch.from_numpy(trie.sees).to(mask.device).expand(len(mask), 1, -1, -1)
    depths = torch.from_numpy(trie.depths).to(mask.device)
    masks: dict[str, Tensor] = {}
    for layer in cache.layers:
        if type(layer) is DynamicLayer:
            masks["full_attention"] = torch.cat([prompt, own], 3)
        elif type(layer) is DynamicSlidingWindowLayer:
            before = torch.arange(mask.shape[1], 0, -1, device=mask.device) + depths[:, None]
            near = prompt & (before < layer.sliding_window)
            masks["sliding_attention"] = torch.cat([near[..., 1 - layer.sliding_window :], own], 3)
        else:
            raise TypeError(f"a cache of {type(layer).__name__} holds no keys that a trie could look up")
    least = torch.finfo(dtype).min
    masks = {kind: least * (~seen).to(dtype) for kind, seen in masks.items()}
    return masks if len(masks) > 1 else masks.popitem()[1]


def _across(inputs: Any, length: int) -> dict[str, Tensor]:
    """What tokens behind the prompt see of the image by cross-attention, in models that have it."""
    mask = inputs.get("cross_attention_mask")
    return {} if mask is None else {"cross_attention_mask": mask[:, -1:].expand(-1, length, -1, -1)}


def _read(logits: Tensor, place: Tensor, token: Tensor) -> np.ndarray:
    """Log-probabilities (pictures, reads) of tokens at places, picture by picture: memory that stays warm is fast."""
    rows = [one.log_softmax(-1, dtype=torch.float32)[place, token] for one in logits]
    return torch.stack(rows).cpu().numpy()


# --- names as rows of a batch behind the cache ----------------------------------------------------------------------


def score_by_rows(vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[Tokens]) -> np.ndarray:
    """The cached prompt is repeated for each name: for layers that keep a state, which a trie cannot look up."""
    inputs = vlm.inputs(pictures, prompt)
    out = vlm.model(**inputs, use_cache=True, logits_to_keep=1)
    first = out.logits[:, -1:]
    scores = np.full((len(pictures), len(ids)), np.nan, np.float32)
    for rows in _groups(ids, out.past_key_values, first):
        logits = _run_rows(vlm, inputs, out.past_key_values, first, [run for run, _ in rows])
        for k, (_, names) in enumerate(rows):
            for index in names:
                steps = torch.arange(len(ids[index]))
                scores[:, index] = _read(logits[:, k], steps, torch.tensor(ids[index])).sum(1)
    return scores


_Row = tuple[Tokens, list[int]]
"""Tokens to run behind the prompt, and the names read off them."""


def _groups(ids: Sequence[Tokens], cache: Any, first: Tensor) -> Iterator[list[_Row]]:
    """Rows of one length, as many at once as memory is meant for; names that differ in their last token share a row."""
    pictures, _, vocabulary = first.shape
    rows: dict[Tokens, list[int]] = {}
    for index, name in enumerate(ids):
        rows.setdefault(name[:-1], []).append(index)
    for length in sorted({len(run) for run in rows}):
        bucket = [row for row in rows.items() if len(row[0]) == length]
        row_bytes = max(_cache_bytes(cache), 4 * vocabulary * (length + 1) * pictures)
        size = max(1, min(ROWS_AT_ONCE // pictures, BYTES_AT_ONCE // row_bytes))
        yield from (bucket[start : start + size] for start in range(0, len(bucket), size))


def _cache_bytes(cache: Any) -> int:
    tensors = [
        leaf for layer in cache.layers for leaf in tree_leaves(vars(layer)) if isinstance(leaf, Tensor)
    ]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _run_rows(vlm: "VLM", inputs: Any, cache: Any, first: Tensor, runs: Sequence[Tokens]) -> Tensor:
    """Logits (pictures, rows, tokens + 1, vocabulary) of what follows the prompt and each token of a row."""
    pictures, length = len(first), len(runs[0])
    before = first[:, None].expand(-1, len(runs), -1, -1)
    if length == 0:
        return before
    kept, mask = copy.deepcopy(cache), inputs["attention_mask"]
    picture_of = torch.arange(pictures, device=mask.device).repeat_interleave(len(runs))
    kept.reorder_cache(picture_of)
    positions = _end_of_prompt(vlm, mask) + torch.arange(length, device=mask.device)
    mask = mask[picture_of]
    out = vlm.model(
        input_ids=torch.tensor(runs, device=first.device).repeat(pictures, 1),
        attention_mask=torch.cat([mask, mask.new_ones(len(mask), length)], 1),
        position_ids=positions[picture_of],
        past_key_values=kept,
        use_cache=True,
        **{key: value[picture_of] for key, value in _across(inputs, length).items()},
    )
    return torch.cat([before, out.logits.unflatten(0, (pictures, len(runs)))], 2)


# --- a pass for each name -------------------------------------------------------------------------------------------


def score_by_whole_passes(
    vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[Tokens]
) -> np.ndarray:
    """A pass for each name, nothing shared: what the others are held to."""
    inputs = vlm.inputs(pictures, prompt)
    return _each_name(ids, lambda name: logits_behind_prompt(vlm, inputs, name))


def logits_behind_prompt(vlm: "VLM", inputs: Any, name: Tokens) -> Tensor:
    """Logits (pictures, tokens, vocabulary) that each token of a name is read from; gradients flow through them."""
    token_type = int(quirk_of(vlm.anatomy.model_type).prefix_attention)
    given = _continued(inputs, name, token_type)
    return vlm.model(**given, use_cache=False, logits_to_keep=len(name) + 1).logits[:, :-1]


def _continued(inputs: Any, name: Tokens, token_type: int) -> dict[str, Any]:
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
            more[key] = torch.cat([value, _across(inputs, len(name))[key]], 1)
    return more


def _each_name(ids: Sequence[Tokens], logits_of: Callable[[Tokens], Tensor]) -> np.ndarray:
    """Score names one by one; `logits_of` ends with those that each token of a name is read from."""
    columns = []
    for name in ids:
        logits = logits_of(name)[:, -len(name) :]
        columns.append(_read(logits, torch.arange(len(name)), torch.tensor(name)).sum(1))
    return np.stack(columns, 1)


# --- encoder-decoders ----------------------------------------------------------------------------------------------


def score_by_decoder_rows(
    vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[Tokens]
) -> np.ndarray:
    """The encoder runs once, and the decoder once for all names; what follows a shorter name is not read."""
    inputs = vlm.inputs(pictures, prompt)
    starts = _decoder_start(vlm).expand(len(pictures), 1)
    out = vlm.model(**inputs, decoder_input_ids=starts, use_cache=False)
    encoded, scores = out.encoder_last_hidden_state, np.zeros((len(pictures), len(ids)), np.float32)
    for row in range(len(pictures)):
        for names in _decoder_batches(ids, out.logits.shape[-1]):
            given = pad_sequence([torch.tensor(ids[index][:-1]) for index in names], batch_first=True)
            given = torch.cat([_decoder_start(vlm).expand(len(names), 1), given.to(vlm.device)], 1)
            logits = vlm.model(
                encoder_outputs=BaseModelOutput(last_hidden_state=encoded[row].expand(len(names), -1, -1)),
                attention_mask=inputs["attention_mask"][row].expand(len(names), -1),
                decoder_input_ids=given,
                use_cache=False,
            ).logits
            for one, index in zip(logits, names, strict=True):
                steps = torch.arange(len(ids[index]))
                scores[row, index] = _read(one[None], steps, torch.tensor(ids[index])).sum()
    return scores


def _decoder_batches(ids: Sequence[Tokens], vocabulary: int) -> Iterator[Sequence[int]]:
    """Indices of names of like length, as many at once as memory is meant for."""
    order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
    size = max(1, min(ROWS_AT_ONCE, BYTES_AT_ONCE // (4 * vocabulary * len(ids[order[-1]]))))
    yield from (order[start : start + size] for start in range(0, len(order), size))


def score_by_decoder_passes(
    vlm: "VLM", pictures: Sequence["Image"], prompt: str, ids: Sequence[Tokens]
) -> np.ndarray:
    """A pass of the encoder and of the decoder for each name."""
    inputs = vlm.inputs(pictures, prompt)
    return _each_name(ids, lambda name: logits_of_decoder(vlm, inputs, name))


def logits_of_decoder(vlm: "VLM", inputs: Any, name: Tokens) -> Tensor:
    """`logits_behind_prompt` of an encoder-decoder."""
    given = torch.tensor([name[:-1]], dtype=torch.long, device=vlm.device)
    given = torch.cat([_decoder_start(vlm), given], 1).expand(len(inputs["input_ids"]), -1)
    return vlm.model(**inputs, decoder_input_ids=given, use_cache=False).logits


def _decoder_start(vlm: "VLM") -> Tensor:
    return torch.tensor([[vlm.model.config.get_text_config().decoder_start_token_id]], device=vlm.device)
