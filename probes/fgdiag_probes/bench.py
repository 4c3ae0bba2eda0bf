"""The bench on which a model is calibrated: each case is recorded, asked and probed on the same images."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fgdiag.extraction import extract
from fgdiag.image_set import ImageSet
from fgdiag.progress import say
from fgdiag.prompts import spoken
from fgdiag.sites import Readout
from fgdiag.store import Run
from fgdiag_probes.cases import UNDAMAGED, Case, cases_of
from fgdiag_probes.curves import probe_layers
from fgdiag_probes.extra_loss import STAGES, Seen, judge_extra
from fgdiag_probes.labels import Labels
from fgdiag_probes.likelihood import name_likelihood
from fgdiag_probes.planting import CannotPlant
from fgdiag_probes.reading import Reading
from fgdiag_probes.remembering import Memory, remembering
from fgdiag_probes.verdict import Stage

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

COSTLY = 15.0
"""Points of accuracy that damage must cost at its own stage to count."""
READOUTS: tuple[Readout, ...] = ("image", "last", "cls")
IMAGES_A_PART = 64


@dataclass(frozen=True)
class Outcome:
    """What was planted in one run, and what comparing it with the undamaged run named.

    Attributes
    ----------
    fault, stage, site, strength, seed
        What was planted; stage `none` for a harmless change.
    cost
        Extra loss at the planted stage in points of accuracy, with its 95 % interval `low` to `high` (paired,
        clustered by fine class); of a harmless change at the stage where it looks worst.
    named
        The stage with the largest significant extra loss; `none` where there is none.
    layer
        For a fault in the language model, its site with the largest extra fall from the site before.
    near
        Whether that is the planted site or one beside it.
    """

    fault: str
    stage: Stage
    site: str | None
    strength: float
    seed: int
    cost: float
    low: float
    high: float
    named: Stage
    layer: str | None
    near: bool | None

    @property
    def counts(self) -> bool:
        """Whether it is harmless, or damage that costs 15 points or more at its own stage."""
        return self.stage == "none" or self.cost >= COSTLY

    @property
    def leaves_a_trace(self) -> bool:
        """Whether any image is read otherwise than in the undamaged run at the stage where that costs most."""
        return any((self.cost, self.low, self.high))

    @property
    def right(self) -> bool:
        """Whether what was planted is what was named."""
        return self.named == self.stage


class Bench:
    """The cases of one seed: one sample of images, one undamaged run.

    Parameters
    ----------
    vlm
        The model.
    draw
        Draws the labelled images; with `redrawn=1` as many others to train on.
    out
        Folder for the runs.
    seed
        Of the faults, and of what is in the name of a run.
    sites
        What is recorded; None for all.
    """

    def __init__(
        self, vlm: "VLM", draw: Callable[..., ImageSet], out: Path, seed: int, sites: Sequence[str] | None
    ) -> None:
        self.vlm, self.draw, self.out, self.seed, self.sites = vlm, draw, out, seed, sites
        self.memory = Memory()
        with self._under(UNDAMAGED):
            self.undamaged = self._recorded(UNDAMAGED)
        self.labels = Labels.of(self.undamaged)

    def rows(self, quick: bool) -> Iterator[Outcome]:
        """Do every case and say what is named."""
        reference = self._seen(UNDAMAGED)
        cases = cases_of(self.undamaged, self.labels, seed=self.seed, quick=quick)
        for number, case in enumerate(cases, start=1):
            say(f"seed {self.seed}, case {number} of {len(cases)}: {case.name}")
            try:
                yield self._outcome(case, reference, self._seen(case))
            except CannotPlant as error:
                say(f"left out: {error}")

    def _outcome(self, case: Case, undamaged: Seen, damaged: Seen) -> Outcome:
        named, extra = judge_extra(undamaged.stages, damaged.stages, undamaged.clusters)
        own = int(extra.mean.argmax()) if case.stage == "none" else STAGES.index(case.stage)
        site = case.fault.site if case.fault else None
        layer = undamaged.falling(damaged) if case.stage == "language model" else None
        return Outcome(
            fault=case.fault.kind if case.fault else case.name.replace("-", " "),
            stage=case.stage,
            site=site,
            strength=float(case.fault.strength) if case.fault else 0.0,
            seed=self.seed,
            cost=float(extra.mean[own]),
            low=float(extra.low[own]),
            high=float(extra.high[own]),
            named=named,
            layer=layer,
            near=abs(undamaged.names.index(layer) - undamaged.names.index(str(site))) <= 1 if layer else None,
        )

    def _seen(self, case: Case) -> Seen:
        """Record a case, ask the model under it, and probe what was recorded."""
        with self._under(case):
            run = self._recorded(case) if case.recorded_anew else self.undamaged
            answers = self._answers(run, case)
        return Seen.of(run, probe_layers(run, seed=case.probe_seed), answers)

    @contextmanager
    def _under(self, case: Case) -> Iterator[None]:
        """The model as a case wants it; where the encoder does what it always does, its output is remembered."""
        with ExitStack() as stack:
            if case.stage != "vision encoder" and case.batch_size == "auto":
                stack.enter_context(remembering(self.vlm, self.memory))
            if case.fault:
                stack.enter_context(case.fault.planted(self.vlm))
            yield

    def _recorded(self, case: Case) -> Run:
        return extract(
            self.vlm,
            self._images(case),
            self.out / f"{case.name}-seed{self.seed}",
            readouts=READOUTS,
            sites=self.sites,
            batch_size=case.batch_size,
        )

    def _images(self, case: Case) -> ImageSet:
        images = self.draw(redrawn=case.redrawn)
        if case.reordered:
            return images.subset(np.random.default_rng(self.seed).permutation(len(images)))
        return images

    def _answers(self, run: Run, case: Case) -> Reading:
        """The likeliest fine name of each test image."""
        name = f"answers_under_{case.name}" if case.fault else "answers"
        if not run.result_path(f"{name}.parquet").exists():
            run.write_table(name, _ask(run, self.vlm, self._images(case)))
        table = run.read_table(name)
        return Reading(table["said"].to_numpy(np.int32), table["bits"].to_numpy(np.float32))


def _ask(run: Run, vlm: "VLM", images: ImageSet) -> pd.DataFrame:
    labels = Labels.of(run)
    names = [spoken(name) for name in labels.fine_names]
    parts = np.array_split(labels.test, -(-len(labels.test) // IMAGES_A_PART))
    scores = [
        name_likelihood(vlm, [images.open(int(row)) for row in part], names, run.manifest["prompt"])
        for part in parts
    ]
    reading = Reading.of_logits(np.concatenate(scores), labels, "fine", labels.test)
    return pd.DataFrame({"said": reading.said, "bits": reading.bits})
