"""Result objects as tables on a terminal."""

from typing import Any

from fgdiag_probes import LayerCurves
from fgdiag_probes.style import percent

from fgdiag_cli.screen import print_table


def print_curves(curves: LayerCurves) -> None:
    """Print accuracy by site and readout, a column a level, then the control."""
    table = curves.frame()
    cells: dict[tuple[str, str], list[str]] = {}
    for row in table.to_dict("records"):
        text = f"{percent(row['accuracy'])} ({100 * row['low']:.0f}-{100 * row['high']:.0f})"
        cells.setdefault((row["site"], row["readout"]), []).append(text)
    chances = table.drop_duplicates("level")
    heads = [f"{row['level']} (chance {percent(row['chance'])})" for row in chances.to_dict("records")]
    tested = int(table["images"].max())
    print_table(
        f"Accuracy of linear probes on {tested} test images, 95 % intervals",
        ["site", "readout", *heads],
        [[*place, *scores] for place, scores in cells.items()],
    )
    print(f"Control: {curves.control.sentence}")


def print_answers(answers: Any) -> None:
    """Print how often the model's own answer is right, a row a level."""
    table = answers.frame()
    asked = {
        "fine|coarse": ("fine", "said_fine_within_coarse"),
        "fine": ("fine", "said_fine"),
        "coarse": ("coarse", "said_coarse"),
    }
    rows = [
        [level, percent(float((table[said] == table[truth]).mean())), len(table)]
        for level, (truth, said) in asked.items()
        if said in table
    ]
    print_table("The most likely class name is right", ["level", "accuracy", "test images"], rows)
