"""The verdict: which stage loses the fine detail, in one sentence a reader can repeat."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from fgdiag_probes.curves import ATTENTION, LayerCurves
from fgdiag_probes.linear import fits_in_words
from fgdiag_probes.style import percent

if TYPE_CHECKING:
    from fgdiag_probes.stability import Stability

Stage = Literal["vision encoder", "projector", "language model", "answer", "none"]
Row = Mapping[str, Any]

HALFWAY = 0.5
"""An encoder no better than raw pixels is blamed only if it misses at least this share of the way from chance
to perfect: where even pixels tell the classes apart, there is little to add."""
LITTLE = 0.15
"""What an encoder may at most read above chance and raw pixels (upper end of the interval) to be called blind.
Not to see a gain among few classes is no proof that there is none."""
STEADY = 0.8
"""Share of other deals of the images that must name the same stage for a verdict to be called stable."""

NOT_TESTED = (
    "use: whether the model relies on what a probe reads, which only an intervention shows",
    "other prompts and other wordings of the class names",
    "an image-only model on the same images as a reference",
)


@dataclass(frozen=True)
class Verdict:
    """Where the fine detail is lost.

    Attributes
    ----------
    stage
        The stage with the largest significant loss; `none` where there is none.
    sentence
        The verdict in words, with its numbers.
    numbers
        What it rests on, a line each.
    not_tested
        What could still overturn it, a line each.
    agreeing
        How many other deals of the images into training and test images name the same stage, and of how many;
        None where that was not tested, as for a verdict that rests on attention, which is learnt on one deal.
    """

    stage: Stage
    sentence: str
    numbers: tuple[str, ...]
    not_tested: tuple[str, ...]
    agreeing: tuple[int, int] | None = None

    def __str__(self) -> str:
        """Return the sentence."""
        return self.sentence

    @property
    def stable(self) -> bool:
        """Whether enough other deals agree, as far as that was tested."""
        return self.agreeing is None or self.agreeing[0] >= STEADY * self.agreeing[1]

    def json(self) -> dict[str, Any]:
        """Return the verdict as plain values."""
        return {
            "stage": self.stage,
            "sentence": self.sentence,
            "numbers": list(self.numbers),
            "not_tested": list(self.not_tested),
            "agreeing": self.agreeing and list(self.agreeing),
        }


def judge(
    drops: pd.DataFrame,
    depths: pd.DataFrame,
    curves: LayerCurves,
    *,
    answered: bool,
    stability: "Stability | None" = None,
) -> Verdict:
    """Name the stage with the largest significant drop at the finest level that was not made good later.

    A drop that only the linear probe sees, and the network does not, yields to one that both see. The vision
    encoder is named where it never made the classes readable: what its probe reads above chance and above raw
    pixels is not significant, and little at most, while it misses over half of what there is to know.

    Parameters
    ----------
    drops, depths
        As in `LossBudget`.
    curves
        What they were made from.
    answered
        Whether the model's answers are the last depth.
    stability
        What other deals of the images say.
    """
    level = curves.labels.levels[0]
    at = {(row["level"], row["depth"]): row for row in _rows(depths)}
    stage, largest = named(drops, depths, level)
    vision = at.get((level, "vision"))
    if stage == "vision encoder" and vision is not None:
        sentence = _blind(vision, at.get((level, "pixels")))
    elif largest is not None:
        sentence = _lost(largest, at) + _kind(largest, _rows(drops), at)
    else:
        chain = [row for row in _rows(depths) if row["level"] == level and row["depth"] != "pixels"]
        sentence = _nothing_lost(chain)
    if not answered:
        sentence += " The model's own answers were not tested."
    numbers = _numbers(drops, depths, curves)
    by_attention = largest is not None and ATTENTION in (
        at[level, largest["from"]]["readout"],
        at[level, largest["to"]]["readout"],
    )
    agreeing = None
    if stability is not None and by_attention and stability.agreeing(stage) < STEADY * len(stability.stages):
        sentence += (
            f" Other deals of the images into training and test images, read without attention, name: "
            f"{_named_by(stability)}."
        )
    elif stability is not None:
        agreeing = (stability.agreeing(stage), len(stability.stages))
    if stability is not None:
        numbers = (*numbers, _others_say(stability))
    missing = _not_tested(curves, answered, at, agreeing is not None)
    verdict = Verdict(stage, sentence, numbers, missing, agreeing)
    return verdict if verdict.stable else replace(verdict, sentence=f"{sentence} {_unstable(verdict)}")


def named(drops: pd.DataFrame, depths: pd.DataFrame, level: str) -> tuple[Stage, Row | None]:
    """Return the stage that loses a level, and the drop that says so; see `judge`."""
    visions = [row for row in _rows(depths) if (row["level"], row["depth"]) == (level, "vision")]
    if visions and _never_had_it(visions[0]):
        return "vision encoder", None
    losses = [
        row for row in _rows(drops) if row["level"] == level and row["significant"] and not row["made_good"]
    ]
    if not losses:
        return "none", None
    largest = max(losses, key=lambda row: (row.get("lost", True), row["drop"]))
    return largest["stage"], largest


def _rows(table: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]


def _never_had_it(vision: Row) -> bool:
    reached = (vision["accuracy"] - vision["chance"]) / (1 - vision["chance"])
    seen_to_gain = vision["above_chance"] and vision["above_pixels"]
    return not seen_to_gain and vision["gain_high"] < LITTLE and reached < HALFWAY


def _among(level: str) -> str:
    return "among look-alikes of the same kind, " if level == "fine|coarse" else ""


def _blind(vision: Row, pixels: Row | None) -> str:
    rival = (
        f"raw pixels give ({percent(pixels['accuracy'])})"
        if pixels is not None and vision["above_chance"]
        else f"chance ({percent(vision['chance'])})"
    )
    return (
        f"The vision encoder never had the fine detail in linearly readable form: {_among(vision['level'])}a "
        f"linear probe on what it hands to the projector names {percent(vision['accuracy'])} of test images "
        f"right (95 % interval {_span(vision)}), not significantly more than {rival}."
    )


def _lost(drop: Row, at: Mapping[tuple[str, str], Row]) -> str:
    before, after = at[drop["level"], drop["from"]], at[drop["level"], drop["to"]]
    readable = (
        f"{_among(drop['level'])}a linear probe names {percent(before['accuracy'])} of test images right "
        f"{_where(before)}"
    )
    fall = f"(a drop of {drop['drop']:.0f} points, 95 % interval {drop['low']:.0f} to {drop['high']:.0f})"
    if drop["stage"] == "answer":
        return (
            f"The model does not say the fine detail that its last layer still holds: {readable} but its "
            f"own answer, the most likely class name, is right for {percent(after['accuracy'])} {fall}"
        )
    if not drop.get("lost", True):
        return (
            f"The {drop['stage']} makes the fine detail harder to read, but does not lose it: {readable} and "
            f"{percent(after['accuracy'])} {_where(after)} {fall}, while a small network still names "
            f"{percent(after['nonlinear'])} there"
        )
    return (
        f"The {drop['stage']} loses the fine detail: {readable} but {percent(after['accuracy'])} "
        f"{_where(after)} {fall}"
    )


def _where(depth: Row) -> str:
    if depth["depth"] == "vision" and depth["readout"] == "cls":
        return "in the class token of the vision encoder"
    pooled = " (attention over its tokens)" if depth["readout"] == ATTENTION else ""
    return {
        "vision": f"at the output of the vision encoder{pooled}",
        "projector": f"at the projector{pooled}",
        "best llm layer": f"at the language model's best layer ({depth['site']})",
        "last llm layer": "at the language model's last layer",
        "answer": "in its own answers",
    }[depth["depth"]]


def _kind(drop: Row, drops: list[Row], at: Mapping[tuple[str, str], Row]) -> str:
    """Whether the drop is specific to the fine classes, on a scale from chance (0) to perfect (1)."""
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
        return f", while the kind itself stays readable {span}."
    fine_fall = drop["drop"] / (1 - at[drop["level"], drop["from"]]["chance"])
    if coarse["drop"] / (1 - before["chance"]) < fine_fall:
        return f", while the kind itself falls less {span}."
    return f"; this is not specific to fine detail, for the kind itself falls as much {span}."


def _nothing_lost(chain: list[Row]) -> str:
    answer = [row for row in chain if row["depth"] == "answer"]
    probed = [f"{percent(row['accuracy'])} {_where(row)}" for row in chain if row["depth"] != "answer"]
    said = f", and the model's own answer is right for {percent(answer[0]['accuracy'])}" if answer else ""
    return (
        f"No stage loses the fine detail beyond what luck explains: {_among(chain[0]['level'])}a linear "
        f"probe names right {', '.join(probed)}{said}."
    )


def _span(row: Row) -> str:
    return f"{100 * row['low']:.0f} to {100 * row['high']:.0f}"


def _numbers(drops: pd.DataFrame, depths: pd.DataFrame, curves: LayerCurves) -> tuple[str, ...]:
    lines = []
    for level in curves.labels.levels:
        lines += [_depth_line(row) for row in _rows(depths) if row["level"] == level]
        lines += [_drop_line(row) for row in _rows(drops) if row["level"] == level]
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
        f"; with a small network {row['drop_nonlinear']:.1f} ({row['low_nonlinear']:.1f} to "
        f"{row['high_nonlinear']:.1f})"
        if "drop_nonlinear" in row
        else ""
    )
    return (
        f"{row['level']}, {row['from']} to {row['to']}: a drop of {row['drop']:.1f} points, 95 % interval "
        f"{row['low']:.1f} to {row['high']:.1f}, {word}{good}{network}"
    )


def _unstable(verdict: Verdict) -> str:
    agreeing, deals = verdict.agreeing or (0, 0)
    return (
        f"This verdict is not stable: of {deals} other deals of the images into training and test images, "
        f"{agreeing} agree."
    )


def _named_by(stability: "Stability") -> str:
    counts = Counter(stability.stages).most_common()
    return ", ".join(f"{name} ({count} of {len(stability.stages)})" for name, count in counts)


def _others_say(stability: "Stability") -> str:
    spread = ", ".join(
        f"{row['depth']} {100 * row['accuracy']:.0f} ± {100 * row['spread']:.1f} %"
        for row in _rows(stability.frame())
        if row["depth"] != "pixels"
    )
    return (
        f"stability: {len(stability.stages)} other deals of the images into training and test images, read from the "
        f"recorded readouts, name: {_named_by(stability)}; accuracy and standard deviation between deals: {spread}"
    )


def _not_tested(
    curves: LayerCurves, answered: bool, at: Mapping[tuple[str, str], Row], dealt_anew: bool
) -> tuple[str, ...]:
    missing = []
    if not answered:
        missing.append("the model's own answers")
    if "coarse" not in curves.labels.levels:
        missing.append("whether a drop is specific to fine detail: the images have no coarse labels")
    if not dealt_anew:
        missing.append(
            "other deals of the images: the verdict rests on one split into training and test images"
        )
    if not any(depth == "pixels" for _, depth in at):
        missing.append("raw pixels as a baseline: the run does not hold them")
    if not any(readout == ATTENTION for _, readout in curves.readings):
        missing.append(
            "a pooling that is learnt (`--tokens`): detail in single tokens that their mean hides counts as lost"
        )
    if not any("nonlinear" in row for row in at.values()):
        missing.append("a non-linear reader: detail that only a non-linear probe can read counts as lost")
    if not curves.control.applies:
        missing.append(f"the control on tokens before the image. {curves.control.sentence}")
    return (*missing, *NOT_TESTED)
