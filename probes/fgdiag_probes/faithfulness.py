"""Whether a map can be believed: what the model does when the marked parts go, what a ruined model's map looks like,
and, where it is known what tells two classes apart, how much of the map lies on that.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from PIL import Image
from scipy.stats import rankdata
from torch import Tensor

from fgdiag.fieldguide import differing_parts, load_masks, species_named
from fgdiag_probes.layout import PixelLayout
from fgdiag_probes.substitution import Substitution

if TYPE_CHECKING:
    from fgdiag.vlm import VLM

PARTS = 10
"""Equal parts of the picture that are taken away, or put back, one after the other."""
MOVED = 4
"""Maps moved elsewhere that a map is compared with."""
VERSIONS = 2 + 2 * (PARTS - 1) * (2 + MOVED)
"""Versions of a picture that are scored to check a map."""
ALIKE = 0.5
"""Rank correlation with the map of a ruined model from which on a map shows the picture rather than the model."""


@dataclass(frozen=True)
class Faithfulness:
    """What the score does while the picture is blurred, or unblurred, in the order of a map.

    All numbers are means of the score along the way, in the unit of the target. What a map calls relevant should cost
    much as soon as it is blurred (a low `deletion`) and bring much as soon as it is sharp (a high `insertion`); Petsiuk
    et al. (2018, arXiv 1806.07421).

    Attributes
    ----------
    deletion, insertion
        In the order of the map.
    centre_deletion, centre_insertion
        From the centre of the picture outwards.
    moved_deletion, moved_insertion
        In the order of this same map moved elsewhere, across the borders, and perhaps mirrored: random maps that are
        as coarse, as clustered and as uneven as this one.
    """

    deletion: float
    insertion: float
    centre_deletion: float
    centre_insertion: float
    moved_deletion: tuple[float, ...]
    moved_insertion: tuple[float, ...]

    @property
    def gain(self) -> float:
        """Insertion minus deletion."""
        return self.insertion - self.deletion

    @property
    def centre_gain(self) -> float:
        """The same from the centre outwards."""
        return self.centre_insertion - self.centre_deletion

    @property
    def moved_gains(self) -> np.ndarray:
        """(maps,) the same of each moved map."""
        return np.subtract(self.moved_insertion, self.moved_deletion)

    @property
    def passed(self) -> bool:
        """Whether the map gains more than each of the moved ones and than the centre."""
        return self.gain > max(self.centre_gain, *self.moved_gains)

    def json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @classmethod
    def of_json(cls, kept: dict[str, Any]) -> Self:
        """Read back what `json` gave."""
        moved: dict[str, Any] = {name: tuple(kept[name]) for name in ("moved_deletion", "moved_insertion")}
        return cls(**(kept | moved))


def faithfulness(
    given: Substitution, layout: PixelLayout, values: np.ndarray, *, seed: int = 0
) -> Faithfulness:
    """Blur and unblur a picture in the order of a map, of moved ones, and from the centre outwards.

    Parameters
    ----------
    given
        The picture at the entry `pixels`.
    layout
        Of its pixels.
    values
        (rows, columns) the map; what is highest comes first.
    seed
        Of how maps are moved.
    """
    rng = np.random.default_rng(seed)
    maps = [values, _centre(layout.seen), *(_moved(values, layout.seen, rng) for _ in range(MOVED))]
    first, last = given.scores_of([given.original[0], given.blurred[0]]).tolist()
    scores = given.scores_of(version for one in maps for version in _versions(given, layout, one))
    deletion, insertion = np.moveaxis(scores.double().numpy().reshape(len(maps), 2, PARTS - 1), 1, 0)
    deletion, insertion = _area(deletion, first, last), _area(insertion, last, first)
    return Faithfulness(
        deletion=float(deletion[0]),
        insertion=float(insertion[0]),
        centre_deletion=float(deletion[1]),
        centre_insertion=float(insertion[1]),
        moved_deletion=tuple(deletion[2:].tolist()),
        moved_insertion=tuple(insertion[2:].tolist()),
    )


def _versions(given: Substitution, layout: PixelLayout, values: np.ndarray) -> Iterator[Tensor]:
    """The picture with more and more of it blurred, and then the blurred picture with more and more of it sharp."""
    cells = [layout.numbers_in(first) for first in _parts(values, layout.seen)]
    original, blurred = given.original[0], given.blurred[0]
    yield from (torch.where(chosen, blurred, original) for chosen in cells)
    yield from (torch.where(chosen, original, blurred) for chosen in cells)


def _parts(values: np.ndarray, seen: np.ndarray) -> Iterator[np.ndarray]:
    """(rows, columns) bool: the highest tenth of the cells, the highest two tenths, and so on, but not all."""
    order = np.argsort(np.where(seen, -np.nan_to_num(values), np.inf), axis=None, kind="stable")
    for part in range(1, PARTS):
        chosen = np.zeros(seen.size, bool)
        chosen[order[: round(part * seen.sum() / PARTS)]] = True
        yield chosen.reshape(seen.shape)


def _area(between: np.ndarray, start: float, end: float) -> np.ndarray:
    """Mean of each curve (curves, points), by trapezoids."""
    return (between.sum(1) + (start + end) / 2) / PARTS


def _centre(seen: np.ndarray) -> np.ndarray:
    cells = np.indices(seen.shape).reshape(2, -1).T
    return -np.linalg.norm(cells - np.argwhere(seen).mean(0), axis=1).reshape(seen.shape)


def _moved(values: np.ndarray, seen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Roll a map around within what is seen, and perhaps mirror it."""
    box = np.ix_(seen.any(1), seen.any(0))
    inner = np.nan_to_num(values[box])[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
    rows, columns = inner.shape
    moved = np.full(seen.shape, np.nan)
    moved[box] = np.roll(inner, (int(rng.integers(rows)), int(rng.integers(columns))), (0, 1))
    return moved


# --- a ruined model -------------------------------------------------------------------------------------------------


@contextmanager
def shuffled_weights(vlm: "VLM", seed: int = 0) -> Iterator[None]:
    """Shuffle the numbers within every weight of a model, and put them back in the end.

    The randomisation check of Adebayo et al. (2018, arXiv 1810.03292): a map that stays as it was shows the picture,
    not what the model has learnt. Shuffling keeps the size of the numbers, and needs no second model in memory.
    """
    weights = [weight for weight in vlm.model.parameters() if weight.is_floating_point()]
    orders = [_order(weight, seed + at) for at, weight in enumerate(weights)]
    done = 0
    try:
        with torch.no_grad():
            for weight, order in zip(weights, orders, strict=True):
                weight.copy_(weight.flatten()[order()].view_as(weight))
                done += 1
        yield
    finally:
        with torch.no_grad():
            for weight, order in zip(weights[:done], orders, strict=False):
                before = torch.empty_like(weight).flatten()
                before[order()] = weight.flatten()
                weight.copy_(before.view_as(weight))


def _order(weight: Tensor, seed: int) -> Any:
    """Draw the order of a weight's numbers anew each time, which takes no memory in between."""

    def order() -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randperm(weight.numel(), generator=generator).to(weight.device)

    return order


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation of two maps over the cells that both show; 0 where one says nothing."""
    both = np.isfinite(one) & np.isfinite(other)
    if not both.any() or np.ptp(one[both]) == 0 or np.ptp(other[both]) == 0:
        return 0.0
    return float(np.corrcoef(rankdata(one[both]), rankdata(other[both]))[0, 1])


# --- what is known to tell two classes apart ------------------------------------------------------------------------


@dataclass(frozen=True)
class Masks:
    """What is known of a drawn bird, (height, width) bool each.

    Attributes
    ----------
    marks
        The parts by which its species and another differ.
    worn
        Those of them that are marked on this bird; on the others it is the other species that has a mark.
    bird
        All of it.
    """

    marks: np.ndarray
    worn: np.ndarray
    bird: np.ndarray


@dataclass(frozen=True)
class OnMarks:
    """Where a map lies, in a picture of which it is known what tells two classes apart; see `Masks`.

    Attributes
    ----------
    on_marks, on_worn, on_bird
        Share of what is positive in the map that lies there.
    marks_of_bird, worn_of_bird, marks_of_picture
        Share of the bird's area, and of all that is seen, that they take up: what a map has there that knows where the
        bird is and no more, or nothing at all.
    """

    on_marks: float
    on_worn: float
    on_bird: float
    marks_of_bird: float
    worn_of_bird: float
    marks_of_picture: float

    @classmethod
    def of(cls, values: np.ndarray, masks: Masks) -> Self:
        """Measure a map (rows, columns)."""
        seen, positive = np.isfinite(values), np.maximum(np.nan_to_num(values), 0)
        marks, worn, bird = (
            seen * coverage(mask, values.shape) for mask in (masks.marks, masks.worn, masks.bird)
        )
        total, area = max(positive.sum(), 1e-30), max(bird.sum(), 1e-30)
        return cls(
            on_marks=float((positive * marks).sum() / total),
            on_worn=float((positive * worn).sum() / total),
            on_bird=float((positive * bird).sum() / total),
            marks_of_bird=float(marks.sum() / area),
            worn_of_bird=float(worn.sum() / area),
            marks_of_picture=float(marks.sum() / seen.sum()),
        )

    def json(self) -> dict[str, float]:
        """Return plain values."""
        return asdict(self)


def coverage(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Share of every cell that a mask (height, width) covers: (rows, columns) float64 in [0, 1]."""
    rows, columns = shape
    grey = Image.fromarray(mask.astype(np.float32))
    return np.asarray(grey.resize((columns, rows), Image.Resampling.BOX), np.float64)


def masks_of(guide: str | Path, source: str, own: str, other: str) -> Masks | None:
    """Masks of an image of the field guide; None where it is none.

    Parameters
    ----------
    guide
        Folder of the images of a run.
    source
        Of the image, as the run's table has it.
    own, other
        Its class, and the one that it is told apart from.
    """
    path, guide = Path(source), Path(guide)
    inside = path.relative_to(guide) if path.is_absolute() and path.is_relative_to(guide) else path
    if not (guide / ".masks" / inside).with_suffix(".png").exists():
        return None
    try:
        bird, lookalike = species_named(own), species_named(other)
    except KeyError:
        return None
    masks, parts = load_masks(guide, str(inside)), differing_parts(bird, lookalike)
    worn = [part for part in parts if bird.marks.get(part) != "plain"]
    nothing = np.zeros_like(masks["bird"])
    return Masks(
        marks=np.any([masks[part] for part in parts], 0),
        worn=np.any([nothing, *(masks[part] for part in worn)], 0),
        bird=masks["bird"],
    )
