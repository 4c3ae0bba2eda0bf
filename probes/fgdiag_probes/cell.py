"""One cell of a grid: its VLM assembled, trained and measured on every benchmark, each step resumable."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fgdiag.assemble import assemble, write_assembled
from fgdiag.errors import ImagesNotUsable, ImageUnreadable
from fgdiag.extraction import extract
from fgdiag.images import open_images
from fgdiag.progress import say, track
from fgdiag.prompts import COARSE_QUESTION, spoken
from fgdiag.store import Run, same_settings, write_table
from fgdiag.training import Teaching, train
from fgdiag.vlm import open_vlm
from fgdiag_probes.answered import kept_scores, read_answers
from fgdiag_probes.answers import answer
from fgdiag_probes.curves import probe_layers
from fgdiag_probes.effort import noted_effort
from fgdiag_probes.extra_loss import STAGES, Seen
from fgdiag_probes.grid import Benchmark, Cell, Grid
from fgdiag_probes.likelihood import name_likelihood

if TYPE_CHECKING:
    from PIL.Image import Image

    from fgdiag.image_set import ImageSet
    from fgdiag.vlm import VLM

FIVE = 5
"""Names of the choice among a few: the right one and others of its kind."""
IMAGES_A_PART = 64
SCORES, STAGE_SCORES, EFFORT = "scores.parquet", "stages.parquet", "effort.json"


def measure(
    cell: Cell,
    grid: Grid,
    digests: Mapping[str, str],
    folder: Path,
    features: Path,
    *,
    device: str = "auto",
) -> None:
    """Build, train and measure a cell in `folder`; what is done already is not done again.

    Writes `scores.parquet`, a row for each benchmark, measure and test image: `right` (0 or 1), `chance`, and
    `cluster`, the class (the image where a question has its own answers); `stages.parquet`, what the best readout
    at the end of each stage of the model and the answer name right on the images of each fine benchmark; and
    `effort.json`, what training and measuring took.

    Parameters
    ----------
    digests
        Of the images, see `Grid.digests`.
    features
        Folder of what frozen encoders put out, which cells share.

    Raises
    ------
    RunMismatch
        The folder holds the same cell of another grid, or of other images.
    """
    same_settings(folder / "cell.json", grid.settings(cell, digests), "a cell")
    if (folder / SCORES).exists():
        return
    with noted_effort(folder / EFFORT, "training"):
        trained = _trained(cell, grid, folder, features, device)
    with noted_effort(folder / EFFORT, "measuring"):
        _measure(open_vlm(trained, device=device), cell, grid, folder)


def _measure(vlm: "VLM", cell: Cell, grid: Grid, folder: Path) -> None:
    """Write the scores of a trained cell."""
    scores, stages = [], []
    for benchmark in grid.benchmarks:
        images = open_images(benchmark.images, limit=None if benchmark.question else grid.limit or None)
        if benchmark.is_run:
            run = _run(vlm, images, folder / "runs" / benchmark.name)
            scores += [_all_names(run, benchmark), _five_names(run, benchmark, cell.seed)]
            if benchmark.group == "fine":
                stages.append(_stages(run, benchmark))
        else:
            scores.append(_asked(vlm, images, benchmark, folder / "asked" / f"{benchmark.name}.parquet"))
    write_table(folder / STAGE_SCORES, pd.concat(stages, ignore_index=True))
    write_table(folder / SCORES, pd.concat(scores, ignore_index=True))


def _trained(cell: Cell, grid: Grid, folder: Path, features: Path, device: str) -> Path:
    """Folder of the trained VLM."""
    vlm, joined = folder / "vlm", folder / "joined"
    if (vlm / "config.json").exists():
        return vlm
    say(f"{cell.name}: training")
    if not (joined / "config.json").exists():
        write_assembled(*assemble(**grid.parts(cell)), joined)
    teachings = [Teaching.open(source) for source in grid.learn]
    plan = replace(grid.plans[cell.plan], seed=cell.seed)
    train(joined, teachings, vlm, plan, device=device, features=features)
    shutil.rmtree(joined)
    return vlm


def _run(vlm: "VLM", images: "ImageSet", path: Path) -> Run:
    """An ordinary run of the cell, asked and probed."""
    run = extract(vlm, images, path)
    if not run.result_path("answers.parquet").exists():
        answer(run, vlm, images)
    probe_layers(run, seed=run.manifest["seed"])
    return run


def _all_names(run: Run, benchmark: Benchmark) -> pd.DataFrame:
    """The likeliest of all fine names."""
    scores = _scores(run)
    return _rows(benchmark, "all names", run.images, scores.index, scores.to_numpy(), scores.columns)


def _five_names(run: Run, benchmark: Benchmark, seed: int) -> pd.DataFrame:
    """The likeliest of five names: the right one and four others, of its kind where there are as many."""
    scores = _scores(run)
    names = scores.columns.to_numpy(str)
    fine, coarse = (run.images[level].to_numpy(str) for level in ("fine", "coarse"))
    kind_of = dict(zip(fine, coarse, strict=True))
    kinds = np.array([kind_of[name] for name in names])
    offered = np.full(scores.shape, -np.inf, np.float32)
    for k, row in enumerate(scores.index):
        rng = np.random.default_rng((seed, k))
        order = rng.permutation(np.flatnonzero(names != fine[row]))
        near = order[np.argsort(kinds[order] != coarse[row], kind="stable")][: FIVE - 1]
        chosen = [*near, int(np.flatnonzero(names == fine[row])[0])]
        offered[k, chosen] = scores.to_numpy()[k, chosen]
    return _rows(benchmark, "five names", run.images, scores.index, offered, names)


def _scores(run: Run) -> pd.DataFrame:
    scores = kept_scores(run, "fine")
    if scores is None:
        raise RuntimeError(f"{run.path} has answers without their scores")
    return scores


def _asked(vlm: "VLM", images: "ImageSet", benchmark: Benchmark, kept: Path) -> pd.DataFrame:
    """The likeliest of all answers to the benchmark's question; kept, so that it is not asked again."""
    if kept.exists():
        return pd.read_parquet(kept)
    table = images.table
    rows = np.flatnonzero(((table["split"] == "test") & (table["status"] == "ok")).to_numpy())
    if not len(rows):
        raise ImagesNotUsable(
            f"{benchmark.images} has no readable test image to measure {benchmark.name} on."
        )
    used = table.loc[table["split"] != "excluded", benchmark.level]
    names = np.unique(used.to_numpy(str))
    question = benchmark.question or COARSE_QUESTION
    said = [spoken(name) for name in names]
    parts = np.array_split(rows, -(-len(rows) // IMAGES_A_PART))
    shown = track(parts, description=f"asking {benchmark.name}", total=len(rows), size=IMAGES_A_PART)
    opened, scores = [], []
    for part in shown:
        readable, pictures = _readable(images, part)
        if pictures:
            opened += readable
            scores.append(name_likelihood(vlm, pictures, said, question))
    if not opened:
        raise ImagesNotUsable(f"No test image of {benchmark.images} can be read to measure {benchmark.name}.")
    found = _rows(benchmark, "all names", table, opened, np.concatenate(scores), names)
    kept.parent.mkdir(exist_ok=True)
    write_table(kept, found)
    return found


def _readable(images: "ImageSet", rows: np.ndarray) -> tuple[list[int], list["Image"]]:
    """Rows whose images can be decoded, and these images."""
    opened: dict[int, Image] = {}
    for row in rows.tolist():
        try:
            opened[row] = images.open(row)
        except ImageUnreadable as error:
            say(f"  left out: {error}")
    return list(opened), list(opened.values())


def _rows(
    benchmark: Benchmark,
    measure: str,
    table: pd.DataFrame,
    rows: Sequence[int] | np.ndarray | pd.Index,
    scores: np.ndarray,
    names: Sequence[str] | np.ndarray | pd.Index,
) -> pd.DataFrame:
    true = table[benchmark.level].to_numpy(str)[np.asarray(rows)]
    offered = np.isfinite(scores).sum(1)
    return pd.DataFrame(
        {
            "group": benchmark.group,
            "benchmark": benchmark.name,
            "measure": measure,
            "image": table["id"].to_numpy(str)[np.asarray(rows)],
            # A question's answers are all there are; names of classes stand for other classes of the same sort.
            "cluster": table["id" if benchmark.question else "fine"].to_numpy(str)[np.asarray(rows)],
            "right": (np.asarray(names, str)[scores.argmax(1)] == true).astype(np.int8),
            "chance": (1 / offered).astype(np.float32),
        }
    )


def _stages(run: Run, benchmark: Benchmark) -> pd.DataFrame:
    """What the end of each stage names right, image by image, in the order of the images' ids."""
    curves = probe_layers(run, seed=run.manifest["seed"])
    answers = (read_answers(run, curves.labels) or {})["fine"]
    seen = Seen.of(run, curves, answers)
    found = {stage: seen.stages[k].astype(np.int8) for k, stage in enumerate(STAGES)}
    return pd.DataFrame({"benchmark": benchmark.name, "cluster": seen.clusters, **found})
