"""A grid of VLMs to train and to compare: encoders, LLMs and plans, and the benchmarks of both groups. A small TOML."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, Literal, Self

from fgdiag.errors import FgdiagError, ImagesNotUsable
from fgdiag.images import open_images
from fgdiag.toml_file import check_table, read_toml
from fgdiag.training import Plan, Teaching, source_and_question

Group = Literal["fine", "general"]
FACTORS = ("encoder", "llm", "plan")
"""What a cell of the grid is made of, beside its seed."""


class GridNotUsable(FgdiagError, ValueError):
    """A description of a grid that cannot be read, or that leaves out what is needed."""


@dataclass(frozen=True)
class Benchmark:
    """One measure of every cell.

    Attributes
    ----------
    name, group
        What it is called, and whether it asks for fine detail or for something general.
    images
        Source of the labelled images, whose test split is asked about.
    question
        What the fine labels answer; empty where the class is asked for as in every run.
    level
        `fine`, or `coarse` for the coarse labels.
    """

    name: str
    group: Group
    images: str
    question: str = ""
    level: Literal["fine", "coarse"] = "fine"

    @property
    def is_run(self) -> bool:
        """Whether it is measured by a whole run, with probes: names of fine classes."""
        return self.level == "fine" and not self.question

    @classmethod
    def of(cls, name: str, group: Group, given: "str | Mapping[str, str]") -> Self:
        """Read `IMAGES`, `IMAGES?QUESTION` or a table with `images` and `level`."""
        table = {"images": given} if isinstance(given, str) else given
        check_table(f"Benchmark {name}", table, ("images", "level"), GridNotUsable)
        if "images" not in table:
            raise GridNotUsable(f"Benchmark {name} has no images; expected a source of labelled images.")
        images, question = source_and_question(table["images"])
        level = table.get("level", "fine")
        if level not in ("fine", "coarse"):
            raise GridNotUsable(f"Benchmark {name} has level = {level!r}; expected fine or coarse.")
        return cls(name, group, images, question, level)


@dataclass(frozen=True)
class Cell:
    """One VLM of the grid."""

    encoder: str
    llm: str
    plan: str
    seed: int

    @property
    def name(self) -> str:
        """Fit for a folder."""
        return f"{self.encoder}+{self.llm}+{self.plan}+seed{self.seed}"


@dataclass(frozen=True)
class Grid:
    """What is built, what it learns from, and what is measured.

    Attributes
    ----------
    encoders, llms
        By name, what `fgdiag.assemble.assemble` is given; from the weaker to the stronger, in the user's view.
    plans
        By name, how they are trained.
    seeds
        Of projector, order and questions; all cells of the first one come first.
    joint
        What all cells are joined by: `projector`, `merge`, `projector_width`.
    learn
        `IMAGES` or `IMAGES?QUESTION`, as for `fgdiag train`.
    benchmarks
        Of both groups.
    limit
        Images of a class in each split, at most, in benchmarks of class names; 0 for all.
    """

    encoders: Mapping[str, Mapping[str, Any]]
    llms: Mapping[str, Mapping[str, Any]]
    plans: Mapping[str, Plan]
    learn: tuple[str, ...]
    benchmarks: tuple[Benchmark, ...]
    seeds: tuple[int, ...] = (0,)
    joint: Mapping[str, Any] = field(default_factory=dict)
    limit: int = 0

    @property
    def cells(self) -> list[Cell]:
        """All cells, those of the first seed first."""
        return [
            Cell(encoder, llm, plan, seed)
            for seed, encoder, llm, plan in product(self.seeds, self.encoders, self.llms, self.plans)
        ]

    def parts(self, cell: Cell) -> dict[str, Any]:
        """What `assemble` is given for a cell."""
        return {**self.joint, **self.encoders[cell.encoder], **self.llms[cell.llm], "seed": cell.seed}

    @property
    def levels(self) -> dict[str, list[str]]:
        """Names of every factor, from the weaker to the stronger."""
        return {"encoder": list(self.encoders), "llm": list(self.llms), "plan": list(self.plans)}

    def settings(self, cell: Cell, digests: Mapping[str, str]) -> dict[str, Any]:
        """What a cell's scores rest on, as plain values; images by their digests, wherever they lie."""
        benchmarks = [asdict(one) | {"images": digests[one.images]} for one in self.benchmarks]
        return {
            "parts": self.parts(cell),
            "plan": self.plans[cell.plan].json(),
            "learn": [digests[source] for source in self.learn],
            "benchmarks": benchmarks,
            "limit": self.limit,
        }

    def digests(self) -> dict[str, str]:
        """What changes with the images of each source, which are opened to see that they can be learnt and asked.

        Raises
        ------
        ImagesNotUsable
            A source has no images, or no coarse classes where they are asked for.
        """
        learnt = {source: source_and_question(source) for source in self.learn}
        places = dict.fromkeys(
            [*(place for place, _ in learnt.values()), *(one.images for one in self.benchmarks)]
        )
        opened = {place: open_images(place) for place in places}
        for one in self.benchmarks:
            if one.level == "coarse" and "coarse" not in opened[one.images].levels:
                raise ImagesNotUsable(
                    f"{one.images} has no coarse classes to measure {one.name} by; give images in folders of folders, "
                    "or leave `level` out."
                )
        found = {place: images.digest for place, images in opened.items()}
        return found | {
            source: Teaching.of(opened[place], question).digest
            for source, (place, question) in learnt.items()
        }

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a TOML file; sources of images may be relative to it.

        Raises
        ------
        GridNotUsable
            It cannot be read, or leaves out what is needed.
        PlanNotUsable
            One of its plans cannot be meant.
        """
        return cls.of(read_toml(path, "grid", GridNotUsable), Path(path).parent)

    @classmethod
    def of(cls, table: Mapping[str, Any], folder: Path = Path()) -> Self:
        """Make a grid of what a TOML file in `folder` holds."""
        needed, known = ("encoder", "llm", "plan", "learn", "fine"), ("general", "seeds", "limit", "joint")
        check_table("A grid", table, (*needed, *known), GridNotUsable)
        if missing := [name for name in needed if not table.get(name)]:
            raise GridNotUsable(f"A grid has no {missing[0]}; expected {', '.join(needed)} in it.")
        groups: tuple[Group, ...] = ("fine", "general")
        for name in ("encoder", "llm", "plan", *groups):
            if not isinstance(table.get(name, {}), Mapping):
                raise GridNotUsable(
                    f"A grid has {name} = {table[name]!r}; expected a table [{name}] of names."
                )
        benchmarks = [
            Benchmark.of(name, group, _placed(given, folder))
            for group in groups
            for name, given in table.get(group, {}).items()
        ]
        if not any(one.is_run and one.group == "fine" for one in benchmarks):
            raise GridNotUsable(
                "A grid needs a fine benchmark without a question of its own: names of classes."
            )
        names = [one.name for one in benchmarks]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise GridNotUsable(f"A grid has two benchmarks named {twice[0]!r}; expected a name for each.")
        learn, seeds, limit = table["learn"], table.get("seeds", [0]), table.get("limit", 0)
        learn = [learn] if isinstance(learn, str) else learn
        if not _all_are(learn, str):
            raise GridNotUsable(f"A grid has learn = {learn!r}; expected a list of sources of images.")
        if not _all_are(seeds, int) or not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise GridNotUsable(
                f"A grid has seeds = {seeds!r}; expected a list of numbers from 0 on, each once."
            )
        if not _all_are([limit], int) or limit < 0:
            raise GridNotUsable(f"A grid has limit = {limit!r}; expected a number of images, 0 for all.")
        joint = table.get("joint", {})
        check_table("joint", joint, _JOINT, GridNotUsable)
        return cls(
            encoders=_parts("encoder", table, folder),
            llms=_parts("llm", table, folder),
            plans={name: Plan.of(plan) for name, plan in table["plan"].items()},
            learn=tuple(_placed(source, folder) for source in learn),
            benchmarks=tuple(benchmarks),
            seeds=tuple(seeds),
            joint=joint,
            limit=limit,
        )


_JOINT = ("projector", "merge", "projector_width")
_OF_PART = {"encoder": ("encoder", "resolution", "merge", "projector"), "llm": ("llm", "llm_layers")}


def _all_are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and all(
        isinstance(one, kind) and not isinstance(one, bool) for one in values
    )


def _parts(factor: str, table: Mapping[str, Any], folder: Path) -> dict[str, dict[str, Any]]:
    """Named encoders or LLMs: a source, or a table of what `assemble` is given."""
    found = {}
    for name, given in table[factor].items():
        options = {factor: given} if isinstance(given, str) else given
        check_table(f"{factor} {name}", options, _OF_PART[factor], GridNotUsable)
        if factor not in options:
            raise GridNotUsable(
                f"{factor} {name} has no {factor}; expected a hub id, a folder or a short name."
            )
        found[name] = {**options, factor: _placed(options[factor], folder)}
    return found


def _placed(given: Any, folder: Path) -> Any:
    """A source of images or of a model; one that lies beside the grid's file is meant from there."""
    if isinstance(given, Mapping) and "images" in given:
        return {**given, "images": _placed(given["images"], folder)}
    if not isinstance(given, str):
        return given
    place, mark, question = given.partition("?")
    beside = folder / Path(place).expanduser()
    return f"{beside.resolve()}{mark}{question}" if beside.exists() else given
