"""Questions put to a recorded run, and their answers as result objects."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgdiag_probes.answers import Answers as Answers
    from fgdiag_probes.answers import answer as answer
    from fgdiag_probes.attribution import attribute as attribute
    from fgdiag_probes.attribution import attribute_image as attribute_image
    from fgdiag_probes.baselines import Baselines as Baselines
    from fgdiag_probes.baselines import compare_baselines as compare_baselines
    from fgdiag_probes.bottleneck import LossBudget as LossBudget
    from fgdiag_probes.bottleneck import loss_budget as loss_budget
    from fgdiag_probes.calibration import Calibration as Calibration
    from fgdiag_probes.calibration import calibrate as calibrate
    from fgdiag_probes.compare import Comparison as Comparison
    from fgdiag_probes.compare import compare_runs as compare_runs
    from fgdiag_probes.confusion import ConfusedPairs as ConfusedPairs
    from fgdiag_probes.confusion import confused_pairs as confused_pairs
    from fgdiag_probes.confusion_matrix import ConfusionMatrix as ConfusionMatrix
    from fgdiag_probes.curves import LayerCurves as LayerCurves
    from fgdiag_probes.curves import probe_layers as probe_layers
    from fgdiag_probes.evidence import Evidence as Evidence
    from fgdiag_probes.evidence import gather as gather
    from fgdiag_probes.few_images import FewShot as FewShot
    from fgdiag_probes.few_images import few_shot as few_shot
    from fgdiag_probes.grid import Grid as Grid
    from fgdiag_probes.image_only import image_only_reference as image_only_reference
    from fgdiag_probes.lab import Ablation as Ablation
    from fgdiag_probes.lab import ablate as ablate
    from fgdiag_probes.lens import image_lens as image_lens
    from fgdiag_probes.lens import token_lenses as token_lenses
    from fgdiag_probes.likelihood import name_likelihood as name_likelihood
    from fgdiag_probes.linear import LinearProbe as LinearProbe
    from fgdiag_probes.linear import fit_probe as fit_probe
    from fgdiag_probes.maps import AttributionMaps as AttributionMaps
    from fgdiag_probes.marks import MarkSizes as MarkSizes
    from fgdiag_probes.marks import mark_sizes as mark_sizes
    from fgdiag_probes.matched import read_at_width as read_at_width
    from fgdiag_probes.neighbours import nearest as nearest
    from fgdiag_probes.networks import nonlinear as nonlinear
    from fgdiag_probes.prequential import Codelength as Codelength
    from fgdiag_probes.prequential import codelength as codelength
    from fgdiag_probes.projector import NeighbourOverlap as NeighbourOverlap
    from fgdiag_probes.projector import Reconstruction as Reconstruction
    from fgdiag_probes.projector import neighbour_overlap as neighbour_overlap
    from fgdiag_probes.projector import reconstruction as reconstruction
    from fgdiag_probes.separability import PairCurves as PairCurves
    from fgdiag_probes.separability import pair_curves as pair_curves
    from fgdiag_probes.stability import Stability as Stability
    from fgdiag_probes.stability import deal_anew as deal_anew
    from fgdiag_probes.token_lens import TokenLens as TokenLens
    from fgdiag_probes.token_lens import TokenLenses as TokenLenses
    from fgdiag_probes.verdict import Verdict as Verdict

_ROOMS = {
    "Ablation": "lab",
    "Answers": "answers",
    "AttributionMaps": "maps",
    "Baselines": "baselines",
    "Calibration": "calibration",
    "Codelength": "prequential",
    "Comparison": "compare",
    "ConfusedPairs": "confusion",
    "ConfusionMatrix": "confusion_matrix",
    "Evidence": "evidence",
    "FewShot": "few_images",
    "Grid": "grid",
    "LayerCurves": "curves",
    "LinearProbe": "linear",
    "LossBudget": "bottleneck",
    "MarkSizes": "marks",
    "NeighbourOverlap": "projector",
    "PairCurves": "separability",
    "Reconstruction": "projector",
    "Stability": "stability",
    "TokenLens": "token_lens",
    "TokenLenses": "token_lens",
    "Verdict": "verdict",
    "ablate": "lab",
    "answer": "answers",
    "attribute": "attribution",
    "attribute_image": "attribution",
    "calibrate": "calibration",
    "codelength": "prequential",
    "compare_baselines": "baselines",
    "compare_runs": "compare",
    "confused_pairs": "confusion",
    "deal_anew": "stability",
    "few_shot": "few_images",
    "fit_probe": "linear",
    "gather": "evidence",
    "image_lens": "lens",
    "image_only_reference": "image_only",
    "loss_budget": "bottleneck",
    "mark_sizes": "marks",
    "name_likelihood": "likelihood",
    "nearest": "neighbours",
    "neighbour_overlap": "projector",
    "nonlinear": "networks",
    "pair_curves": "separability",
    "probe_layers": "curves",
    "read_at_width": "matched",
    "reconstruction": "projector",
    "token_lenses": "lens",
}

__all__ = list(_ROOMS)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a room when something of it is first asked for: nothing heavy loads before."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'fgdiag_probes' has no attribute {name!r}")
    return getattr(import_module(f"fgdiag_probes.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
