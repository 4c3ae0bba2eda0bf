"""The verdict in words: sentences a reader can repeat, and the numbers they rest on, a line each."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from fgdiag.sites import ATTENTION
from fgdiag_probes.curves import LayerCurves
from fgdiag_probes.depths import REFERENCE
from fgdiag_probes.linear import fits_in_words
from fgdiag_probes.style import percent

if TYPE_CHECKING:
    from fgdiag_probes.stability import Stability

Row = Mapping[str, Any]

SMALL = 5.0
"""Points a second drop may have at most, at the upper end of its interval, to be called none beside a first one.
Not to see a drop is no proof that there is none."""
SMALL_SHARE = 0.5
"""The same as a share of the first drop, which may be small itself."""


def rows_of(table: pd.DataFrame) -> list[Row]:
    """Rows of a table, each by column."""
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _among(level: str) -> str:
    return "among look-alikes of the same kind, " if level == "fine|coarse" else ""


def blind(vision: Row, pixels: Row | None) -> str:
    """Say that the encoder never made the classes readable."""
    rival = (
        f"raw pixels give ({percent(pixels['accuracy'])})"
        if pixels is not None and vision["above_chance"]
        else f"chance ({percent(vision['chance'])})"
    )
    return (
        f"The vision encoder never had the fine detail in linearly readable form: {_among(vision['level'])}"
        f"{_probe(vision)} on what it hands to the projector names {percent(vision['accuracy'])} of test images "
        f"right (95 % interval {_span(vision)}), not significantly more than {rival}."
    )


def lost(drop: Row, at: Mapping[tuple[str, str], Row]) -> str:
    """Say which stage loses the detail, between which two places, and how much."""
    before, after = at[drop["level"], drop["from"]], at[drop["level"], drop["to"]]
    fall = _fall(drop)
    if drop["from"] == REFERENCE:
        return (
            f"The vision encoder does not hand on fine detail that the images hold: {_among(drop['level'])}"
            f"{before['site']} ({before['readout']}) names {percent(before['accuracy'])} of test images right, but "
            f"{_probe(after)} {percent(after['accuracy'])} {_where(after)} {fall}"
        )
    readable = (
        f"{_among(drop['level'])}{_probe(before)} names {percent(before['accuracy'])} of test images right "
        f"{_where(before)}"
    )
    if drop["stage"] == "answer":
        return (
            f"The model does not say the fine detail that its {_last(before)} still holds: {readable} but its "
            f"own answer, the most likely class name, is right for {percent(after['accuracy'])} {fall}"
        )
    if not drop.get("lost", True):
        lost_too = (
            ", but does not lose it"
            if _is_small(drop["high_nonlinear"], drop)
            else "; whether it is lost too is not seen"
        )
        return (
            f"The {drop['stage']} makes the fine detail harder to read{lost_too}: {readable} and "
            f"{_and_then(before, after)} {fall}, but with the better of probe and small network "
            f"the drop is {drop['drop_nonlinear']:.1f} points ({drop['low_nonlinear']:.1f} to "
            f"{drop['high_nonlinear']:.1f}){_still_named(after)}"
        )
    return f"The {drop['stage']} loses the fine detail: {readable} but {_and_then(before, after)} {fall}"


def _still_named(after: Row) -> str:
    if not after.get("by_network"):
        return ""
    return f", for a small network still names {percent(after['nonlinear'])} there"


def _is_small(high: float, drop: Row) -> bool:
    """Whether a drop whose interval ends at `high` points is next to nothing beside another drop."""
    return high < min(SMALL, SMALL_SHARE * drop["drop"])


def read_by_another(drop: Row, at: Mapping[tuple[str, str], Row]) -> str:
    """Say that another image model reads more than what the encoder hands on was seen to hold, which blames nobody."""
    reference, vision = at[drop["level"], drop["from"]], at[drop["level"], drop["to"]]
    pooled = "class token" if vision["readout"] == "cls" else "mean"
    return (
        f"{reference['site']} ({reference['readout']}) names {percent(reference['accuracy'])} of test images right, "
        f"where a linear probe on the {pooled} of what the vision encoder hands on names "
        f"{percent(vision['accuracy'])} {_fall(drop)}; a better pooling may find the rest in its tokens."
    )


def _fall(drop: Row) -> str:
    return f"(a drop of {drop['drop']:.0f} points, 95 % interval {drop['low']:.0f} to {drop['high']:.0f})"


def _and_then(before: Row, after: Row) -> str:
    """What is read at a second depth, with its probe where that is of another sort."""
    probe = "" if _probe(before) == _probe(after) else f"{_probe(after)} "
    return f"{probe}{percent(after['accuracy'])} {_where(after)}"


def _probe(depth: Row) -> str:
    return "a probe with learnt attention" if depth["readout"] == ATTENTION else "a linear probe"


def _where(depth: Row) -> str:
    if depth["depth"] == "vision" and depth["readout"] == "cls":
        return "in the class token of the vision encoder"
    return {
        "vision": "at the output of the vision encoder",
        "projector": "at the projector",
        "best llm layer": f"at the language model's best layer ({depth['site']})",
        "last llm layer": f"at the language model's {_last(depth)}",
        "answer": "in its own answers",
    }[depth["depth"]]


def _last(depth: Row) -> str:
    """Only the final norm is known to have no layer behind it; others are the last that was recorded."""
    return "last layer" if depth["site"] == "llm.norm" else f"last recorded layer ({depth['site']})"


def kind(drop: Row, drops: Sequence[Row], at: Mapping[tuple[str, str], Row]) -> str:
    """What the kind does where the fine classes drop: it stays, falls less, falls too, or is not seen to do any."""
    between = (drop["from"], drop["to"])
    same = [row for row in drops if row["level"] == "coarse" and (row["from"], row["to"]) == between]
    if not same:
        return "."
    coarse = same[0]
    before, after = at["coarse", coarse["from"]], at["coarse", coarse["to"]]
    span = f"({percent(before['accuracy'])} to {percent(after['accuracy'])})"
    if not before["above_chance"]:
        return f", and the kind itself was not readable either {span}."
    if not coarse["significant"]:
        if _is_small(coarse["high"], drop):
            return f", while the kind itself stays readable {span}."
        return f"; whether the kind falls too is not seen {span}."
    fine_chance = at[drop["level"], drop["from"]]["chance"]
    if coarse["high"] / (1 - before["chance"]) < drop["low"] / (1 - fine_chance):
        return f", while the kind itself falls less {span}."
    return f"; this is not specific to fine detail alone, for the kind itself falls too {span}."


def nothing_lost(chain: Sequence[Row]) -> str:
    """Say that no stage loses anything, and what each depth of the model reads."""
    answer = [row for row in chain if row["depth"] == "answer"]
    aside = ("pixels", REFERENCE, "answer")
    probed = [row for row in chain if row["depth"] not in aside]
    first = f"{_probe(probed[0])} names right {percent(probed[0]['accuracy'])} {_where(probed[0])}"
    later = "".join(f", {_and_then(*two)}" for two in pairwise(probed))
    said = f", and the model's own answer is right for {percent(answer[0]['accuracy'])}" if answer else ""
    return (
        f"No stage is seen to lose the fine detail beyond what luck explains: {_among(chain[0]['level'])}"
        f"{first}{later}{said}."
    )


def _span(row: Row) -> str:
    return f"{100 * row['low']:.0f} to {100 * row['high']:.0f}"


def in_words(words: pd.DataFrame, level: str) -> str:
    """Say what is lost when the model must choose a letter or speak, as far as it is beyond luck."""
    found = [row for row in rows_of(words) if row["level"] == level and row["significant"]]
    return "".join(f" {_said(row)}" for row in found)


def _said(row: Row) -> str:
    doing = "In free text" if row["way"] == "free text" else "Choosing one of a few by its letter"
    return (
        f"{doing} it is right for {percent(row['accuracy'])}, where the likelihoods of the same names are for "
        f"{percent(row['by_likelihood'])} (a drop of {row['drop']:.0f} points, 95 % interval {row['low']:.0f} to "
        f"{row['high']:.0f})."
    )


def numbers(
    drops: pd.DataFrame, depths: pd.DataFrame, words: pd.DataFrame, curves: LayerCurves
) -> tuple[str, ...]:
    """Return the numbers that a verdict rests on, a line each."""
    lines = []
    for level in curves.labels.levels:
        lines += [_depth_line(row) for row in rows_of(depths) if row["level"] == level]
        lines += [_drop_line(row) for row in rows_of(drops) if row["level"] == level]
        lines += [_words_line(row) for row in rows_of(words) if row["level"] == level]
    if ("vision", "cls") in curves.readings and not curves.class_token_fed:
        alone = curves.row(curves.labels.levels[0], ("vision", "cls"))
        lines.append(
            f"the encoder's class token, which the projector is not fed: {percent(alone['accuracy'])} "
            f"right, {alone['level']}"
        )
    lines.append(f"control: {curves.control.sentence}")
    lines.append(f"fits: {fits_in_words(curves.table)}")
    return tuple(lines)


def _depth_line(row: Row) -> str:
    return (
        f"{row['level']}, {row['depth']} ({row['site']}, {row['readout']}): {percent(row['accuracy'])} "
        f"right, 95 % interval {_span(row)}, chance {percent(row['chance'])}, {row['bits']:.2f} bits, "
        f"{row['images']} images"
    )


def _drop_line(row: Row) -> str:
    word = "significant" if row["significant"] else "noise" if row["drop"] > 0 else "no drop"
    good = ", made good later" if row["significant"] and row["made_good"] else ""
    network = (
        f"; with the better of probe and small network {row['drop_nonlinear']:.1f} ({row['low_nonlinear']:.1f} to "
        f"{row['high_nonlinear']:.1f})"
        if row.get("by_network")
        else ""
    )
    return (
        f"{row['level']}, {row['from']} to {row['to']}: a drop of {row['drop']:.1f} points, 95 % interval "
        f"{row['low']:.1f} to {row['high']:.1f}, {word}{good}{network}"
    )


def _words_line(row: Row) -> str:
    bits = "" if pd.isna(row["drop_bits"]) else f", {row['drop_bits']:.2f} bits"
    return (
        f"{row['level']}, {row['way']}: {percent(row['accuracy'])} right, the likelihood at the same question "
        f"{percent(row['by_likelihood'])}, chance {percent(row['chance'])}; a drop of {row['drop']:.1f} points, 95 % "
        f"interval {row['low']:.1f} to {row['high']:.1f}{bits}, {row['images']} images"
    )


def unstable(agreeing: tuple[int, int]) -> str:
    """Say that too few other deals of the images agree: how many, of how many."""
    agree, deals = agreeing
    return (
        f"This verdict is not stable: of {deals} other deals of the images into training and test images, "
        f"{agree} agree."
    )


def named_by(stability: "Stability") -> str:
    """Say which stages other deals name."""
    counts = Counter(stability.stages).most_common()
    return ", ".join(f"{name} ({count} of {len(stability.stages)})" for name, count in counts)


def _between(counts: np.ndarray) -> str:
    least, most = counts.min(), counts.max()
    return f"{least}" if least == most else f"{least} to {most}"


def others_say(stability: "Stability") -> str:
    """Say all that other deals show."""
    spread = ", ".join(
        f"{row['depth']} {100 * row['accuracy']:.0f} ± {100 * row['spread']:.1f} %"
        for row in rows_of(stability.frame())
        if row["depth"] != "pixels"
    )
    answer = stability.table["depth"].to_numpy() == "answer"
    images = stability.table["images"].to_numpy()
    aside = f" (the answer on {_between(images[answer])} of them)" if answer.any() else ""
    return (
        f"stability: {len(stability.stages)} other deals of the images into training and test images, read from the "
        f"recorded readouts on {_between(images[~answer])} test images each{aside}, name: {named_by(stability)}; "
        f"accuracy and standard deviation between deals: {spread}"
    )
