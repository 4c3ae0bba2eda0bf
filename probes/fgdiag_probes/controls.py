"""Controls that must be where they must be, or no number of the run can be believed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom

from fgdiag_probes.labels import Labels
from fgdiag_probes.reading import Reading

ALARM = 0.01
"""Chance of a false alarm over all sites together."""


@dataclass(frozen=True)
class Control:
    """Outcome of a control.

    Attributes
    ----------
    name
        What was looked at.
    applies
        Whether this model and run can be held to it.
    passed
        True where it is as it must be, or does not apply.
    accuracy, chance
        Of the worst site, in [0, 1]; None where it does not apply.
    p_value
        Of the worst site, corrected for the number of sites.
    sentence
        The outcome in words.
    """

    name: str
    applies: bool
    passed: bool
    accuracy: float | None
    chance: float | None
    p_value: float | None
    sentence: str

    def json(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        return asdict(self)


def tokens_before_the_image(
    readings: Mapping[tuple[str, str], Reading], labels: Labels, *, applies: bool = True
) -> Control:
    """Tokens before the image cannot see it in a causal model, so probes on them must be at chance.

    A one-sided binomial test against chance at each site, Bonferroni-corrected over sites.

    Parameters
    ----------
    readings
        By site and readout, the `pre` readings at level `fine`.
    labels
        Who was tested.
    applies
        False where tokens before the image may look ahead: prefix attention, encoder-decoder.
    """
    name = "tokens before the image"
    if not readings or not applies:
        why = "they may look at the image in this model" if readings else "no token comes before the image"
        return Control(name, False, True, None, None, None, f"Not applicable: {why}.")
    chance, _ = labels.chance["fine"]
    correct = {place: int(one.correct(labels, "fine").sum()) for place, one in readings.items()}
    place, most = max(correct.items(), key=lambda item: item[1])
    tested = len(labels.test)
    p_value = float(np.minimum(1.0, len(correct) * binom.sf(most - 1, tested, chance)))
    passed = p_value >= ALARM
    found = (
        f"at {place[0]} a probe on the tokens before the image names {100 * most / tested:.1f} % of the test "
        f"images right, where chance is {100 * chance:.1f} %"
    )
    sentence = (
        f"As it must be: {found}, no more than luck allows."
        if passed
        else f"Tokens before the image cannot see it in a causal model, yet {found}; the labels leak into "
        "the recording (the prompt differs by image, attention is not causal, or padding follows the "
        "class), so no number of this run can be believed."
    )
    return Control(name, True, passed, most / tested, chance, p_value, sentence)
