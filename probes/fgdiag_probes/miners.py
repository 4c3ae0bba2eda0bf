"""Which wrong classes are offered beside the right one: the hardest, by a miner that is never the encoder scored.

A miner says how alike two classes are, as a matrix; the classes most alike to the right one become its distractors.
Mined by the encoder that is scored, they would be just the ones that this encoder cannot tell apart, as CLIP's were
in arXiv 2602.17871.
"""

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.feature_extraction.text import TfidfVectorizer

from fgdiag.prompts import spoken
from fgdiag_probes.labels import Labels, Level

Distractors = Literal["text", "image", "siblings", "random"]
MINED: dict[Distractors, str] = {
    "text": "classes with the names most alike, by the letters of their words",
    "image": "classes whose images are most alike, by their mean",
    "siblings": "classes of the same coarse class, at random",
    "random": "any classes, at random",
}
NOTHING = -1
"""Fills up the options of an image that has fewer than others."""


@dataclass(frozen=True)
class Miner:
    """How alike classes are.

    Attributes
    ----------
    how
        What it goes by, as it is recorded.
    fine, coarse
        (classes, classes) floats, higher is more alike; ties are broken at random, image by image.
    """

    how: str
    fine: np.ndarray
    coarse: np.ndarray

    @classmethod
    def of(
        cls, distractors: Distractors, labels: Labels, features: np.ndarray | None = None, source: str = ""
    ) -> Self:
        """Make the miner of that name.

        Parameters
        ----------
        features
            (images, width), of which `image` takes the class means over training images: raw pixels, or the
            features of any image model that is not the scored one.
        source
            What the features are, in words, for the record.
        """
        how = MINED[distractors] + (f" in {source}" if distractors == "image" else "")
        if distractors == "text":
            return cls(how, by_text(labels.fine_names), by_text(labels.coarse_names))
        if distractors == "image":
            if features is None:
                raise ValueError("The miner `image` needs features.")
            shown = features[labels.train]
            fine, coarse = labels.fine[labels.train], labels.coarse[labels.train]
            return cls(
                how,
                by_image(shown, fine, len(labels.fine_names)),
                by_image(shown, coarse, len(labels.coarse_names)),
            )
        alike = (labels.siblings.T.astype(float) @ labels.siblings) > 0
        fine = alike.astype(float) if distractors == "siblings" else np.zeros(alike.shape)
        return cls(how, fine, np.zeros((len(labels.coarse_names),) * 2))

    def similarity(self, level: Level) -> np.ndarray:
        """(classes, classes) of a level."""
        return self.coarse if level == "coarse" else self.fine


def by_text(names: np.ndarray) -> np.ndarray:
    """Cosine similarity of names by the runs of 2 to 4 letters in their words, rare ones weighing more (TF-IDF).

    Returns
    -------
    (names, names) float64 in [0, 1].

    Examples
    --------
    >>> alike = by_text(np.array(["Oat-Milk", "Soy-Milk", "Leek"]))
    >>> bool(alike[0, 1] > alike[0, 2])
    True
    """
    if len(names) < 2:  # where there are no kinds, the one kind is called ""
        return np.ones((len(names), len(names)))
    counts = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4))
    vectors = counts.fit_transform([spoken(str(name)) for name in names])
    return np.asarray((vectors @ vectors.T).todense())


def by_image(features: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Minus the distance between class means of standardised features.

    Parameters
    ----------
    features
        (images, width), finite.
    classes
        (images,) codes from 0 to `count` - 1, each of which occurs.

    Returns
    -------
    (count, count) float64, at most 0.
    """
    spread = features.std(0)
    scaled = (features - features.mean(0)) / np.where(spread > 0, spread, np.inf)
    means = np.stack([scaled[classes == code].mean(0) for code in range(count)]).astype(np.float64)
    return -cdist(means, means)


def offered(
    similarity: np.ndarray, candidates: np.ndarray, truth: np.ndarray, count: int, rng: np.random.Generator
) -> np.ndarray:
    """Options for each image, in random order: the right class, and the candidates most alike to it.

    Parameters
    ----------
    similarity
        (classes, classes), as of a `Miner`.
    candidates
        (images, classes) bool, which classes may be offered.
    truth
        (images,) codes.
    count
        Options an image, the right one among them.

    Returns
    -------
    (images, count) codes; rows of images with fewer candidates end with `NOTHING`.
    """
    images, classes = candidates.shape
    alike = np.where(candidates, similarity[truth], -np.inf)
    alike[np.arange(images), truth] = np.inf
    ranked = np.lexsort((rng.random((images, classes)), -alike), axis=1)[:, :count]
    options = np.where(np.take_along_axis(alike, ranked, 1) > -np.inf, ranked, NOTHING)
    shuffle = np.where(options == NOTHING, 1.0, rng.random(options.shape))
    return np.take_along_axis(options, np.argsort(shuffle, axis=1), 1)
