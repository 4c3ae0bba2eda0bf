"""Speed of the explorer at 50,000 images and 33 sites, as a browser feels it.

    python tests/benchmarks/explorer.py [--quick] [--json]

The results are synthetic: what 98 places (three readouts at each site) said of 12,500 test images of 200 classes in 20
kinds, answers, a map of every site, thumbnails. `first_paint_s` is from the request until the verdict stands on the
page, in a browser of the system that has nothing in its cache; the median of all pages is `page_s`. `callback_ms` is
the median over what a reader does on every page, measured at the server with the answer written out as JSON; of each
choice the first call is left out, in which results are read. `first_call_ms` is the worst of those. `session_ms` is the
wait of one of 50 people who ask at the same time, and `session_errors` how many got no answer, or that of another.
"""

import argparse
import json
import logging
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pandas as pd
from fgdiag_explorer import create_app
from fgdiag_explorer.app import render_body, render_page
from fgdiag_explorer.library import Library
from fgdiag_probes import reading
from fgdiag_probes.curves import key_of
from fgdiag_probes.labels import Labels, Level
from fgdiag_probes.reading import Choice, Reading, Readings
from PIL import Image
from plotly.io.json import to_json_plotly

from fgdiag.prompts import spoken
from fgdiag.store import FORMAT, Run, thumbnail_path, write_json, write_table

CLASSES, KINDS, BLOCK, SESSIONS = 200, 20, 256, 50
SITES = ("pixels", "vision", "projector", *(f"llm.{layer}" for layer in range(29)), "llm.norm")
"""33 of them."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DONE = {
    "overview": [""],
    "curves": ["", "?metric=bits", "?level=coarse", "?readout=last&level=fine"],
    "confusion": [
        "?level=fine",
        "?level=fine&at=llm.3",
        "?at=projector",
        "?level=fine&truth=class-000&said=class-001",
    ],
    "images": ["", "?right=vision&wrong=answer", "?view=table", "?image=8", "?page=40"],
    "embedding": ["", "?at=llm.10&colour=fine", "?around=-1_-1~1_-1~1_1~-1_1"],
    "compare": [""],
    "data": [""],
}
"""What a reader does."""


def main() -> None:
    """Measure, print a table, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="Speed of the explorer.")
    parser.add_argument("--quick", action="store_true", help="5,000 images")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    asked = parser.parse_args()
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "large", 5_000 if asked.quick else 50_000)
        figures = measure_callbacks(run)
        figures |= measure_browser(run)
        figures |= measure_sessions(run)
    if asked.json:
        print(json.dumps(figures))


def measure_callbacks(run: Path) -> dict[str, float]:
    """Time each thing a reader does, several times."""
    library, times, first = Library([run]), [], []
    for page, searches in DONE.items():
        place = {"page": page, "run": run.name}
        first.append(timed(partial(render_page, library, place, "")))
        for search in searches:
            took = [timed(partial(render_body, library, place, search)) for _ in range(6)]
            first.append(took[0])
            times += took[1:]
            print(f"{page + search:48} {median(took[1:]):7.0f} ms, first {took[0]:7.0f} ms", flush=True)
    return {
        "callback_ms": median(times),
        "callback_p95_ms": float(np.quantile(times, 0.95)),
        "first_call_ms": max(first),
    }


