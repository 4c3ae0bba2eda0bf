"""Result objects as tables on a terminal."""

from fgdiag_probes import Answers, LayerCurves
from fgdiag_probes.closer_look import READERS, selectivity
from fgdiag_probes.evidence import Evidence
from fgdiag_probes.few_images import SHOTS
from fgdiag_probes.style import LEVEL_NAMES, LEVEL_WORDS, percent

from fgdiag_cli.screen import print_table

ANSWER_HEADS = {
    "level": "level",
    "accuracy": "accuracy",
    "mean": "mean per token",
    "corrected": "prior-corrected",
    "blind": "without the image",
}


def print_curves(curves: LayerCurves) -> None:
    """Print accuracy by site and readout, a column a level."""
    table = curves.frame()
    cells: dict[tuple[str, str], list[str]] = {}
    for row in table.to_dict("records"):
        text = f"{percent(row['accuracy'])} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
        cells.setdefault((row["site"], row["readout"]), []).append(text)
    chances = table.drop_duplicates("level")
    heads = [
        f"{LEVEL_NAMES[row['level']]} (chance {percent(row['chance'])})" for row in chances.to_dict("records")
    ]
    tested = len(curves.labels.test)
    print_table(
        f"Accuracy of linear probes on {tested} test images, 95 % intervals",
        ["site", "readout", *heads],
        [[*place, *scores] for place, scores in cells.items()],
    )


def print_evidence(evidence: Evidence, curves: LayerCurves) -> None:
    """Print what other readers and less data show, a row a level and depth, then the two controls."""
    readers = evidence.frame()
    rows = [
        [
            LEVEL_NAMES[row["level"]],
            row["depth"],
            f"{row['site']}, {row['readout']}",
            *(percent(row[reader]) for reader in READERS),
            ", ".join(percent(row[f"few_{shots}"]).removesuffix(" %") for shots in SHOTS) + " %",
            f"{row['codelength']:.2f} of {row['uniform']:.2f}",
            f"{selectivity(curves, (row['site'], row['readout'])):.0f}" if row["level"] == "coarse" else "",
        ]
        for row in readers.to_dict("records")
    ]
    heads = (
        "level",
        "depth",
        "read from",
        "linear",
        "network",
        "nearest",
        f"width {int(readers['width'].iloc[0])}",
        ", ".join(map(str, SHOTS)),
        "bits",
        "selectivity",
    )
    print_table(
        "A closer look at the depths: test images named right by a linear probe, a small network, nearest neighbours, "
        f"the linear probe cut to the least width of all, and after {', '.join(map(str, SHOTS))} images a class;\n"
        "codelength in bits an image, of those it takes without the image; selectivity in points",
        heads,
        rows,
    )
    for control in (curves.control, evidence.shuffled):
        print(f"Control: {control.sentence}")


def print_answers(answers: Answers) -> None:
    """Print how often the model's own answer is right, a row a level."""
    table = answers.frame()
    heads = [ANSWER_HEADS[str(name)] for name in table.columns]
    rows = [
        [LEVEL_WORDS[level], *map(percent, accuracies)]
        for level, *accuracies in table.itertuples(index=False, name=None)
    ]
    print_table(f"The likeliest class name is right, of {len(answers.table)} test images", heads, rows)
