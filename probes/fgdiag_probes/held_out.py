"""How a reader did on training images held out by cross-validation, whichever reader it was."""

import numpy as np

from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Choice, Reading


def choice_of(
    logits: np.ndarray,
    labels: Labels,
    level: Level,
    *,
    penalty: float,
    at_edge: bool = False,
    converged: bool = True,
    gradient_norm: float = float("nan"),
) -> Choice:
    """Score a reader by what it says of training images that it did not see.

    Parameters
    ----------
    logits
        (train, classes) unnormalised log-probabilities over all classes of the level, each row from a reader that
        did not see it.
    labels, level
        What was asked.
    penalty
        Strength of the regularisation; NaN where a reader has none, as nearest neighbours.
    at_edge
        Whether what was chosen lies at an end of what was on offer.
    converged
        Whether the fit was finished.
    gradient_norm
        Of the objective at the end of the fit; NaN where that says nothing.
    """
    seen = Reading.of_logits(logits, labels, level, labels.train)
    asked = labels.asked(level, labels.train)
    correct = seen.said == labels.codes(level)[labels.train]
    return Choice(
        accuracy=float(correct[asked].mean()),
        bits=float(seen.bits[asked].mean()),
        penalty=penalty,
        at_edge=at_edge,
        converged=converged,
        gradient_norm=gradient_norm,
    )