def measure_browser(run: Path) -> dict[str, float]:
    """Time until a page stands in a browser; nothing where there is no browser."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        print("no browser here")
        return {}
    from playwright.sync_api import sync_playwright

    address = serve(run)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        took = {page: paint(browser, f"{address}/{page}") for page in DONE}
        browser.close()
    for page, seconds in took.items():
        print(f"{page:48} {seconds:7.2f} s in the browser")
    return {"first_paint_s": took["overview"], "page_s": median(took.values())}


def measure_sessions(run: Path) -> dict[str, float]:
    """Let many people ask at once; how long one waits, and how many got no answer or that of another."""
    with ThreadPoolExecutor(SESSIONS) as people:
        answers = list(people.map(partial(ask, serve(run), run.name), range(SESSIONS * 4)))
    waited = [milliseconds for milliseconds, _ in answers]
    wrong = sum(not right for _, right in answers)
    print(f"{SESSIONS} people at once: {median(waited):.0f} ms an answer, {wrong} of {len(answers)} wrong")
    return {"sessions": SESSIONS, "session_ms": median(waited), "session_errors": wrong}


def ask(address: str, run: str, number: int) -> tuple[float, bool]:
    """Choose a class as a browser does; milliseconds, and whether the answer is about that class."""
    name = f"class-{number % CLASSES:03}"
    chosen = {"id": "choices", "property": "data", "value": {"search": f"?fine={name}"}}
    place = {"id": "place", "property": "data", "value": {"page": "images", "run": run}}
    asked = {"output": "body.children", "outputs": {"id": "body", "property": "children"}, "inputs": [chosen]}
    asked |= {"changedPropIds": ["choices.data"], "state": [place]}
    head = {"Content-Type": "application/json"}
    posted = Request(f"{address}/_dash-update-component", json.dumps(asked).encode(), head)
    started = time.perf_counter()
    with urlopen(posted) as answer:
        text = answer.read().decode()
    waited = 1000 * (time.perf_counter() - started)
    return waited, set(re.findall(r'"alt": ?"(.*?), image', text)) == {spoken(name)}


def paint(browser: Any, address: str) -> float:
    """Seconds until the page stands, the best of three windows that have nothing in their cache."""
    seconds = []
    for _ in range(3):
        context = browser.new_context()
        page, started = context.new_page(), time.perf_counter()
        page.goto(address, wait_until="commit")
        page.wait_for_selector("#body > *", timeout=60_000)
        seconds.append(time.perf_counter() - started)
        context.close()
    return min(seconds)


def serve(run: Path) -> str:
    """Serve the run as `fgdiag app` does, until this process ends; the address."""
    from waitress.server import create_server

    server: Any = create_server(create_app([run]).server, host="127.0.0.1", port=0, threads=8)
    threading.Thread(target=server.run, daemon=True).start()
    return f"http://127.0.0.1:{server.effective_port}"


def timed(call: Callable[[], object]) -> float:
    """Milliseconds of a call, what it returns written out as Dash sends it."""
    started = time.perf_counter()
    to_json_plotly(call())
    return 1000 * (time.perf_counter() - started)


def write_run(path: Path, images: int) -> Path:
    """Write the results of a run that never was."""
    rng = np.random.default_rng(0)
    fine = np.sort(rng.integers(0, CLASSES, images))
    split = np.where(np.arange(images) % 4 == 0, "test", "train")
    names, kinds = numbered("class", CLASSES), numbered("kind", KINDS)
    kind_of = np.arange(CLASSES) * KINDS // CLASSES
    table = pd.DataFrame(
        {
            "id": [f"{row:032x}" for row in range(images)],
            "source": [f"{names[code]}/{row:07}.jpg" for row, code in enumerate(fine)],
            "fine": names[fine],
            "coarse": kinds[kind_of[fine]],
            "split": split,
            "group": [f"{row:032x}" for row in range(images)],
            "width": 256,
            "height": 256,
            "status": "ok",
        }
    )
    (path / "results" / "probes").mkdir(parents=True)
    write_table(path / "images.parquet", table)
    write_json(path / "run.json", manifest(images))
    draw_thumbnails(path, images)
    run = Run.open(path)
    write_results(run, Labels.of(run, seed=0), rng)
    return path


def numbered(word: str, count: int) -> np.ndarray:
    """Return as many names."""
    return np.array([f"{word}-{at:03}" for at in range(count)])


def manifest(images: int) -> dict[str, Any]:
    """Return what `run.json` must say."""
    sites = [
        {"site": site, "width": 8, "readouts": ["image"] if site in SITES[:3] else ["image", "last"]}
        for site in SITES
    ]
    of_images = {
        "name": "synthetic",
        "source": "",
        "digest": "0",
        "count": images,
        "levels": ["fine", "coarse"],
    }
    made = {
        "format": FORMAT,
        "seed": 0,
        "prompt": "What is this?",
        "images": of_images,
        "model": "none",
        "sites": sites,
    }
    return {**made, "block": BLOCK, "dtype": "float32", "causal": True, "finished": True, "versions": {}}


def draw_thumbnails(path: Path, images: int) -> None:
    """Write one picture for every image: what they show does not matter here."""
    first = thumbnail_path(path, 0, BLOCK)
    first.parent.mkdir(parents=True)
    noise = np.random.default_rng(1).integers(0, 256, (160, 160, 3)).astype(np.uint8)
    Image.fromarray(noise).save(first, quality=60)
    for row in range(1, images):
        place = thumbnail_path(path, row, BLOCK)
        place.parent.mkdir(exist_ok=True)
        place.hardlink_to(first)


def write_results(run: Run, labels: Labels, rng: np.random.Generator) -> None:
    """Write what every place said, the answers, the verdict, and the map."""
    rows = []
    for site in SITES:
        for readout in ("image",) if site in SITES[:3] else ("image", "last", "attn"):
            found: Readings = {level: said(labels, level, rng, 0.6) for level in labels.levels}
            reading.save(run.result_path(f"probes/{site}.{readout}.npz"), key_of(run, 0), found)
            rows += [score(level, site, readout) for level in labels.levels]
    control = {name: None for name in ("accuracy", "chance", "p_value")}
    control |= {
        "name": "tokens before the image",
        "applies": False,
        "passed": True,
        "sentence": "Not applicable.",
    }
    run.write_table("probes", pd.DataFrame(rows))
    run.write_json("probes", {"control": control})
    chain = ("vision", "projector", "answer")
    depths = [depth(level, name) for level in labels.levels for name in chain]
    drops = [drop(level, *ends) for level in labels.levels for ends in pairwise(chain)]
    sentence = "The projector loses the fine detail. " * 4
    verdict = {"stage": "projector", "sentence": sentence, "numbers": [], "not_tested": [], "agreeing": None}
    run.write_json("verdict", {**verdict, "budget": drops, "depths": depths})
    write_answers(run, labels, rng)
    points = rng.normal(size=(len(SITES), len(run.images), 2)).astype(np.float32).reshape(-1, 2)
    where = {
        "site": np.repeat(SITES, len(run.images)),
        "row": np.tile(np.arange(len(run.images)), len(SITES)),
    }
    run.write_table("embedding", pd.DataFrame({**where, "x": points[:, 0], "y": points[:, 1]}))


def said(labels: Labels, level: Level, rng: np.random.Generator, right: float) -> Reading:
    """Name the right class of some images, any other of the rest."""
    truth = labels.codes(level)[labels.test]
    other = rng.integers(0, len(labels.names(level)), len(truth))
    named = np.where(rng.random(len(truth)) < right, truth, other).astype(np.int32)
    choice = Choice(right, 1.0, 1.0, False, True, 0.0)
    return Reading(named, rng.exponential(1.0, len(truth)).astype(np.float32), choice)


def score(level: str, site: str, readout: str) -> dict[str, Any]:
    """A row of `LayerCurves.table`."""
    shares = {
        "accuracy": 0.6,
        "low": 0.58,
        "high": 0.62,
        "chance": 0.01,
        "balanced": 0.6,
        "control": None,
        "selectivity": 0.1,
    }
    bits = {"bits": 1.0, "bits_low": 0.9, "bits_high": 1.1, "chance_bits": 7.0, "images": 12_500}
    chosen = {
        "cv_accuracy": 0.6,
        "cv_bits": 1.0,
        "penalty": 1.0,
        "at_edge": False,
        "converged": True,
        "gradient_norm": 0.0,
    }
    return {
        "level": level,
        "site": site,
        "readout": readout,
        "stage": "language model",
        **shares,
        **bits,
        **chosen,
    }


def depth(level: str, name: str) -> dict[str, Any]:
    """A row of `LossBudget.depths`."""
    readout = "likelihood" if name == "answer" else "image"
    shares = {
        "accuracy": 0.6,
        "low": 0.58,
        "high": 0.62,
        "bits": 1.0,
        "chance": 0.01,
        "chance_bits": 7.0,
        "gain_high": 0.6,
    }
    seen = {"above_chance": True, "above_pixels": True, "images": 12_500, "nonlinear": 0.6}
    return {"level": level, "depth": name, "site": name, "readout": readout, **shares, **seen}


def drop(level: str, start: str, end: str) -> dict[str, Any]:
    """A row of `LossBudget.drops`."""
    fall = {
        "drop": 5.0,
        "low": 4.0,
        "high": 6.0,
        "drop_bits": 0.1,
        "low_bits": 0.0,
        "high_bits": 0.2,
        "p_value": 0.0,
    }
    network = {"drop_nonlinear": 5.0, "low_nonlinear": 4.0, "high_nonlinear": 6.0, "lost": True}
    judged = {"significant": True, "made_good": False, **network}
    return {"level": level, "from": start, "to": end, "stage": "projector", **fall, **judged}


def write_answers(run: Run, labels: Labels, rng: np.random.Generator) -> None:
    """Write what the model would have said."""
    test, fine = labels.test, labels.fine_names
    table = pd.DataFrame(
        {"row": test, "fine": fine[labels.fine[test]], "coarse": labels.coarse_names[labels.coarse[test]]}
    )
    for column, names in (("fine", fine), ("fine_within_coarse", fine), ("coarse", labels.coarse_names)):
        table[f"said_{column}"] = rng.choice(names, len(test))
        table[f"bits_{column}"] = rng.exponential(3.0, len(test)).astype(np.float32)
    run.write_table("answers", table.assign(siblings=CLASSES // KINDS))


if __name__ == "__main__":
    main()
