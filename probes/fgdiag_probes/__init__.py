"""Questions put to a recorded run, and their answers as result objects."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgdiag_probes.answers import Answers as Answers
    from fgdiag_probes.answers import answer as answer
    from fgdiag_probes.bottleneck import LossBudget as LossBudget
    from fgdiag_probes.bottleneck import loss_budget as loss_budget
    from fgdiag_probes.confusion import ConfusedPairs as ConfusedPairs
    from fgdiag_probes.confusion import confused_pairs as confused_pairs
    from fgdiag_probes.curves import LayerCurves as LayerCurves
    from fgdiag_probes.curves import probe_layers as probe_layers
    from fgdiag_probes.likelihood import name_likelihood as name_likelihood
    from fgdiag_probes.linear import LinearProbe as LinearProbe
    from fgdiag_probes.linear import fit_probe as fit_probe
    from fgdiag_probes.verdict import Verdict as Verdict

_ROOMS = {
    "Answers": "answers",
    "ConfusedPairs": "confusion",
    "LayerCurves": "curves",
    "LinearProbe": "linear",
    "LossBudget": "bottleneck",
    "Verdict": "verdict",
    "answer": "answers",
    "confused_pairs": "confusion",
    "fit_probe": "linear",
    "loss_budget": "bottleneck",
    "name_likelihood": "likelihood",
    "probe_layers": "curves",
}

__all__ = list(_ROOMS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a room when something of it is first asked for: nothing heavy loads before."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'fgdiag_probes' has no attribute {name!r}")
    return getattr(import_module(f"fgdiag_probes.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
