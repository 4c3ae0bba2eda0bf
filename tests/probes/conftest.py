"""Runs made of numbers: known signal at every site, so every answer of a probe is known beforehand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fgdiag.errors import RunIncomplete
from fgdiag.sites import Site


class PlantedRun:
    """Has what probes use of `fgdiag.store.Run`, with activations in memory."""

    def __init__(self, path: Path, images: pd.DataFrame, activations: dict[tuple[str, str], np.ndarray]):
        self.path, self.images, self._activations = path, images, activations
        levels = ["fine"] if images["coarse"].equals(images["fine"]) else ["fine", "coarse"]
        self.manifest: dict[str, Any] = {
            "model": "planted",
            "fingerprint": "planted",
            "prompt": "What is this?",
            "dtype": "float32",
            "images": {"name": "planted", "digest": str(len(images)), "count": len(images), "levels": levels},
        }
        self.reads = 0

    @property
    def sites(self) -> tuple[Site, ...]:
        return tuple(sorted({Site.parse(site) for site, _ in self._activations}))

    def readouts(self, site: str) -> tuple[str, ...]:
        return tuple(readout for name, readout in self._activations if name == site)

    def activations(self, site: str, readout: str) -> np.ndarray:
        self.reads += 1
        return self._activations[site, readout]

    def has_tokens(self, site: str) -> bool:
        return False

    def result_path(self, name: str) -> Path:
        path = self.path / "results" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_json(self, name: str, value: object) -> None:
        self.result_path(f"{name}.json").write_text(json.dumps(value))

    def read_json(self, name: str) -> Any:
        return json.loads(self.result_path(f"{name}.json").read_text())

    def write_table(self, name: str, table: pd.DataFrame) -> None:
        table.to_parquet(self.result_path(f"{name}.parquet"))

    def read_table(self, name: str) -> pd.DataFrame:
        path = self.result_path(f"{name}.parquet")
        if not path.exists():
            raise RunIncomplete(f"There is no {name} yet.")
        return pd.read_parquet(path)


SITES = ("vision", "projector", "llm.0", "llm.1", "llm.2", "llm.norm")


def plant(
    path: Path,
    *,
    kept: dict[str, float] | None = None,
    kind_kept: dict[str, float] | None = None,
    answer_kept: float | None = 1.0,
    signal: float = 2.2,
    pixel_signal: float = 0.3,
    kinds: int = 5,
    per_kind: int = 4,
    train: int = 14,
    test: int = 10,
    seed: int = 0,
    sites: tuple[str, ...] = SITES,
    readouts: tuple[str, ...] = ("image", "last", "pre"),
) -> PlantedRun:
    """Make a run in which every image has one latent vector that each site shows turned, with some noise.

    Parameters
    ----------
    kept, kind_kept
        Share (0 to 1) of the fine and of the coarse part of the latent still there at a site and at all later
        ones, until another is given. The rest is replaced by noise, so its size tells nothing.
    answer_kept
        The same for the answers, on top of what the last site keeps; None: no answers.
    signal
        Distance of class means in units of the noise between images of a class.
    """
    rng = np.random.default_rng(seed)
    classes, width = kinds * per_kind, 12
    fine = np.repeat(np.arange(classes), train + test)
    split = np.tile(["train"] * train + ["test"] * test, classes)
    coarse = fine // per_kind
    images = pd.DataFrame(
        {
            "id": [f"{i:05d}" for i in range(len(fine))],
            "fine": [f"species {i:02d}" for i in fine],
            "coarse": [f"genus {i}" for i in coarse],
            "split": split,
            "status": "ok",
        }
    )
    images["group"] = images["id"]
    kind_means = rng.standard_normal((kinds, width))
    fine_means = rng.standard_normal((classes, width))
    kind = 3.0 * kind_means[coarse] + rng.standard_normal((len(fine), width))
    detail = signal * fine_means[fine] + 2.0 * rng.standard_normal((len(fine), width))
    detail_size = detail.std()

    def damaged(part: np.ndarray, share: float, scale: float) -> np.ndarray:
        return share * part + (1 - share**2) ** 0.5 * scale * rng.standard_normal(part.shape)

    activations: dict[tuple[str, str], np.ndarray] = {}
    share, kind_share = 1.0, 1.0
    for site in sites:
        share *= (kept or {}).get(site, 1.0)
        kind_share *= (kind_kept or {}).get(site, 1.0)
        shown = np.hstack([damaged(kind, kind_share, kind.std()), damaged(detail, share, detail_size)])
        turn = np.linalg.qr(rng.standard_normal((2 * width, 2 * width)))[0]
        noisy = shown @ turn + 0.3 * rng.standard_normal(shown.shape) + 5.0
        activations[site, "image"] = noisy.astype(np.float32)
        if site.startswith("llm") and "last" in readouts:
            last = noisy + 1.5 * rng.standard_normal(shown.shape)
            activations[site, "last"] = last.astype(np.float32)
        if site.startswith("llm") and "pre" in readouts:
            rounding = 1e-7 * rng.standard_normal(shown.shape)
            activations[site, "pre"] = (np.arange(1, 2 * width + 1) * (1 + rounding)).astype(np.float32)
    pixels = pixel_signal * kind_means[coarse] + rng.standard_normal((len(fine), width))
    activations["pixels", "image"] = pixels.astype(np.float32)
    run = PlantedRun(path, images, activations)
    if answer_kept is not None:
        share *= answer_kept
        seen = damaged(detail, share, detail_size)
        logits = -np.square(seen[:, None] - signal * share * fine_means).sum(2)
        logits -= np.square(kind[:, None] - 3.0 * kind_means).sum(2)[:, np.arange(classes) // per_kind]
        run.write_table("answers", _answers(images, logits / 8, fine, coarse))
    return run


def _answers(images: pd.DataFrame, logits: np.ndarray, fine: np.ndarray, coarse: np.ndarray) -> pd.DataFrame:
    names = np.unique(images["fine"])
    per_kind = len(names) // (coarse.max() + 1)
    kind_of_name = np.arange(len(names)) // per_kind
    rows = np.flatnonzero(images["split"] == "test")
    logits, fine, coarse = logits[rows], fine[rows], coarse[rows]

    def bits(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
        top = scores.max(1, keepdims=True)
        log_total = np.log(np.exp(scores - top).sum(1)) + top[:, 0]
        return (log_total - np.take_along_axis(scores, truth[:, None], 1)[:, 0]) / np.log(2)

    within = np.where(kind_of_name == coarse[:, None], logits, -np.inf)
    by_kind = np.stack([logits[:, kind_of_name == kind].max(1) for kind in range(coarse.max() + 1)], axis=1)
    return pd.DataFrame(
        {
            "row": rows,
            "fine": names[fine],
            "coarse": images["coarse"].to_numpy()[rows],
            "said_fine": names[logits.argmax(1)],
            "said_fine_within_coarse": names[within.argmax(1)],
            "said_coarse": np.unique(images["coarse"])[by_kind.argmax(1)],
            "bits_fine": bits(logits, fine),
            "bits_fine_within_coarse": bits(within, fine),
            "bits_coarse": bits(by_kind, coarse),
        }
    )


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., PlantedRun]:
    """Return `plant`, with a folder of its own for each run."""
    return lambda **how: plant(tmp_path_factory.mktemp("run"), **how)
