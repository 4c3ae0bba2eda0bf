"""What the VLM would say without looking: the class names' likelihoods when the same is asked without an image.

They are a control, and a prior by which the likelihoods with the image can be corrected.
"""

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from PIL import Image

from fgdiag.memory import no_memory
from fgdiag.progress import say
from fgdiag.prompts import COARSE_QUESTION, spoken
from fgdiag_probes.likelihood import name_likelihood

if TYPE_CHECKING:
    from fgdiag.store import Run
    from fgdiag.vlm import VLM

Scores = dict[str, np.ndarray]
"""Nats by level, names last."""


def blind_scores(run: "Run", vlm: "VLM", names: dict[str, np.ndarray]) -> Scores:
    """Log-probability of each class name where the question is asked without an image.

    Parameters
    ----------
    names
        Class names by level: `fine`, and perhaps `coarse`.

    Returns
    -------
    dict
        (names,) float32 in nats by level; empty where the model cannot run without an image. Either is kept in
        `results/blind.json`, and read from there the next time.
    """
    if not run.result_path("blind.json").exists():
        scores, reason = _ask_blind(vlm, names, run.manifest["prompt"])
        if reason:
            say(f"the model is not asked without an image: {reason}")
        kept = {
            level: dict(zip(names[level].tolist(), values.tolist(), strict=True))
            for level, values in scores.items()
        }
        run.write_json("blind", {"scores": kept, "skipped": reason})
    kept = run.read_json("blind")["scores"]
    return {level: np.array([of[name] for name in names[level]], np.float32) for level, of in kept.items()}


def _ask_blind(vlm: "VLM", names: dict[str, np.ndarray], prompt: str) -> tuple[Scores, str | None]:
    """Scores by level; or none, and why."""
    questions, blinded = {"fine": prompt, "coarse": COARSE_QUESTION}, cast("VLM", _Blinded(vlm))
    try:
        scores = {
            level: name_likelihood(blinded, [_UNSEEN], [spoken(name) for name in of], questions[level])[0]
            for level, of in names.items()
        }
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        if no_memory(error):
            raise
        return {}, f"it cannot run so ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if not all(np.isfinite(values).all() for values in scores.values()):
        return {}, "its likelihoods are then not finite"
    return scores, None


_UNSEEN = Image.new("RGB", (8, 8))


class _Blinded:
    """A VLM whose prompts have no image, whatever picture is given with them."""

    def __init__(self, vlm: "VLM") -> None:
        self._vlm = vlm

    def __getattr__(self, name: str) -> Any:
        return getattr(self._vlm, name)

    def chat(self, question: str) -> str:
        return self._vlm.chat(question, image=False)

    def inputs(self, _pictures: object, text: str) -> Any:
        return self._vlm.inputs([], text)
