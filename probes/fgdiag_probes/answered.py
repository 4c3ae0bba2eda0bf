"""The model's own answers, read back as if they were one more probe."""

from typing import Literal

import numpy as np
import pandas as pd

from fgdiag.store import Run
from fgdiag_probes.answers import METHOD
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Reading, Readings

COLUMNS: dict[Level, tuple[str, str]] = {
    "fine|coarse": ("said_fine_within_coarse", "bits_fine_within_coarse"),
    "fine": ("said_fine", "bits_fine"),
    "coarse": ("said_coarse", "bits_coarse"),
}


def read_answers(run: Run, labels: Labels) -> Readings | None:
    """Readings of `results/answers.parquet`; None where the model has not been asked.

    A test image without an answer has NaN bits and -1 as what was said.
    """
    path = run.result_path("answers.parquet")
    if not path.exists():
        return None
    table = pd.read_parquet(path).set_index("row").reindex(labels.test)
    readings: Readings = {}
    for level in labels.levels:
        said, bits = COLUMNS[level]
        codes = pd.Index(labels.names(level)).get_indexer(pd.Index(table[said]))
        readings[level] = Reading(np.asarray(codes, np.int32), table[bits].to_numpy(np.float32))
    return readings


def kept_scores(run: Run, level: Literal["fine", "coarse"]) -> pd.DataFrame | None:
    """(test images, names) log-probability in nats of each class name, by row of the run and by class.

    None where the model has not been asked, or by an older fgdiag that kept no scores.
    """
    parts = sorted(run.result_path(f"answers/{METHOD}").glob("test-*.parquet"))
    if not parts:
        return None
    table = pd.concat([pd.read_parquet(part) for part in parts]).set_index("row")
    own = [name for name in map(str, table) if name.startswith(f"{level}: ")]
    return pd.DataFrame(
        table[own].to_numpy(np.float32), table.index, [name.removeprefix(f"{level}: ") for name in own]
    )
