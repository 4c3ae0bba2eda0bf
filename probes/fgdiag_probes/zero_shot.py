"""Zero-shot: images named by the text whose embedding is closest, as models trained on images with texts can.

A class has one embedding, the mean over several phrasings of its name (Radford et al. 2021, arXiv 2103.00020,
section 3.1.4). No label is used, so what it says of training images is as honest as what it says of test images.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fgdiag.errors import FgdiagError, RunIncomplete
from fgdiag.image_features import ImageFeatures
from fgdiag.image_models import ImageModel
from fgdiag.prompts import spoken
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Reading, Readings, choice_of

TEMPLATES = (
    "a photo of a {}.",
    "itap of a {}.",
    "a bad photo of the {}.",
    "a photo of the large {}.",
    "a photo of the small {}.",
    "a close-up photo of a {}.",
    "a cropped photo of the {}.",
)
"""Those of CLIP's phrasings that suit photographs of one thing."""


def texts_for(labels: Labels, templates: Sequence[str]) -> list[str]:
    """Every name of every level in every phrasing, fine names first, phrasing by phrasing.

    Raises
    ------
    FgdiagError
        A template without `{}`, or none at all.
    """
    if not templates or any("{}" not in template for template in templates):
        raise FgdiagError(
            f"Got the templates {list(templates)}; expected `{{}}` in each, where the name goes."
        )
    return [template.replace("{}", spoken(str(name))) for template in templates for name in _names(labels)]


def embed_names(
    model: ImageModel, features: ImageFeatures, labels: Labels, templates: Sequence[str] | None = None
) -> None:
    """Embed the names of a run's classes and keep them beside the features of its images.

    Parameters
    ----------
    templates
        Phrasings, with `{}` where the name goes. By default those that were used before, or `TEMPLATES`.
    """
    kept = features.read_texts()
    if kept is not None and templates is None:
        return
    texts = texts_for(labels, TEMPLATES if templates is None else templates)
    if kept is None or kept[0] != texts:
        features.keep_texts(texts, model.text_embeddings(texts))


def zero_shot(features: ImageFeatures, labels: Labels) -> Readings:
    """Read every level by the closest of the texts that `embed_names` kept."""
    kept = features.read_texts()
    if kept is None or features.scale is None:
        raise RunIncomplete(
            f"The class names were not embedded by {features.name}; call `embed_names` first."
        )
    by_phrasing = kept[1].reshape(-1, len(_names(labels)), kept[1].shape[1])
    logits = features.scale * _unit(features.read("embed")) @ _unit(by_phrasing.mean(0)).T
    fine = len(labels.fine_names)
    return {
        level: _read(logits[:, fine:] if level == "coarse" else logits[:, :fine], labels, level)
        for level in labels.levels
    }


def _names(labels: Labels) -> list[str]:
    coarse = labels.coarse_names.tolist() if "coarse" in labels.levels else []
    return [*labels.fine_names.tolist(), *coarse]


def _read(logits: np.ndarray, labels: Labels, level: Level) -> Reading:
    choice = choice_of(logits[labels.train], labels, level, penalty=float("nan"))
    return replace(Reading.of_logits(logits[labels.test], labels, level, labels.test), choice=choice)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
