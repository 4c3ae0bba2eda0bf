"""The model's own answers, read back as if they were one more probe."""

import numpy as np
import pandas as pd

from fgdiag.store import Run
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
