"""Hidden states of a language model read as words, and how far up the vocabulary names stand."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

TOP = 5
"""Words kept of each token."""
BYTES_AT_ONCE = 1 << 28
"""Of logits."""

Spellings = tuple[int, ...]
"""First tokens of a name: with and without a blank before it, as written and in lower case."""


@dataclass(frozen=True)
class WordReader:
    """Reads hidden states as words, and ranks names.

    Attributes
    ----------
    own
        For each name its spellings.
    rivals
        For each name, the different spellings of all names of its level.
    """

    vlm: "VLM"
    own: tuple[Spellings, ...]
    rivals: tuple[tuple[Spellings, ...], ...]

    @classmethod
    def of(cls, vlm: "VLM", names: Sequence[str], among: Sequence[Sequence[str]]) -> "WordReader":
        """Find the first tokens of names, and of those that each of them is ranked among."""
        own = tuple(_spellings(vlm, name) for name in names)
        rivals = (dict.fromkeys(_spellings(vlm, name) for name in all_names) for all_names in among)
        return cls(vlm, own, tuple(tuple(one) for one in rivals))

    @property
    def vocabulary(self) -> int:
        """Rows of the head that stand for a token; some models pad it."""
        return min(len(self._tokenizer), len(self._embeddings))

    def word(self, token: int) -> str:
        """Return a token as it is read; a blank before it tells the beginning of a word and is left out."""
        text = self._tokenizer.decode([token])
        if "\N{REPLACEMENT CHARACTER}" in text:  # a part of a letter
            return str(self._tokenizer.convert_ids_to_tokens(token))
        return text.strip() or repr(text)[1:-1].replace(" ", "␣") or "␣"

    def read(self, hidden: Tensor) -> dict[str, np.ndarray]:
        """Read (tokens, width); `words`, `scores`, `ranks` and `ranks_among` as in `TokenLens`, without sites."""
        found = [self._ways(lot) for lot in hidden.split(max(1, BYTES_AT_ONCE // (4 * self.vocabulary)))]
        return {
            name: np.concatenate([one[name] for one in found], -2 if name in ("words", "scores") else -1)
            for name in found[0]
        }

    def _ways(self, hidden: Tensor) -> dict[str, np.ndarray]:
        logits, cosines = self._logits(hidden), self._cosines(hidden)
        read = [self._told(logits, logits.softmax(-1)), self._told(cosines, cosines)]
        return {name: np.stack([one[name] for one in read]) for name in read[0]}

    def _told(self, values: Tensor, shown: Tensor) -> dict[str, np.ndarray]:
        top = values.topk(TOP, -1).indices
        words = np.vectorize(self.word, otypes=[str])(top.cpu().numpy())
        ranks = [ranks_in(values, _best(values, one), values.shape[-1]) for one in self.own]
        among = [
            ranks_in(
                torch.stack([_best(values, rival) for rival in rivals], -1), _best(values, one), len(rivals)
            )
            for one, rivals in zip(self.own, self.rivals, strict=True)
        ]
        numbers = {
            "scores": shown.gather(-1, top),
            "ranks": torch.stack(ranks),
            "ranks_among": torch.stack(among),
        }
        return {"words": words} | {name: one.float().cpu().numpy() for name, one in numbers.items()}

    def _logits(self, hidden: Tensor) -> Tensor:
        norm = self.vlm.model.get_submodule(self.vlm.anatomy.site("llm.norm").path)
        head: Any = self.vlm.model.get_output_embeddings()
        return head(norm(hidden[None]))[0, :, : self.vocabulary].float()

    def _cosines(self, hidden: Tensor) -> Tensor:
        vectors = self._embeddings[: self.vocabulary]
        hidden = hidden.to(vectors.device, vectors.dtype)
        dots = linear(hidden, vectors).float()
        sizes = hidden.float().norm(dim=-1, keepdim=True) * _norms(vectors)
        return dots / sizes.clamp(min=1e-12)

    @property
    def _embeddings(self) -> Tensor:
        embeddings: Any = self.vlm.model.get_input_embeddings()
        return embeddings.weight

    @property
    def _tokenizer(self) -> Any:
        return self.vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]


def _norms(vectors: Tensor) -> Tensor:
    """(vectors,) float32 lengths, without a copy of the vectors in that precision."""
    return torch.cat([lot.float().norm(dim=-1) for lot in vectors.split(16_384)])


def _best(values: Tensor, spellings: Spellings) -> Tensor:
    """(tokens,) value of the spelling that has most."""
    return values[:, list(spellings)].max(-1).values


def ranks_in(values: Tensor, own: Tensor, most: int) -> Tensor:
    """(tokens,) rank of `own` (tokens,), one of the values (tokens, values); equal ones share their ranks."""
    above, level = (values > own[:, None]).sum(-1), (values == own[:, None]).sum(-1)
    return (1 + above + (level - 1) / 2).clamp(max=most)


def _spellings(vlm: "VLM", name: str) -> Spellings:
    """First tokens of a name, but for a mere blank."""
    tokenizer: Any = vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    written = [f"{blank}{one}" for one in dict.fromkeys((name, name.lower())) for blank in ("", " ")]
    begun = [tokenizer(one, add_special_tokens=False)["input_ids"][0] for one in written]
    return tuple(sorted({token for token in begun if tokenizer.decode([token]).strip()} or {begun[0]}))
