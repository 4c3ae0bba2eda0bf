"""Result objects as tables on a terminal."""

from fgdiag_probes import Answers, LayerCurves
from fgdiag_probes.style import LEVEL_NAMES, LEVEL_WORDS, percent

from fgdiag_cli.screen import print_table

ANSWER_HEADS = {
    "level": "level",
    "accuracy": "accuracy",
    "corrected": "prior-corrected",
    "blind": "without the image",
}


def print_curves(curves: LayerCurves) -> None:
    """Print accuracy by site and readout, a column a level, then the control."""
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
    print(f"Control: {curves.control.sentence}")


def print_answers(answers: Answers) -> None:
    """Print how often the model's own answer is right, a row a level."""
    table = answers.frame()
    heads = [ANSWER_HEADS[str(name)] for name in table.columns]
    rows = [
        [LEVEL_WORDS[level], *map(percent, accuracies)]
        for level, *accuracies in table.itertuples(index=False, name=None)
    ]
    print_table(f"The likeliest class name is right, of {len(answers.table)} test images", heads, rows)
