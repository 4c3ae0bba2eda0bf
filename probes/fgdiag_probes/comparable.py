"""What makes runs comparable: the same images, in the same splits, under the same names, asked the same question.

Whatever else differs is told. What would make a difference between two models out of a difference between two
recordings is refused.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from fgdiag.errors import NotComparable
from fgdiag.sites import ATTENTION, Site
from fgdiag.store import Run
from fgdiag_probes.answered import read_answers
from fgdiag_probes.curves import LayerCurves, Place, probe_layers
from fgdiag_probes.labels import Level
from fgdiag_probes.reading import Readings

SHARED = 0.9
"""Share of the training and of the test images of either run that must be in the same split of the other: an
unreadable image does no harm, a probe that learnt from fewer images does."""


@dataclass(frozen=True)
class Side:
    """One run as it is compared.

    Attributes
    ----------
    name
        What the run is called beside others.
    run
        Its manifest and images.
    curves, answers
        What its probes and the model say about each test image; no answers where it was not asked.
    """

    name: str
    run: Run
    curves: LayerCurves
    answers: Readings | None

    @classmethod
    def of(cls, run: Run, name: str) -> Self:
        """Read a run; probed first where that was not done. Errors as of `probe_layers`."""
        curves = probe_layers(run, seed=run.manifest.get("seed", 0))
        return cls(name, run, curves, read_answers(run, curves.labels))

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What was asked of which model."""
        return self.run.manifest

    @cached_property
    def images(self) -> pd.DataFrame:
        """By id of an image that is used: its `split`, its classes, and `at`, its place among the test images."""
        labels, table = self.curves.labels, self.run.images
        used = np.concatenate([labels.train, labels.test])
        found = table.iloc[used][["id", "fine", "coarse"]].assign(
            split=np.repeat(["train", "test"], [len(labels.train), len(labels.test)]),
            at=np.concatenate([np.full(len(labels.train), -1), np.arange(len(labels.test))]),
        )
        return found.drop_duplicates("id").set_index("id")

    @cached_property
    def blocks(self) -> int:
        """Blocks of the language model; in runs of an older fgdiag, as far as they were recorded."""
        recorded = [site.index for site in self.run.sites if site.part == "llm" and site.index != "norm"]
        return self.manifest.get("llm_blocks") or 1 + max((int(index or 0) for index in recorded), default=0)

    @property
    def attended(self) -> set[str]:
        """Where along the model attention was learnt: `vision`, `projector`, `last llm layer`, `llm`."""
        sites = [Site.parse(site) for site, readout in self.curves.readings if readout == ATTENTION]
        return {_part(site, self.blocks) for site in sites}

    def without_attention(self) -> Self:
        """Return the same, read without attention over single tokens."""
        readings = self.curves.readings
        kept = {place: readings[place] for place in readings if place[1] != ATTENTION}
        return replace(self, curves=replace(self.curves, readings=kept))

    def best(self, level: Level, site: str) -> Place | None:
        """Return the place that speaks for a site."""
        return self.curves.best(level, [site])


def short_names(paths: Sequence[Path]) -> dict[str, Path]:
    """Call each folder by its own name; with as many of the folders above as it takes to tell two apart."""
    given = {path.expanduser().resolve(): path.expanduser() for path in paths}
    whole = list(given)
    names: list[str] = []
    for depth in range(1, max(len(path.parts) for path in whole) + 1):
        names = ["/".join(path.parts[-depth:]).lstrip("/") for path in whole]
        if len(set(names)) == len(names):
            break
    return dict(zip(names, given.values(), strict=True))


def refuse_unlike(sides: Sequence[Side]) -> None:
    """Refuse runs of which one differs from the first in more than the model.

    Raises
    ------
    NotComparable
        Other images or splits, other class names, another question, other readouts, or nothing to compare.
    """
    first, *others = sides
    for other in others:
        if reasons := list(_unlike(first, other)):
            raise NotComparable(f"{first.name} and {other.name} cannot be compared.", reasons)


def what_differs(sides: Sequence[Side]) -> tuple[str, ...]:
    """Return what differs between runs that can be compared, a sentence each."""
    return tuple(_differences(sides))


