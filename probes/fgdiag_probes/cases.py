"""What is done to a model to calibrate the verdict: faults in all stages, and other ways to the same run."""

from dataclasses import dataclass
from typing import Literal

from fgdiag.prompts import spoken
from fgdiag.store import Run
from fgdiag_probes.faults import (
    BiasedAnswers,
    BlindedEncoder,
    ErasedClasses,
    LowRankProjector,
    NoisyLayer,
    ShuffledNames,
)
from fgdiag_probes.harmless import ChangedBasis
from fgdiag_probes.labels import Labels
from fgdiag_probes.planting import Fault
from fgdiag_probes.verdict import Stage


@dataclass(frozen=True)
class Case:
    """One run that is compared with the undamaged one: a fault in the model, or another way to record it."""

    name: str
    fault: Fault | None = None
    batch_size: int | Literal["auto"] = "auto"
    reordered: bool = False
    probe_seed: int = 0

    @property
    def stage(self) -> Stage:
        """The stage that must be named; `none` where there is no harm."""
        return self.fault.stage if self.fault else "none"


def cases_of(run: Run, labels: Labels, *, seed: int, quick: bool) -> list[Case]:
    """Faults in all stages and harmless changes, made for the undamaged `run`."""
    blocks = [str(site) for site in run.sites if site.part == "llm" and site.index != "norm"]
    depths = (1 / 2,) if quick else (1 / 4, 1 / 2, 3 / 4)
    layers = [blocks[int(depth * (len(blocks) - 1))] for depth in depths]
    fine = tuple(spoken(name) for name in labels.fine_names)
    coarse = tuple(spoken(name) for name in labels.coarse_names if name)
    damage = [
        *(BlindedEncoder(factor) for factor in ((16,) if quick else (8, 16, 32))),
        *(LowRankProjector(run, rank) for rank in ((1,) if quick else (1, 2, 4))),
        *(NoisyLayer(run, layer, times, seed) for layer in layers for times in ((8,) if quick else (4, 8))),
        *(ErasedClasses(run, layer) for layer in layers),
        *(ErasedClasses(run, layer, onwards=False) for layer in layers if not quick),
        *(ShuffledNames(fine, coarse, share, seed) for share in ((1,) if quick else (0.5, 1))),
        *(BiasedAnswers(nats, seed) for nats in ((8,) if quick else (4, 8))),
    ]
    twins = [
        ChangedBasis(layer, basis, seed) for layer in layers for basis in ("rotated", "rescaled", "permuted")
    ]
    ways = [
        Case("batches-of-5", batch_size=5),
        Case("other-image-order", reordered=True),
        Case("other-probe-seed", probe_seed=seed + 1000),
    ]
    return [Case(fault.name, fault) for fault in [*damage, *(twins[:1] if quick else twins)]] + ways
