"""What a training is made of: stages, each of some parts of the model, and what is asked. Written as a small TOML."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any, Literal, Self, get_args

from fgdiag.errors import FgdiagError
from fgdiag.toml_file import check_table, read_toml
from fgdiag.training.lessons import KINDS

Part = Literal["projector", "encoder", "llm", "llm-lora"]
PARTS: tuple[Part, ...] = get_args(Part)


class PlanNotUsable(FgdiagError, ValueError):
    """A plan of a training that cannot be read, or that contradicts itself."""


@dataclass(frozen=True)
class Stage:
    """Some parts of the model, trained for some time.

    Attributes
    ----------
    train
        Parts that learn: `projector`, `encoder`, `llm` (whole) or `llm-lora` (low-rank adapters on its linear layers,
        Hu et al. 2021, merged into its weights at the end).
    epochs, steps, minutes
        How long: passes over the training images, steps of the optimiser, or minutes of training; one of the three.
    learning_rate
        Peak of AdamW's cosine schedule.
    weight_decay
        Of AdamW.
    lora_rank
        Of the adapters; their updates are scaled by 2.
    patience
        Stop after so many passes without a lower validation loss, and keep the weights of the lowest; 0 for never.
    """

    train: tuple[Part, ...] = ("projector",)
    epochs: float | None = None
    steps: int | None = None
    minutes: float | None = None
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    lora_rank: int = 16
    patience: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if not isinstance(self.train, str | list | tuple):
            raise PlanNotUsable(f"A stage has train = {self.train!r}; expected some of {', '.join(PARTS)}.")
        object.__setattr__(self, "train", (self.train,) if isinstance(self.train, str) else tuple(self.train))
        unknown = [part for part in self.train if part not in PARTS]
        if unknown or not self.train:
            raise PlanNotUsable(
                f"A stage trains {', '.join(map(repr, unknown)) or 'nothing'}; expected some of {', '.join(PARTS)}."
            )
        if {"llm", "llm-lora"} <= set(self.train):
            raise PlanNotUsable("A stage trains llm and llm-lora; expected one of the two.")
        given = {name: getattr(self, name) for name in ("epochs", "steps", "minutes")}
        long = {name: value for name, value in given.items() if value is not None}
        rates = {"learning_rate": self.learning_rate, "weight_decay": self.weight_decay}
        _check_numbers("A stage", long | rates)
        steps = {} if self.steps is None else {"steps": self.steps}
        _check_counts("A stage", {"lora_rank": self.lora_rank, **steps}, least=1)
        _check_counts("A stage", {"patience": self.patience}, least=0)
        if len(long) != 1 or min(long.values()) <= 0:
            raise PlanNotUsable(
                f"A stage of {', '.join(self.train)} has {long or 'no length'}; expected one of epochs, steps and "
                "minutes, above 0."
            )


@dataclass(frozen=True)
class Plan:
    """How a model is trained; a training resumes only under the same plan.

    Attributes
    ----------
    stages
        One after the other.
    ask
        Share of questions of each kind, see `fgdiag.training.KINDS`.
    batch_size
        Images a step, over all devices.
    accumulate
        Into how many parts a batch is cut, to fit into memory; the gradient is the same.
    views
        How many versions of each image are shown in turn: the image itself, then random crops.
    warm_start
        Whether the projector starts in closed form (see `fgdiag.training.warm_start`) or as it is in the folder.
    seed
        Of the crops, the questions and the order.
    """

    stages: tuple[Stage, ...] = field(default_factory=lambda: (Stage(epochs=6),))
    ask: Mapping[str, float] = field(default_factory=lambda: {"fine": 0.7, "coarse": 0.3})
    batch_size: int = 32
    accumulate: int = 1
    views: int = 1
    warm_start: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be asked or cut."""
        if not isinstance(self.ask, Mapping):
            raise PlanNotUsable(
                f"A plan has ask = {self.ask!r}; expected shares, such as ask = {{ fine = 1 }}."
            )
        _check_numbers("A plan", self.ask)
        sizes = {name: getattr(self, name) for name in ("batch_size", "accumulate", "views")}
        _check_counts("A plan", sizes, least=1)
        _check_counts("A plan", {"seed": self.seed}, least=0)
        unknown = [kind for kind in self.ask if kind not in KINDS]
        if unknown or not sum(self.ask.values()) > 0:
            raise PlanNotUsable(
                f"A plan asks {dict(self.ask)}; expected shares above 0 of some of {', '.join(KINDS)}."
            )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a TOML file.

        Raises
        ------
        PlanNotUsable
            It cannot be read, has an unknown key, or asks for what cannot be.

        Examples
        --------
        A projector first, then the projector with the LLM::

            views = 3
            ask = { fine = 0.7, coarse = 0.3 }

            [[stage]]
            train = ["projector"]
            epochs = 3

            [[stage]]
            train = ["projector", "llm-lora"]
            minutes = 20
            learning_rate = 2e-4
        """
        return cls.of(read_toml(path, "plan", PlanNotUsable))

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Self:
        """Make a plan of what a TOML file holds; `PlanNotUsable` where something in it is unknown."""
        known = [name for name in _names(cls) if name != "stages"] + ["stage"]
        check_table("A plan", table, known, PlanNotUsable)
        stages = table.get("stage", [])
        if not isinstance(stages, list):
            raise PlanNotUsable(f"A plan has stage = {stages!r}; expected one or more tables [[stage]].")
        for stage in stages:
            check_table("A stage", stage, _names(Stage), PlanNotUsable)
        rest = {name: value for name, value in table.items() if name != "stage"}
        if stages:
            rest["stages"] = tuple(Stage(**stage) for stage in stages)
        return cls(**rest)

    def json(self) -> dict[str, Any]:
        """All of it, as plain values."""
        return asdict(self) | {"ask": dict(self.ask)}


def _names(kind: type) -> list[str]:
    return [one.name for one in fields(kind)]  # pyright: ignore[reportArgumentType]


def _check_numbers(what: str, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < inf:
            raise PlanNotUsable(f"{what} has {name} = {value!r}; expected a number, 0 or more.")


def _check_counts(what: str, values: Mapping[str, Any], *, least: int) -> None:
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise PlanNotUsable(f"{what} has {name} = {value!r}; expected a whole number, {least} or more.")
