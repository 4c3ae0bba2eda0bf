"""Ways of scoring what a model answered, sound and unsound, side by side on the same test images."""

from typing import Literal

import numpy as np

from fgdiag.store import Run
from fgdiag_probes.free_text import is_substring, kinds_of
from fgdiag_probes.labels import Labels
from fgdiag_probes.naming import ClassNames
from fgdiag_probes.response_tokens import has_responses, read_responses

Scoring = Literal["substring", "words", "likelihood", "corrected"]
SCORINGS: dict[Scoring, str] = {
    "substring": "the text written has the name in it, even inside a word",
    "words": "the class that the text written names first, in whole words",
    "likelihood": "the likeliest class name (sum over its tokens)",
    "corrected": "the same, less a prior of the names",
}


def answered_right(run: Run, labels: Labels) -> dict[Scoring, np.ndarray]:
    """(test,) bool by scoring: whether the answer is right; only the scorings that the run has answers for.

    The substring rule is that of Zhang et al. (arXiv 2405.18415).
    """
    truth = labels.fine_names[labels.fine[labels.test]]
    right: dict[Scoring, np.ndarray] = {}
    if has_responses(run):
        texts = read_responses(run).texts[labels.test]
        names = ClassNames.of(kinds_of(labels))
        pairs = list(zip(texts.tolist(), truth.tolist(), strict=True))
        right["substring"] = np.array([is_substring(name, text) for text, name in pairs])
        right["words"] = np.array([names.in_text(text).fine[:1] == (name,) for text, name in pairs])
    if run.result_path("answers.parquet").exists():
        answers = run.read_table("answers").set_index("row").reindex(labels.test)
        right["likelihood"] = answers["said_fine"].to_numpy() == truth
        if "said_fine_corrected" in answers:
            right["corrected"] = answers["said_fine_corrected"].to_numpy() == truth
    return right
