"""Controls that must be where they must be, or no number of the run can be believed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binom

from fgdiag_probes.intervals import clustered_means
from fgdiag_probes.labels import Labels
from fgdiag_probes.linear import fit_at
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


@dataclass(frozen=True)
class Shuffled:
    """A probe that was taught shuffled labels.

    Attributes
    ----------
    train
        Share of its training images whose shuffled label it names, in [0, 1]: what it can learn by heart.
    test
        Share of test images whose real label it names.
    p_value
        One-sided, for `test` being chance; clustered by class, for the images of a class fall together.
    """

    train: float
    test: float
    p_value: float


def learn_shuffled(
    features: np.ndarray, labels: Labels, *, penalty: float, seed: int = 0, resolution: float = 0.0
) -> Shuffled:
    """Teach a linear probe the fine labels of the training images, shuffled among them.

    Parameters
    ----------
    features
        (images, width) of the whole run.
    penalty
        That of the probe on the real labels.
    """
    taught = np.random.default_rng(seed).permutation(labels.fine[labels.train])
    probe = fit_at(features[labels.train], taught, penalty, resolution=resolution)
    right = (probe.predict(features[labels.test]) == labels.fine[labels.test]).astype(float)
    over = clustered_means(right[None] - labels.chance["fine"][0], labels.fine[labels.test], step=1.0)
    p_value = float(over.p_value[0] / 2) if over.mean[0] > 0 else 1.0
    by_heart = float((probe.predict(features[labels.train]) == taught).mean())
    return Shuffled(by_heart, float(right.mean()), p_value)


def shuffled_labels(learnt: Mapping[tuple[str, str], Shuffled], labels: Labels) -> Control:
    """Probes taught shuffled labels must be at chance on test images, at every place (Bonferroni-corrected)."""
    chance, _ = labels.chance["fine"]
    place, worst = min(learnt.items(), key=lambda item: item[1].p_value)
    p_value = min(1.0, len(learnt) * worst.p_value)
    found = (
        f"taught shuffled labels, a probe at {place[0]} names {100 * worst.test:.1f} % of the test images right, where "
        f"chance is {100 * chance:.1f} % (and {100 * worst.train:.0f} % of the shuffled labels it was taught)"
    )
    passed = p_value >= ALARM
    sentence = (
        f"As it must be: {found}."
        if passed
        else f"This cannot be: {found}; training and test images are mixed up, or the labels are, so no number "
        "of this run can be believed."
    )
    return Control("shuffled labels", True, passed, worst.test, chance, p_value, sentence)
