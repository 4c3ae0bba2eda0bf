"""The bench on which a model is calibrated: each case is recorded, asked and probed on the same images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fgdiag.errors import ImagesNotUsable
from fgdiag.extraction import extract
from fgdiag.image_set import ImageSet
from fgdiag.progress import say
from fgdiag.prompts import spoken
from fgdiag.sites import Readout
from fgdiag.store import Run
from fgdiag_probes.cases import Case, cases_of
from fgdiag_probes.curves import probe_layers
from fgdiag_probes.extra_loss import STAGES, Seen, judge_extra
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.likelihood import name_likelihood
from fgdiag_probes.planting import CannotPlant
from fgdiag_probes.reading import Reading
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
    def right(self) -> bool:
        """Whether what was planted is what was named."""
        return self.named == self.stage


class Bench:
    """The cases of one seed: one sample of images, one undamaged run."""

    def __init__(
        self,
        vlm: "VLM",
        images: ImageSet,
        out: Path,
        seed: int,
        sites: Sequence[str] | None,
        level: Level | None,
    ) -> None:
        self.vlm, self.images, self.out, self.seed, self.sites = vlm, images, out, seed, sites
        self.undamaged = self._recorded(Case("undamaged"), images)
        self.labels = Labels.of(self.undamaged)
        self.level: Level = level or self.labels.levels[0]
        if self.level not in self.labels.levels or self.level == "coarse":
            asked = " or ".join(name for name in self.labels.levels if name != "coarse")
            raise ImagesNotUsable(f"Got the level {self.level!r} to calibrate at; these images have {asked}.")

    def rows(self, quick: bool) -> Iterator[Outcome]:
        """Do every case and say what is named."""
        reference = self._seen(Case("undamaged"))
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

    def _recorded(self, case: Case, images: ImageSet) -> Run:
        folder = self.out / f"{case.name}-seed{self.seed}"
        return extract(
            self.vlm, images, folder, readouts=READOUTS, sites=self.sites, batch_size=case.batch_size
        )

    def _seen(self, case: Case) -> Seen:
        """Record a case, ask the model under it, and probe what was recorded."""
        images = self.images
        if case.reordered:
            images = images.subset(np.random.default_rng(self.seed).permutation(len(images)))
        if case.fault is None:
            run = self._recorded(case, images)
            answers = _answers(run, self.vlm, images, self.level)
        else:
            with case.fault.planted(self.vlm):
                run = self._recorded(case, images)
                answers = _answers(run, self.vlm, images, self.level)
        return Seen.of(run, probe_layers(run, seed=case.probe_seed), answers, self.level)


def _answers(run: Run, vlm: "VLM", images: ImageSet, level: Level) -> Reading:
    """The likeliest name, among those of the image's own coarse class at `fine|coarse`: fewer names, less time."""
    labels, name = Labels.of(run), "answers_among_siblings" if level == "fine|coarse" else "answers_among_all"
    if not run.result_path(f"{name}.parquet").exists():
        run.write_table(name, _ask(run, vlm, images, labels, level))
    table = run.read_table(name)
    return Reading(table["said"].to_numpy(np.int32), table["bits"].to_numpy(np.float32))


def _ask(run: Run, vlm: "VLM", images: ImageSet, labels: Labels, level: Level) -> pd.DataFrame:
    candidates = labels.candidates(level, labels.test)
    scores = np.full(candidates.shape, -np.inf)
    choices, choice_of = np.unique(candidates, axis=0, return_inverse=True)
    for index, choice in enumerate(choices):
        names = [spoken(name) for name in labels.names(level)[choice]]
        asked = np.flatnonzero(choice_of == index)
        for part in np.array_split(asked, -(-len(asked) // IMAGES_A_PART)):
            pictures = [images.open(int(row)) for row in labels.test[part]]
            found = name_likelihood(vlm, pictures, names, run.manifest["prompt"])
            scores[np.ix_(part, np.flatnonzero(choice))] = found
    reading = Reading.of_logits(scores, labels, level, labels.test)
    return pd.DataFrame({"said": reading.said, "bits": reading.bits})
