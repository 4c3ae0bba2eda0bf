"""A table of words with what it shows in a sentence: the same on a terminal, in the report and in the explorer."""

from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True)
class Fold:
    """A table to fold out.

    Attributes
    ----------
    title, sentence
        What it shows, in some words and in a sentence.
    heads
        Names of the columns.
    words
        How many columns hold words; those after them hold numbers.
    rows
        Cells by the heading above them; a heading may be empty.
    """

    title: str
    sentence: str
    heads: tuple[str, ...]
    words: int
    rows: dict[str, list[list[str]]]

    def without_empty_columns(self) -> Self:
        """The same without columns that no row fills."""
        every = [row for rows in self.rows.values() for row in rows]
        kept = [i for i in range(len(self.heads)) if any(row[i] for row in every)]
        return replace(
            self,
            heads=tuple(self.heads[i] for i in kept),
            words=sum(i < self.words for i in kept),
            rows={level: [[row[i] for i in kept] for row in rows] for level, rows in self.rows.items()},
        )
