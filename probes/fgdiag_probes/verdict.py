"""The verdict: which stage loses the fine detail, in one sentence a reader can repeat."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import pandas as pd

from fgdiag.sites import ATTENTION, Site
from fgdiag_probes.curves import LayerCurves
from fgdiag_probes.depths import OWN, REFERENCE
from fgdiag_probes.verdict_words import (
    Row,
    blind,
    in_words,
    kind,
    lost,
    named_by,
    nothing_lost,
    numbers,
    others_say,
    read_by_another,
    rows_of,
    unstable,
)

if TYPE_CHECKING:
    from fgdiag_probes.stability import Stability

Stage = Literal["vision encoder", "projector", "language model", "answer", "none"]

HALFWAY = 0.5
"""An encoder no better than raw pixels is blamed only if it misses at least this share of the way from chance
to perfect: where even pixels tell the classes apart, there is little to add."""
LITTLE = 0.15
"""What an encoder may at most read above chance and raw pixels (upper end of the interval) to be called blind.
Not to see a gain among few classes is no proof that there is none."""
STEADY = 0.8
"""Share of other deals of the images that must name the same stage for a verdict to be called stable."""
OTHER_DEALS = (
    "Other deals of the images into training and test images, read without attention or network, name"
)

NOT_TESTED = (
    "use: whether the model relies on what a probe reads, which only an intervention shows",
    "other prompts and other wordings of the class names",
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

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> Self:
        """Read back what `json` gave."""
        lines: dict[str, Any] = {name: tuple(kept[name]) for name in ("numbers", "not_tested")}
        agreeing = kept.get("agreeing")
        return cls(kept["stage"], kept["sentence"], **lines, agreeing=agreeing and tuple(agreeing))

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
    words: pd.DataFrame,
    stability: "Stability | None" = None,
) -> Verdict:
    """Name the stage with the largest significant drop at the finest level that was not made good later.

    A drop that only the linear probe sees, and the network does not, yields to one that both see. The vision
    encoder is named where it never made the classes readable: what its probe reads above chance and above raw
    pixels is not significant, and little at most, while it misses over half of what there is to know; or where another
    image model, the reference, reads significantly more. The VLM's own encoder as the reference blames nobody, and
    neither does another one where no attention was learnt at the encoder, for it may be the same encoder by another
    name: what it reads from its class token and the mean of its patches, a better pooling may find in the patches.

    Parameters
    ----------
    drops, depths, words
        As in `LossBudget`.
    curves
        What they were made from.
    answered
        Whether the model's answers are the last depth.
    stability
        What other deals of the images say.
    """
    level = curves.labels.levels[0]
    at = {(row["level"], row["depth"]): row for row in rows_of(depths)}
    stage, largest = named(drops, depths, level)
    if largest is not None:
        sentence = lost(largest, at) + kind(largest, rows_of(drops), at)
    elif stage == "vision encoder":
        sentence = blind(at[level, "vision"], at.get((level, "pixels")))
    else:
        sentence = nothing_lost([row for row in rows_of(depths) if row["level"] == level])
    unsure = [row for row in _losses(drops, level) if not _blames(row, at)]
    others = [row for row in unsure if at[level, REFERENCE]["site"] != OWN]
    sentence += "".join(f" {read_by_another(row, at)}" for row in others)
    sentence += in_words(words, level) if answered else " The model's own answers were not tested."
    found = numbers(drops, depths, words, curves)
    agreeing = None
    if stability is not None:
        found = (*found, others_say(stability))
        counted = (stability.agreeing(stage), len(stability.stages))
        enough = counted[0] >= STEADY * counted[1]
        by_size, _ = named(drops.drop(columns="lost", errors="ignore"), depths, level)
        if by_size != stage or (largest is not None and _only_dealt_once(largest, at)):
            sentence += "" if enough else f" {OTHER_DEALS}: {named_by(stability)}."
        else:
            agreeing = counted
            sentence += "" if enough else f" {unstable(counted)}"
    missing = (*_not_dealt(stability, agreeing), *_not_tested(curves, answered, at))
    if answered and "multiple choice" not in set(words["way"]):
        missing = (*missing, "a choice among a few by letter (`fgdiag answer RUN --ask likelihood,choice`)")
    return Verdict(stage, sentence, found, missing, agreeing)


def named(drops: pd.DataFrame, depths: pd.DataFrame, level: str) -> tuple[Stage, Row | None]:
    """Return the stage that loses a level, and the drop that says so; see `judge`."""
    visions = [row for row in rows_of(depths) if (row["level"], row["depth"]) == (level, "vision")]
    if visions and _never_had_it(visions[0]):
        return "vision encoder", None
    at = {(row["level"], row["depth"]): row for row in rows_of(depths)}
    losses = [row for row in _losses(drops, level) if _blames(row, at)]
    if not losses:
        return "none", None
    largest = max(losses, key=lambda row: (row.get("lost", True), row["drop"]))
    return largest["stage"], largest


def _losses(drops: pd.DataFrame, level: str) -> list[Row]:
    """Significant drops of a level that nothing makes good."""
    ours = [row for row in rows_of(drops) if row["level"] == level]
    return [row for row in ours if row["significant"] and not row["made_good"]]


def _blames(drop: Row, at: Mapping[tuple[str, str], Row]) -> bool:
    """Whether a drop may name its stage; one from the reference may not always, see `judge`."""
    if drop["from"] != REFERENCE:
        return True
    reference, vision = at[drop["level"], REFERENCE], at[drop["level"], "vision"]
    return reference["site"] != OWN and bool(vision.get("attended", True))


def _never_had_it(vision: Row) -> bool:
    reached = (vision["accuracy"] - vision["chance"]) / (1 - vision["chance"])
    seen_to_gain = vision["above_chance"] and vision["above_pixels"]
    return not seen_to_gain and vision["gain_high"] < LITTLE and reached < HALFWAY


def _only_dealt_once(drop: Row, at: Mapping[tuple[str, str], Row]) -> bool:
    """Whether one end of a drop cannot be read on other deals: attention, and the image-only reference."""
    ends = [at[drop["level"], drop[end]] for end in ("from", "to")]
    return any(end["readout"] == ATTENTION or end["depth"] == REFERENCE for end in ends)


def _not_dealt(stability: "Stability | None", agreeing: tuple[int, int] | None) -> tuple[str, ...]:
    if stability is None:
        return ("other deals of the images: the verdict rests on one split into training and test images",)
    if agreeing is None:
        return (
            "this drop on other deals of the images: what it rests on (attention, a network or an image-only "
            "reference) is read on one split into training and test images",
        )
    return ()


def _not_tested(curves: LayerCurves, answered: bool, at: Mapping[tuple[str, str], Row]) -> tuple[str, ...]:
    missing = []
    if not answered:
        missing.append("the model's own answers")
    level = curves.labels.levels[0]
    for depth, stage in (("vision", "vision encoder"), ("projector", "projector")):
        if (level, depth) not in at:
            missing.append(
                f"the {stage} by itself: it is not recorded, so what it loses counts as a later loss"
            )
    if unseen := _unrecorded_end(curves):
        missing.append(unseen)
    if "coarse" not in curves.labels.levels:
        missing.append("whether a drop is specific to fine detail: the images have no coarse labels")
    if all(row["site"] == OWN for row in at.values() if row["depth"] == REFERENCE):
        missing.append(
            "another image model on the same images as a reference (`fgdiag baselines RUN --model NAME`)"
        )
    if not any(depth == "pixels" for _, depth in at):
        missing.append("raw pixels as a baseline: the run does not hold them")
    attended = {site for site, readout in curves.readings if readout == ATTENTION}
    if "vision" not in attended:
        there = " at the vision encoder" if attended else ""
        missing.append(
            f"a pooling that is learnt{there} (`--tokens`): detail in single tokens that their mean hides counts as "
            "lost"
        )
    if not any("nonlinear" in row for row in at.values()):
        missing.append("a non-linear reader: detail that only a non-linear probe can read counts as lost")
    if not curves.control.applies:
        missing.append(f"the control on tokens before the image. {curves.control.sentence}")
    return (*missing, *NOT_TESTED)


def _unrecorded_end(curves: LayerCurves) -> str | None:
    """Say which blocks of the language model follow the last that was recorded."""
    llm = sorted({Site.parse(site) for site, _ in curves.readings if Site.parse(site).part == "llm"})
    if not llm or llm[-1].index == "norm" or (curves.llm_blocks and llm[-1].index == curves.llm_blocks - 1):
        return None
    blocks = f"{curves.llm_blocks} blocks" if curves.llm_blocks else "blocks"
    return (
        f"the language model behind {llm[-1]}: {len(llm)} of its {blocks} were recorded, and what later ones "
        "lose counts as not said"
    )
