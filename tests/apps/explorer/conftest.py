"""A tiny diagnosed run behind the explorer, and a browser to look at it."""

import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fgdiag_explorer import create_app
from fgdiag_explorer.library import Library
from fgdiag_probes.attribution import MapMaker, target_of
from fgdiag_probes.lens import token_lenses
from werkzeug.serving import make_server

from fgdiag.images import open_images
from fgdiag.store import Run
from fgdiag.vlm import open_vlm

THE_PAIR = ("barn owl", "eagle-owl")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")


@pytest.fixture(scope="session")
def runs(bench: Path) -> list[Path]:
    """Two runs: the one of `bench`, with a lens and a map of image 0, and a copy in which the model was not asked.

    The model of the copy is not where it was any more.
    """
    run, silent = bench / "runs" / "birds", bench / "runs" / "silent"
    if not silent.exists():
        shutil.copytree(run, silent)
        (silent / "results" / "answers.parquet").unlink()
        (silent / "results" / "verdict.json").unlink()
        (silent / "results" / "command.json").write_text('{"command": "", "model": "/nowhere/tiny-llava"}')
        look_into(run, bench)
    return [run, silent]


def look_into(run: Path, bench: Path) -> None:
    """Read image 0 as words, and make a map of what speaks for its class and not for another."""
    opened = open_vlm(bench / "tiny-llava", device="cpu")
    recorded, images = Run.open(run), open_images(bench / "birds")
    images = replace(images, table=recorded.images)
    token_lenses(recorded, opened, images, rows=[0])
    make = MapMaker(recorded, opened, images, target_of(recorded, "name"), checked=True, budget=16, seed=0)
    make.make("ixg", 0, *THE_PAIR)


@pytest.fixture(scope="session")
def library(runs: list[Path]) -> Library:
    return Library(runs)


def served(app: Any) -> Iterator[str]:
    """Serve an app at a free port, from a thread of its own."""
    server = make_server("127.0.0.1", 0, app.server, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="session")
def address(runs: list[Path]) -> Iterator[str]:
    yield from served(create_app(runs))


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """The browser of the system; nothing is downloaded."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser here: looked for {', '.join(BROWSERS)}")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()
