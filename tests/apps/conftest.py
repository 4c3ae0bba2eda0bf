"""The command line on a tiny random LLaVA and drawn images, in this process and in a folder of its own."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fgdiag_cli.main import app
from PIL import Image
from typer.testing import CliRunner

from tests.fgdiag import tiny

KINDS = {"warbler": ("wood warbler", "Grüner Laubsänger"), "owl": ("barn owl", "eagle-owl", "ミミズク")}
PER_CLASS = 8


@dataclass(frozen=True)
class Ended:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def told(self) -> str:
        """The last line on stderr."""
        return self.err.splitlines()[-1]

    def json(self) -> Any:
        return json.loads(self.out)


Fgdiag = Callable[..., Ended]


def type_in(*words: str) -> Ended:
    """Run `fgdiag WORDS`. An exception that the command line lets through is raised."""
    result = CliRunner().invoke(app, words, prog_name="fgdiag")
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def draw_images(folder: Path) -> Path:
    """`<kind>/<class>/<n>.png`, each class of its own colour."""
    rng = np.random.default_rng(0)
    for kind, classes in KINDS.items():
        for fine in classes:
            (folder / kind / fine).mkdir(parents=True)
            colour = rng.integers(40, 216, 3)
            for index in range(PER_CLASS):
                pixels = colour + rng.normal(0, 20, (30, 40, 3))
                picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                picture.save(folder / kind / fine / f"{index}.png")
    return folder


def save_model(folder: Path) -> Path:
    model, processor = tiny.llava()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, images, and the diagnosed run `runs/birds`."""
    torch.set_num_threads(1)  # a model this small only waits for its threads
    folder = tmp_path_factory.mktemp("bench")
    save_model(folder / "tiny-llava")
    draw_images(folder / "birds")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        ended = type_in("diagnose", "tiny-llava", "birds", "-o", "runs/birds")
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def fgdiag(bench: Path, monkeypatch: pytest.MonkeyPatch) -> Fgdiag:
    """Type a command in the folder `bench`."""
    monkeypatch.chdir(bench)
    monkeypatch.setenv("COLUMNS", "100")
    return type_in