def _unlike(first: Side, other: Side) -> Iterator[str]:
    one, two = first.images, other.images
    shared = one.join(two.add_suffix("_other"), how="inner")
    shared = shared.loc[shared["split"] == shared["split_other"]]
    counts = {split: _count(shared, split) for split in ("train", "test")}
    if any(counts[split] < SHARED * _most(first, other, split) for split in counts):
        yield (
            f"Other images: {counts['train']} of {_count(one, 'train')} training and {counts['test']} of "
            f"{_count(one, 'test')} test images of {first.name} are in the same split of {other.name}, which has "
            f"{_count(two, 'train')} and {_count(two, 'test')}; expected {100 * SHARED:.0f} % of either. Record both "
            "from the same images with the same --limit, --test-share and --seed."
        )
    elif unlike := _other_classes(first, other, shared):
        yield unlike
    if first.manifest["prompt"] != other.manifest["prompt"]:
        yield (
            f"Another question: {first.manifest['prompt']!r} and {other.manifest['prompt']!r}. Record both with the "
            "same --prompt."
        )
    readouts = [tuple(side.manifest.get("readouts", ())) for side in (first, other)]
    if readouts[0] != readouts[1]:
        given = " and ".join(",".join(names) for names in readouts)
        yield f"Other readouts: {given}. Record both with the same --readouts."


def _count(images: pd.DataFrame, split: str) -> int:
    return int(np.sum(images["split"].to_numpy(str) == split))


def _most(first: Side, other: Side, split: str) -> int:
    return max(_count(first.images, split), _count(other.images, split))


def _other_classes(first: Side, other: Side, shared: pd.DataFrame) -> str | None:
    kinds: tuple[tuple[Level, str], ...] = (("fine", "class"), ("coarse", "coarse class"))
    for kind, what in kinds:
        unlike = shared.loc[shared[kind] != shared[f"{kind}_other"]]
        if len(unlike):
            called = unlike.iloc[0]
            return (
                f"Other class names: {len(unlike)} of {len(shared)} images in both have another {what}, such as "
                f"{called[kind]!r} in {first.name} and {called[f'{kind}_other']!r} in {other.name}. Give both the same "
                "labels."
            )
        names = [set(side.curves.labels.names(kind)) for side in (first, other)]
        if names[0] != names[1]:
            only = sorted(map(str, names[0] ^ names[1]))
            return (
                f"Other class names: {only[0]!r}{' and others are' if len(only) > 1 else ' is'} not in both, and a "
                "choice among more classes is harder. Record both from the same images."
            )
    return None


def _differences(sides: Sequence[Side]) -> Iterator[str]:
    sizes = {(_count(side.images, "train"), _count(side.images, "test")) for side in sides}
    common = len(common_tests(sides))
    if len(sizes) > 1 or any(common != _count(side.images, "test") for side in sides):
        yield f"Not all images are in all runs: compared on the {common} test images that are."
    for key, what in (("dtype", "Computed in"), ("seed", "Seeds of the cross-validation folds:")):
        values = [side.manifest.get(key) for side in sides]
        if len(set(values)) > 1:
            yield f"{what} {_listed(sides, values)}."
    versions = [side.manifest.get("versions", {}) for side in sides]
    for package in ("fgdiag", "torch", "transformers"):
        values = [version.get(package) for version in versions]
        if len(set(values)) > 1:
            yield f"Versions of {package}: {_listed(sides, values)}."
    prints = [side.manifest.get("fingerprint") for side in sides]
    if len(set(prints)) < len(prints):
        twins = [side.name for side in sides if prints.count(side.manifest.get("fingerprint")) > 1]
        yield f"The same weights: {', '.join(twins)}."
    if any(side.answers is None for side in sides) and any(side.answers is not None for side in sides):
        silent = ", ".join(side.name for side in sides if side.answers is None)
        yield f"Answers are left out: {silent} was not asked (`fgdiag answer RUN`)."
    if any(side.attended != sides[0].attended for side in sides):
        yield (
            "Read without attention over single tokens, which was not kept at the same places in all runs (`--tokens`)."
        )
    for side in sides:
        recorded = sum(site.part == "llm" and site.index != "norm" for site in side.run.sites)
        if recorded < side.blocks:
            yield (
                f"{side.name} recorded {recorded} of {side.blocks} blocks of the language model, so its best "
                "layer is the best of fewer."
            )


def common_tests(sides: Sequence[Side]) -> pd.Index:
    """Ids of the images that every run tests, in the order of the first."""
    tested = [side.images.query("split == 'test'").index for side in sides]
    found = tested[0]
    for ids in tested[1:]:
        found = found[found.isin(ids)]
    return found


def outcome(row: Mapping[Any, Any]) -> str:
    """How a run compares with the first, in a word or two, by the `difference` and whether it is `significant`."""
    if not row["differing"]:
        return "no difference"
    if not row["significant"]:
        return "within luck"
    return "higher" if row["difference"] > 0 else "lower"


def _part(site: Site, blocks: int) -> str:
    if site.part != "llm":
        return site.part
    return "last llm layer" if site.index in ("norm", blocks - 1) else "llm"


def _listed(sides: Sequence[Side], values: Sequence[Any]) -> str:
    return ", ".join(f"{value} ({side.name})" for side, value in zip(sides, values, strict=True))
