"""What is done to a model to calibrate the verdict: faults in all stages, and other ways to a run that is as good."""

from dataclasses import dataclass
from typing import Literal, get_args

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
from fgdiag_probes.harmless import Basis, ChangedBasis
from fgdiag_probes.labels import Labels
from fgdiag_probes.planting import Fault
from fgdiag_probes.verdict import Stage


@dataclass(frozen=True)
class Case:
    """One run that is compared with the undamaged one: a fault in the model, or another way to record and probe it.

    Attributes
    ----------
    name
        Fit for a folder.
    fault
        What is planted; None for what does no harm and is no change of the model either.
    batch_size
        Images that go through the model at once.
    reordered
        Whether the images come in another order.
    probe_seed
        Of the cross-validation folds.
    redrawn
        Number of another draw of the training images, on which all probes then rest; 0 for the first one.
    """

    name: str
    fault: Fault | None = None
    batch_size: int | Literal["auto"] = "auto"
    reordered: bool = False
    probe_seed: int = 0
    redrawn: int = 0

    @property
    def stage(self) -> Stage:
        """The stage that must be named; `none` where there is no harm."""
        return self.fault.stage if self.fault else "none"

    @property
    def recorded_anew(self) -> bool:
        """Whether other activations may be recorded than of the undamaged model."""
        if self.fault:
            return self.fault.site is not None
        return self.batch_size != "auto" or self.reordered or self.redrawn > 0


UNDAMAGED = Case("undamaged")


def cases_of(run: Run, labels: Labels, *, seed: int, quick: bool) -> list[Case]:
    """Faults in all stages and harmless changes, made for the undamaged `run`."""
    faults = [*_damage(run, labels, seed, quick), *_twins(run, seed, quick)]
    return [Case(fault.name, fault) for fault in faults] + _ways(seed)


def _damage(run: Run, labels: Labels, seed: int, quick: bool) -> list[Fault]:
    early, middle, late = _layers(run)
    fine = tuple(spoken(name) for name in labels.fine_names)
    coarse = tuple(spoken(name) for name in labels.coarse_names if name)
    one_a_kind: list[Fault] = [
        BlindedEncoder(224),
        LowRankProjector(run, 1),
        NoisyLayer(run, middle, 8, seed),
        ErasedClasses(run, middle),
        ShuffledNames(fine, coarse, 1, seed),
        BiasedAnswers(8, seed),
    ]
    more = [
        BlindedEncoder(64),
        LowRankProjector(run, 2),
        NoisyLayer(run, early, 8, seed),
        ErasedClasses(run, late),
    ]
    return one_a_kind if quick else one_a_kind + more


def _twins(run: Run, seed: int, quick: bool) -> list[Fault]:
    bases = list(zip(_layers(run), get_args(Basis), strict=True))
    return [ChangedBasis(layer, basis, seed) for layer, basis in (bases[:1] if quick else bases)]


def _ways(seed: int) -> list[Case]:
    return [
        Case("batches-of-5", batch_size=5),
        Case("other-image-order", reordered=True),
        Case("other-probe-seed", probe_seed=seed + 1000),
        Case("other-training-images", redrawn=1),
        Case("yet-other-training-images", redrawn=2),
    ]


def _layers(run: Run) -> tuple[str, str, str]:
    """Blocks of the language model at a quarter, half and three quarters of its depth."""
    blocks = [str(site) for site in run.sites if site.part == "llm" and site.index != "norm"]
    early, middle, late = (blocks[int(depth * (len(blocks) - 1))] for depth in (1 / 4, 1 / 2, 3 / 4))
    return early, middle, late
