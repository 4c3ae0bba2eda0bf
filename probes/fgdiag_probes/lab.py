"""The ablation lab: build, train and measure every cell of a grid, and say what each swap of a part is worth."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from fgdiag.errors import FgdiagError, NoSpace, RunBusy, RunIncomplete
from fgdiag.progress import say
from fgdiag.store import locked, write_json
from fgdiag_probes.asymmetry import DRAWS, Estimate, Levels, Swap, interaction, swaps
from fgdiag_probes.cell import EFFORT, SCORES, STAGE_SCORES, measure
from fgdiag_probes.claims import Claim, claims
from fgdiag_probes.effort import read_effort
from fgdiag_probes.grid import FACTORS, Cell, Grid

KEYS = [*FACTORS, "seed"]
FEW_CELLS = 3
"""Fewer have no correlation worth the name."""


@dataclass(frozen=True)
class Ablation:
    """The measured cells of a grid.

    Attributes
    ----------
    scores, stages
        As `fgdiag_probes.asymmetry.swaps` takes them.
    efforts
        One row a cell: minutes of training and of measuring, and the most memory held, in GiB.
    levels
        Of every factor, from the weaker to the stronger; by default as they are met.
    planned
        How many cells the grid has; 0 where that is not known.
    failed
        Why cells could not be done, by their names.
    """

    scores: pd.DataFrame
    stages: pd.DataFrame
    efforts: pd.DataFrame = field(default_factory=pd.DataFrame)
    levels: Levels | None = None
    planned: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, grid: Grid, out: str | Path) -> Self:
        """Collect the cells that are measured; `RunIncomplete` where there is none."""
        done = [(cell, _folder(Path(out), cell)) for cell in grid.cells]
        done = [(cell, folder) for cell, folder in done if (folder / SCORES).exists()]
        if not done:
            raise RunIncomplete(f"{out} has no measured cell yet; run `fgdiag ablate` until one is done.")
        scores, stages = (
            pd.concat(
                [pd.read_parquet(folder / name).assign(**asdict(cell)) for cell, folder in done],
                ignore_index=True,
            )
            for name in (SCORES, STAGE_SCORES)
        )
        efforts = pd.DataFrame([{"cell": cell.name, **_effort(folder)} for cell, folder in done])
        return cls(scores, stages, efforts, grid.levels, len(grid.cells))

    @cached_property
    def swaps(self) -> list[Swap]:
        """What each swap of a part is worth."""
        return swaps(self.scores, self.stages, self.levels)

    @cached_property
    def claims(self) -> list[Claim]:
        """What the swaps say of the paper's claims."""
        return claims(self.swaps)

    def frame(self) -> pd.DataFrame:
        """One row a cell: accuracy in per cent on each benchmark and measure, and the mean of each group."""
        keys = [*KEYS, "group", "benchmark", "measure"]
        wide = self.scores.pivot_table(index=keys, values="right", sort=False).reset_index()
        wide["accuracy"] = 100 * wide["right"]
        wide["what"] = wide["benchmark"] + ", " + wide["measure"]
        table = wide.pivot_table(index=KEYS, columns="what", values="accuracy", sort=False)
        means = wide.pivot_table(index=KEYS, columns="group", values="accuracy", sort=False)
        return means.join(table).reset_index()

    def correlation(self, *, seed: int = 0) -> Estimate:
        """Spearman's correlation of fine and general scores over cells; bootstrap over cells, wide for few."""
        means = self.frame()
        unknown = Estimate(float("nan"), float("nan"), float("nan"))
        if "general" not in means or len(means) < FEW_CELLS:
            return unknown
        pairs, rng = means[["fine", "general"]].to_numpy(float), np.random.default_rng(seed)
        draws = [pairs[rng.integers(len(pairs), size=len(pairs))] for _ in range(DRAWS)]
        found = [_ranked_alike(one) for one in draws if (np.ptp(one, axis=0) > 0).all()]
        if not found:
            return unknown
        low, high = np.quantile(found, [0.025, 0.975])
        return Estimate(_ranked_alike(pairs), float(low), float(high))

    def json(self) -> dict[str, Any]:
        """Cells, swaps, claims and the correlation."""
        return {
            "cells": self.frame().to_dict("records"),
            "planned": self.planned,
            "failed": dict(self.failed),
            "efforts": json.loads(str(self.efforts.to_json(orient="records"))),
            "swaps": [swap.json() for swap in self.swaps],
            "claims": [
                {"claim": one.claim, "swap": _name(one.swap), "ruling": one.ruling, "reason": one.reason}
                for one in self.claims
            ],
            "interaction": {name: one.json() for name, one in interaction(self.scores, self.levels).items()},
            "correlation": self.correlation().json(),
        }


def ablate(grid: Grid, out: str | Path, *, device: str = "auto") -> Ablation:
    """Do every cell of a grid that is not done and that no other process is doing, and compare what is there.

    Parameters
    ----------
    grid
        What is built and measured.
    out
        Folder of the cells; each holds its VLM in `vlm`, its runs in `runs`, and its scores. `out/ablation.json` has
        the outcome. Start it again on another device, and the two share the cells out. A cell that cannot be done is
        told of, and the others go on.
    device
        Where each cell is trained and measured.

    Raises
    ------
    ImagesNotUsable
        A source has no images, or no coarse classes where they are asked for.
    RunIncomplete
        Not one cell is measured, as all are being done by others or have failed.
    """
    out, digests, failed = Path(out), grid.digests(), {}
    for number, cell in enumerate(grid.cells, start=1):
        say(f"cell {number} of {len(grid.cells)}: {cell.name}")
        try:
            with locked(_folder(out, cell)):
                measure(cell, grid, digests, _folder(out, cell), out / "features", device=device)
        except RunBusy:
            say("  another process is at it")
        except NoSpace:
            raise  # nor would the next cell find any
        except FgdiagError as error:
            say(f"  cannot be done: {error}")
            failed[cell.name] = str(error)
    found = replace(Ablation.read(grid, out), failed=failed)
    write_json(out / "ablation.json", found.json())
    return found


def todo(grid: Grid, out: str | Path) -> Sequence[Cell]:
    """Cells that are not measured yet."""
    return [cell for cell in grid.cells if not (_folder(Path(out), cell) / SCORES).exists()]


def minutes_left(grid: Grid, out: str | Path) -> float | None:
    """Minutes that the cells to do will take, if each takes as long as those that are done; None while none is."""
    left = todo(grid, out)
    efforts = [read_effort(_folder(Path(out), cell) / EFFORT) for cell in grid.cells if cell not in left]
    taken = [sum(work["minutes"] for work in effort.values()) for effort in efforts if effort]
    return len(left) * sum(taken) / len(taken) if taken else None


def _effort(folder: Path) -> dict[str, float]:
    noted = read_effort(folder / EFFORT)
    minutes = {f"{work}, minutes": found["minutes"] for work, found in noted.items()}
    return minutes | {"memory, GiB": max((found["GiB"] for found in noted.values()), default=0.0)}


def _folder(out: Path, cell: Cell) -> Path:
    return out / "cells" / cell.name


def _ranked_alike(pairs: np.ndarray) -> float:
    """Spearman's correlation of two columns."""
    return float(np.asarray(spearmanr(*pairs.T))[0])


def _name(swap: Swap) -> str:
    return f"{swap.factor}: {swap.before} to {swap.after}"
