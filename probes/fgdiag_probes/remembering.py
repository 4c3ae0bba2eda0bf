"""Let the vision encoder see every image once, where the same images go through one model many times."""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from fgdiag.hooks import replaced_forward

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

MOST_BYTES = 2 << 30
"""Of remembered outputs; what is seen after that is not remembered."""


class Memory:
    """The output of an encoder, row by row of what it was given; at most `most_bytes` of it."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.rows: dict[bytes, list[Tensor | None]] = {}
        self.shape: TreeSpec | None = None
        self.room = most_bytes

    def recall(self, keys: list[bytes]) -> Any:
        """Return the output for these rows, or None where one of them is new."""
        if self.shape is None or not all(key in self.rows for key in keys):
            return None
        parts = zip(*(self.rows[key] for key in keys), strict=True)
        return tree_unflatten([None if part[0] is None else torch.stack(part) for part in parts], self.shape)

    def keep(self, keys: list[bytes], output: Any) -> None:
        """Remember an output, if it holds one row for each row that was given."""
        parts, shape = tree_flatten(output)
        tensors = [part for part in parts if part is not None]
        by_row = all(isinstance(part, Tensor) and part.ndim and len(part) == len(keys) for part in tensors)
        size = sum(part.nbytes for part in tensors) if by_row else 0
        if by_row and size <= self.room:
            self.room -= size
            self.shape = shape
            for at, key in enumerate(keys):
                self.rows[key] = [None if part is None else part[at].clone() for part in parts]


@contextmanager
def remembering(vlm: "VLM", memory: Memory) -> Iterator[None]:
    """Have the encoder's output given back from memory while the block runs, when a batch holds nothing new.

    Hooks on the encoder as a whole fire as ever, those on its blocks only where it sees something new. An encoder
    whose output does not hold one row for each row of its pixels, such as one that packs images of many sizes into
    one sequence, runs as ever.
    """
    encoder: Any = vlm.model.get_encoder(modality="image")
    forward = encoder.forward

    def remembered(*args: Any, **options: Any) -> Any:
        keys = _keys(args, options)
        known = memory.recall(keys)
        if known is None:
            known = forward(*args, **options)
            memory.keep(keys, known)
        return known

    with replaced_forward(encoder, remembered):
        yield


def _keys(args: Any, options: dict[str, Any]) -> list[bytes]:
    """One key a row of the pixels, which is the first tensor that an encoder is given; all else is in each key."""
    given, _ = tree_flatten((args, options))
    pixels, *others = [value for value in given if isinstance(value, Tensor)]
    plain = repr([value for value in given if not isinstance(value, Tensor)])
    around = blake2b(plain.encode())
    for other in others:
        around.update(_bytes(other))
    return [blake2b(_bytes(row), digest_size=16, key=around.digest()).digest() for row in pixels]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().contiguous().view(torch.uint8).cpu().numpy().tobytes()
