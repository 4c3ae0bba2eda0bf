"""Class names as a trie of tokens, so that what names have in common is run once.

"Granny Smith" and "Granny Apple" share a node, and a name's last token is read but never run. A whole trie is one
sequence: every node sees the prompt, its ancestors and itself, which is what its mask says (tree attention, as in
SpecInfer, Miao et al. 2024, arXiv 2305.09781).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Trie:
    """Some names, and every beginning of them that something follows.

    Attributes
    ----------
    names
        (index, tokens) of each name.
    nodes
        The beginnings, each behind those it begins with.
    """

    names: tuple[tuple[int, Tokens], ...]
    nodes: tuple[Tokens, ...]

    @property
    def tokens(self) -> list[int]:
        """Token that each node runs."""
        return [node[-1] for node in self.nodes]

    @property
    def depths(self) -> np.ndarray:
        """(nodes,) int64, 0 right behind the prompt."""
        return np.array([len(node) - 1 for node in self.nodes], np.int64)

    @cached_property
    def sees(self) -> np.ndarray:
        """(nodes, nodes) bool: whether the column is the row itself or begins it."""
        place, sees = self._place, np.eye(len(self.nodes), dtype=bool)
        for index, node in enumerate(self.nodes):
            if len(node) > 1:
                sees[index] |= sees[place[node[:-1]] - 1]
        return sees

    @cached_property
    def reads(self) -> np.ndarray:
        """(tokens of all names, 3) int64: index of the name, place the token is read at, token.

        Place 0 is the end of the prompt, place k + 1 is node k.
        """
        place = self._place
        return np.array(
            [(name, place[ids[:k]], token) for name, ids in self.names for k, token in enumerate(ids)]
        )

    @property
    def _place(self) -> dict[Tokens, int]:
        return {(): 0} | {node: index for index, node in enumerate(self.nodes, start=1)}


def tries(ids: Sequence[Tokens], most: int) -> Iterator[Trie]:
    """Share names out to tries of at most `most` nodes each, or one name each.

    Neighbours in alphabetical order, which share most, stay together; a node that two tries need is run in both.
    """
    names: list[tuple[int, Tokens]] = []
    nodes: set[Tokens] = set()
    for index in sorted(range(len(ids)), key=lambda index: ids[index]):
        own = {ids[index][:k] for k in range(1, len(ids[index]))}
        if names and len(nodes | own) > most:
            yield Trie(tuple(names), tuple(sorted(nodes)))
            names, nodes = [], set()
        names.append((index, ids[index]))
        nodes |= own
    yield Trie(tuple(names), tuple(sorted(nodes)))
