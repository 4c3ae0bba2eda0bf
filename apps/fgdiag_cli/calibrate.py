"""The command `fgdiag calibrate`: the verdict's error rates on the user's own model, as a table."""

from math import isnan
from pathlib import Path
from typing import Any

from fgdiag_probes.calibration import Calibration
from fgdiag_probes.calibration import calibrate as plant_and_count

from fgdiag.reopening import open_model
from fgdiag_cli.diagnose import labelled_images
from fgdiag_cli.screen import print_table


def calibrate(model: str, images: str, out: Path, *, opening: dict[str, Any], **options: Any) -> Calibration:
    """Open the model and the images, plant faults and count what is named; `options` as of the probes' `calibrate`."""
    return plant_and_count(open_model(model, **opening), labelled_images(images), out, **options)


def print_calibration(found: Calibration) -> None:
    """Print the detection table, a row a fault and strength, then the two rates."""
    rows = [
        [
            row["stage"] if row["stage"] != "none" else "none (harmless)",
            row["fault"],
            row["site"],
            f"{row['strength']:g}" if row["strength"] else "",
            f"{row['cost']:.0f}",
            f"{row['counted']} of {row['runs']}",
            _share(row["named"]),
            _share(row["near"]),
            _share(row["false_alarms"]),
        ]
        for row in found.frame().to_dict("records")
    ]
    heads = (
        "planted stage",
        "fault",
        "site",
        "strength",
        "points lost",
        "counted",
        "named",
        "layer",
        "false alarms",
    )
    print_table("What is named where damage is planted, by the accuracy among all fine classes", heads, rows)
    counts = found.json()
    print(
        f"Named rightly: {_rate(counts, 'named', 'cases')} damaged runs that lose 15 points or more at their stage."
    )
    print(
        f"False alarms: {_rate(counts, 'false_alarms', 'harmless')} harmless runs; of those in which any image was "
        f"read otherwise, {_rate(counts, 'traced_alarms', 'traced')}."
    )


def _rate(counts: dict[str, Any], hits: str, runs: str) -> str:
    if not counts[runs]:
        return "0 of 0"
    low, high = (100 * end for end in counts[f"{hits}_interval"])
    return f"{counts[hits]} of {counts[runs]} (95 % interval {low:.0f} to {high:.0f} %)"


def _share(value: float | None) -> str:
    return "" if value is None or isnan(value) else f"{100 * value:.0f} %"
