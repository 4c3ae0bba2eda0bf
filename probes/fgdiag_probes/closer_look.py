"""What other readers, controls and other deals of the images show, as tables of words: those that fold out."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fgdiag.sites import ATTENTION
from fgdiag_probes.few_images import SHOTS
from fgdiag_probes.fold import Fold
from fgdiag_probes.style import LEVEL_WORDS, minus, percent, read_from

if TYPE_CHECKING:
    import pandas as pd

    from fgdiag_probes import Answers, LayerCurves
    from fgdiag_probes.curves import Place
    from fgdiag_probes.evidence import Evidence
    from fgdiag_probes.stability import Stability

DEPTH_WORDS = {
    "pixels": "raw pixels",
    "vision": "vision encoder",
    "projector": "projector",
    "best llm layer": "best LLM layer",
    "last llm layer": "last LLM layer",
    "answer": "answer",
}
READERS = ("linear", "network", "nearest", "matched")
"""Columns of `Evidence.readers`."""


def folds(
    curves: "LayerCurves", evidence: "Evidence", stability: "Stability", answers: "Answers | None"
) -> list[Fold]:
    """Return every table that there is something to show in."""
    found = [
        _readers(evidence.readers, curves),
        _selectivity(curves, evidence.readers),
        _deals(stability, curves),
        _projector(evidence),
        _answers(answers),
    ]
    return [fold for fold in found if fold]


def selectivity(curves: "LayerCurves", place: "Place") -> float:
    """Points of accuracy by which a place names the coarse classes better than random kinds."""
    return 100 * curves.row("coarse", place)["selectivity"]


def _readers(readers: "pd.DataFrame", curves: "LayerCurves") -> Fold:
    apart = ", attention apart" if _attends(curves) else ""
    ways = (*READERS, *(f"few_{shots}" for shots in SHOTS))
    rows: dict[str, list[list[str]]] = {}
    for row in readers.to_dict("records"):
        cells = [DEPTH_WORDS[row["depth"]], _place(row), *(percent(row[way]) for way in ways)]
        cells += [f"{row['codelength']:.2f} of {row['uniform']:.2f}", f"{row['compression']:.1f}"]
        rows.setdefault(LEVEL_WORDS[row["level"]].capitalize(), []).append(cells)
    return Fold(
        "Other readers, and less data",
        "What only the small network or the nearest neighbours read is still there, but not in linear form, and what "
        "takes few images or few bits is easy to read. The recorded readout that is best on training images speaks for "
        f"a depth{apart}. Shares are of test images named right; codelength is what it takes to send a training label, "
        "out of what it takes without the image, and compression how many times shorter that is.",
        (
            "depth",
            "read from",
            "linear probe",
            "small network",
            "nearest neighbours",
            f"linear, {int(readers['width'].iloc[0])} dimensions",
            *(f"linear, {shots} image{'s' * (shots > 1)} a class" for shots in SHOTS),
            "codelength (bits an image)",
            "compression (times)",
        ),
        2,
        rows,
    )


def _selectivity(curves: "LayerCurves", readers: "pd.DataFrame") -> Fold | None:
    if "coarse" not in curves.labels.levels:
        return None
    at_depths = readers.drop_duplicates("depth").to_dict("records")
    pixels = [{"depth": "pixels", "site": "pixels", "readout": "image"}]
    rows = []
    for row in [*(pixels if ("pixels", "image") in curves.readings else []), *at_depths]:
        place = (row["site"], row["readout"])
        scores = curves.row("coarse", place)
        shown = [percent(scores["accuracy"]), percent(scores["control"])]
        rows.append(
            [DEPTH_WORDS[row["depth"]], _place(row), *shown, minus(f"{selectivity(curves, place):+.0f}")]
        )
    return Fold(
        "Selectivity",
        "A probe that could learn anything by heart would also name random kinds, made by dealing out the fine classes "
        "by lot (the control task of Hewitt & Liang, 2019); by how many points it names the real kinds better is "
        "what the model itself has sorted.",
        ("depth", "read from", "real kinds named", "random kinds named", "selectivity (points)"),
        2,
        {"": rows},
    )


def _deals(stability: "Stability", curves: "LayerCurves") -> Fold:
    counts = Counter(stability.stages).most_common()
    said = ", ".join(f"{stage} {count}" for stage, count in counts)
    without = (
        " Attention is left out here: it would have to be learnt anew for each deal."
        if _attends(curves)
        else ""
    )
    rows = [
        [DEPTH_WORDS[row["depth"]], percent(row["accuracy"]), f"{100 * row['spread']:.1f}"]
        for row in stability.frame().to_dict("records")
    ]
    return Fold(
        "Other deals of the images",
        f"All images were dealt into training and test images {len(stability.stages)} more times, and each deal was "
        f"judged by itself; a verdict that hangs on one deal is luck. Stages named (deals): {said}.{without}",
        ("depth", "test images named right, mean of deals", "standard deviation between deals (points)"),
        1,
        {"": rows},
    )


def _projector(evidence: "Evidence") -> Fold | None:
    overlap, rebuilt = evidence.overlap, evidence.rebuilt
    if overlap is None or rebuilt is None:
        return None
    stay = f"of the {overlap.neighbours} nearest among {overlap.images:,} images, those still nearest"
    again = f"variance of the encoder's vectors that can be rebuilt linearly, on {rebuilt.test:,} test images"
    return Fold(
        "What the projector keeps",
        "Without any label: whether images that are alike for the encoder are still alike behind the projector, and "
        "how much of what the encoder put out can be computed back (measures of Li et al., 2025).",
        ("measure", "kept", "95 % interval", "chance"),
        1,
        {
            "": [
                [stay, percent(overlap.overlap), _span(overlap.low, overlap.high), percent(overlap.chance)],
                [again, percent(rebuilt.share), _span(rebuilt.low, rebuilt.high), percent(rebuilt.chance)],
            ]
        },
    )


def _answers(answers: "Answers | None") -> Fold | None:
    """What the model says, where it also was asked without an image."""
    table = answers.frame() if answers else None
    if table is None or "blind" not in table:
        return None
    shares = table.set_index("level")[["accuracy", "blind", "corrected"]]
    rows = [
        [words, *map(percent, shares.loc[level])]
        for level, words in LEVEL_WORDS.items()
        if level in shares.index
    ]
    return Fold(
        "The model's answers, without the image and corrected for it",
        "Some names are likely whatever the picture shows: right without the image is what the model gains by such "
        "habits, and corrected takes as much of them off as helps on training images.",
        ("level", "right", "right without the image", "right when corrected"),
        1,
        {"": rows},
    )


def _place(row: Mapping[Any, Any]) -> str:
    return f"{row['site']}: {read_from(row['site'], row['readout'])}"


def _attends(curves: "LayerCurves") -> bool:
    return any(readout == ATTENTION for _, readout in curves.readings)


def _span(low: float, high: float) -> str:
    return f"{100 * low:.0f} to {100 * high:.0f} %"
