"""Tables to fold out: what the model says when it chooses or speaks, and what image-only baselines see."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fgdiag.store import if_made
from fgdiag_probes.baselines import Baselines
from fgdiag_probes.fold import Fold
from fgdiag_probes.free_text import BY_WORDS as MATCHED_WORDS
from fgdiag_probes.free_text import GRAIN_WORDS, FreeText
from fgdiag_probes.multiple_choice import BY_WORDS as READ_WORDS
from fgdiag_probes.multiple_choice import MultipleChoice
from fgdiag_probes.style import LEVEL_NAMES, LEVEL_WORDS, minus, percent

if TYPE_CHECKING:
    import pandas as pd

    from fgdiag.store import Run

WORST = 8
"""Classes shown in which the VLM stays furthest behind."""
OF_WORDS = {"coarse": "kind", "fine": "class"}
"""What a row of theirs is."""


def said_folds(run: "Run") -> list[Fold]:
    """Every table of choices, texts and baselines that a run holds."""
    makers = (
        lambda: choice_folds(MultipleChoice.read(run)),
        lambda: text_folds(FreeText.read(run)),
        lambda: baseline_folds(Baselines.read(run)),
    )
    return [fold for make in makers for fold in if_made(make) or ()]


def choice_folds(found: MultipleChoice) -> list[Fold]:
    """How often the right option is chosen, and how the places of the options sway the choice."""
    right: dict[str, list[list[str]]] = {}
    for row in found.frame().to_dict("records"):
        cells = [READ_WORDS[row["by"]], *_accuracy(row), percent(row["chance"])]
        cells += [_points(row["between_orders"]), _points(row["between_wordings"])]
        right.setdefault(_level(row), []).append(cells)
    places: dict[str, list[list[str]]] = {}
    for row in found.positions().to_dict("records"):
        letter = "" if row["prior"] != row["prior"] else percent(row["prior"])
        sway = minus(f"{row['difference']:+.0f}") + " *" * (row["p_value"] < 0.05)
        cells = [READ_WORDS[row["by"]], row["position"], percent(row["chosen"]), letter, sway]
        places.setdefault(_level(row), []).append(cells)
    return [
        Fold(
            "Multiple choice",
            f"Which of a few class names is chosen, of {_asked(found)}; wrong options: {found.distractors}. The "
            "options stand at every place in turn; `orders together` takes each option's mean over all places.",
            (
                "read from",
                "right",
                "95 % interval",
                "chance",
                "standard deviation of orders (points)",
                "of wordings (points)",
            ),
            1,
            right,
        ).without_empty_columns(),
        Fold(
            "Multiple choice: which places are liked",
            "How often each place is chosen, where all are right equally often; the mean probability of its letter; "
            "and by how many points more is right where the right option stands there (* significant after Holm).",
            ("read from", "place", "chosen", "probability of its letter", "more right (points)"),
            2,
            places,
        ),
    ]


def text_folds(found: FreeText) -> list[Fold]:
    """How often the class is named in free text, and how exact the answers are."""
    right: dict[str, list[list[str]]] = {}
    for row in found.frame().to_dict("records"):
        errors = [str(row[name]) for name in ("false_positives", "false_negatives")]
        cells = [MATCHED_WORDS[row["by"]], *_accuracy(row), _points(row["between_wordings"])]
        right.setdefault(_level(row), []).append(cells + (errors if row["by"] == "substring" else ["", ""]))
    grains = [
        [LEVEL_WORDS[row["level"]], *(percent(row[grain]) for grain in GRAIN_WORDS)]
        for row in found.grain().to_dict("records")
    ]
    return [
        Fold(
            "Free text",
            f"Whether the class is named in the model's own words, of {_asked(found)}. The substring rule of "
            "arXiv 2405.18415 stands beside it, with the answers that it counts wrongly.",
            (
                "matched by",
                "right",
                "95 % interval",
                "standard deviation of wordings (points)",
                "wrongly counted",
                "wrongly missed",
            ),
            1,
            right,
        ).without_empty_columns(),
        Fold(
            "Free text: how exact the answers are",
            "Whatever is asked for, the class that is named first counts; shares of all answers.",
            ("asked for", *GRAIN_WORDS.values()),
            1,
            {"": grains},
        ),
    ]


def baseline_folds(found: Baselines) -> list[Fold]:
    """What image-only models name right, and where the VLM stays furthest behind."""
    table = found.frame()
    shown: dict[tuple[str, str, str], list[str]] = {}
    for row in table.to_dict("records"):
        shown.setdefault((row["model"], row["readout"], row["method"]), []).extend(_beside(row))
    heads: list[str] = []
    for row in table.drop_duplicates("level").to_dict("records"):
        name = LEVEL_NAMES[row["level"]]
        heads += [f"{name}, chance {percent(row['chance'])}", "more than the answer (points)"]
    first = Fold(
        "Image-only baselines",
        f"What is named right without the language model, of {len(found.labels.test)} test images, and by how many "
        "points more than in the model's answers; 95 % intervals.",
        ("model", "readout", "method", *heads),
        3,
        {"": [[*names, *cells] for names, cells in shown.items()]},
    )
    worst = found.worst(top=WORST)
    return [first, _worst(worst)] if len(worst) else [first]


def _worst(worst: "pd.DataFrame") -> Fold:
    first = worst.to_dict("records")[0]
    rows = [
        [
            *(str(row[name]) for name in ("of", "images", "fine_classes")),
            percent(row["accuracy"]),
            percent(row["vlm_accuracy"]),
            minus(f"{row['gap']:+.0f} ({row['low']:.0f} to {row['high']:.0f})"),
        ]
        for row in worst.to_dict("records")
    ]
    return Fold(
        "Where the model stays furthest behind an image-only baseline",
        f"{LEVEL_NAMES[first['level']].capitalize()}, against the best baseline: {first['model']}, {first['method']}.",
        (
            OF_WORDS[first["by"]],
            "test images",
            "fine classes",
            "baseline",
            "the model's answer",
            "gap (points)",
        ),
        1,
        {"": rows},
    )


def _beside(row: Mapping[Any, Any]) -> list[str]:
    """`74 % (68 to 80)` and the gap, where there is one."""
    score = f"{percent(row['accuracy'])} ({100 * row['low']:.0f} to {100 * row['high']:.0f})"
    if row["gap"] != row["gap"]:
        return [score, ""]
    return [score, minus(f"{row['gap']:+.0f} ({row['gap_low']:.0f} to {row['gap_high']:.0f})")]


def _level(row: Mapping[Any, Any]) -> str:
    return LEVEL_WORDS[row["level"]].capitalize()


def _accuracy(row: Mapping[Any, Any]) -> list[str]:
    return [percent(row["accuracy"]), f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %"]


def _asked(found: MultipleChoice | FreeText) -> str:
    count = len(set(found.table["row"]))
    if count == found.tested:
        return f"{count} test images"
    return f"{count} of {found.tested} test images, drawn evenly over classes"


def _points(spread: float) -> str:
    return "" if spread != spread else f"{100 * spread:.1f}"
