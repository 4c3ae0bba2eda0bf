"""Runs compared in words: what each chooses or says, where two models were asked the very same questions."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from fgdiag.store import if_made
from fgdiag_probes.comparable import Side, outcome
from fgdiag_probes.drops import SIGNIFICANT
from fgdiag_probes.free_text import FreeText
from fgdiag_probes.intervals import clustered_means, holm
from fgdiag_probes.multiple_choice import MultipleChoice
from fgdiag_probes.words import Way

QUESTION = ["image", "level", "prompt"]
"""What makes two questions the same; the options stand in the prompt of a choice."""
COLUMNS = [
    *("level", "run", "first", "way", "accuracy_first", "accuracy"),
    *("difference", "low", "high", "p_value", "significant", "differing", "images", "outcome"),
]


def differences_in_words(sides: Sequence[Side], ids: pd.Index) -> pd.DataFrame:
    """Compare every run with the first by the questions that both were asked.

    Parameters
    ----------
    sides
        The runs, the one that others are compared with first.
    ids
        Images that all runs test.

    Returns
    -------
    DataFrame
        One row a level, run but the first, and `way` of answering: `accuracy_first` and `accuracy` in [0, 1], the
        `difference` in points with its 95 % interval (`low`, `high`; paired, clustered by fine class), `p_value`
        (Holm-corrected over levels and ways of the run), `significant`, `differing`: on how many of the `images` that
        were asked about the two do not do equally well, and the `outcome` in a word or two.
        A choice is read from the likeliest letter where both models tell how likely letters are, or else from text.
    """
    first, *others = sides
    tables = [_against(first, other, ids) for other in others]
    return pd.concat(
        [table for table in tables if len(table)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True
    )


def _against(first: Side, other: Side, ids: pd.Index) -> pd.DataFrame:
    rows: list[dict[str, Any]] = [
        {"level": level, "run": other.name, "first": first.name, "way": way, **_difference(shared)}
        for way, asked in _both_asked(first, other, ids)
        for level, shared in asked.groupby("level", sort=False)
    ]
    corrected = holm(np.array([row["p_value"] for row in rows], float))
    for row, p_value in zip(rows, corrected, strict=True):
        row |= {"p_value": float(p_value), "significant": bool(p_value < SIGNIFICANT)}
        row["outcome"] = outcome(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _both_asked(first: Side, other: Side, ids: pd.Index) -> Iterator[tuple[Way, pd.DataFrame]]:
    """Questions that both were asked in one way, with what was `right` in the first and in the `other`."""
    choices = [if_made(partial(MultipleChoice.read, side.run)) for side in (first, other)]
    told = all(found is not None and "letters" in found.ways for found in choices)
    texts = [if_made(partial(FreeText.read, side.run)) for side in (first, other)]
    ways: tuple[tuple[Way, list[pd.DataFrame]], ...] = (
        ("multiple choice", [_chosen(found, told) for found in choices if found]),
        ("free text", [found.table.assign(hit=found.table["words"]) for found in texts if found]),
    )
    for way, tables in ways:
        if len(tables) == 2:
            one, two = (_questions(side, table) for side, table in zip((first, other), tables, strict=True))
            shared = one.merge(two, on=QUESTION, suffixes=("", "_other"))
            yield way, shared.loc[np.isin(shared["image"].to_numpy(str), ids.to_numpy(str))]


def _chosen(found: MultipleChoice, by_letters: bool) -> pd.DataFrame:
    place = found.table["by_letters" if by_letters else "by_text"]
    return found.table.assign(hit=place == found.table["right"])


def _questions(side: Side, table: pd.DataFrame) -> pd.DataFrame:
    image = side.run.images["id"].to_numpy(str)[table["row"].to_numpy()]
    asked = table.loc[:, ["level", "prompt", "fine"]]
    return asked.assign(image=image, right=table["hit"].to_numpy(float)).drop_duplicates(QUESTION)


def _difference(shared: pd.DataFrame) -> dict[str, Any]:
    by_image = shared.pivot_table(["right", "right_other"], ["image", "fine"]).reset_index()
    first, other = by_image["right"].to_numpy(float), by_image["right_other"].to_numpy(float)
    found = clustered_means(100 * (other - first)[None], by_image["fine"].to_numpy(str), step=100.0)
    return {
        "accuracy_first": float(first.mean()),
        "accuracy": float(other.mean()),
        "difference": float(found.mean[0]),
        "low": float(found.low[0]),
        "high": float(found.high[0]),
        "p_value": float(found.p_value[0]),
        "differing": int((first != other).sum()),
        "images": len(first),
    }
