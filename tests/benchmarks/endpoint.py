"""The demo VLM behind a real server, asked over loopback: what a stop and a rerun cost, and whether it says the same.

    python tests/benchmarks/endpoint.py [--quick] [--json]

`transformers serve` is started and ended here. The questions are asked, stopped half way, gone on with, and asked once
more; then the same model answers them in this process.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import requests
from fgdiag_probes.asking import Question, Respondent
from fgdiag_probes.cost import Prices
from fgdiag_probes.endpoint import Endpoint
from fgdiag_probes.in_process import InProcess
from fgdiag_probes.responses import Responses
from fgdiag_probes.wordings import choice_text

from fgdiag.fieldguide import write_fieldguide
from fgdiag.images import open_images
from fgdiag.prompts import FINE_QUESTION
from fgdiag.vlm import open_vlm
from fgdiag.zoo import demo_folder

PRICES = Prices(input=2.5, output=10.0)
"""As of a large served model, to have a cost to tell."""
AT_ONCE, MAX_TOKENS = 4, 16
PATIENCE = 600.0
"""Seconds in which the server must be up."""


def main() -> None:
    """Ask, print what it took, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="The demo VLM behind `transformers serve`.")
    parser.add_argument("--quick", action="store_true", help="16 questions instead of 80")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        questions = written(Path(folder) / "birds", 8 if asked.quick else 40)
        with served(demo_folder()) as url:
            figures = ask(url, questions, Responses(Path(folder) / "responses.sqlite"))
        figures["same_text"] = same_text(figures.pop("texts"), questions)
    for name, value in figures.items():
        print(f"{name}: {value:,.4g}")
    if asked.json:
        print(json.dumps(figures))


def written(folder: Path, images: int) -> list[Question]:
    """Two questions about each image: one of five, and in free text."""
    guide = open_images(write_fieldguide(folder, per_class=1, test_per_class=2, seed=990_001))
    names = sorted(set(guide.table["fine"]))[:5]
    rows = np.flatnonzero(guide.table["split"] == "test")[:images]
    return [
        Question(partial(guide.open, int(row)), text, letters)
        for row in rows
        for text, letters in ((choice_text(FINE_QUESTION, names, 0), tuple("ABCDE")), (FINE_QUESTION, ()))
    ]


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Serve a model in float32 on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("transformers")), "serve", str(model)]
    command += ["--port", str(port), "--host", "127.0.0.1", "--device", "cpu", "--dtype", "float32"]
    silent, offline = subprocess.DEVNULL, {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, env=offline, stdout=silent, stderr=silent)
    try:
        _wait(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait()


def ask(url: str, questions: Sequence[Question], responses: Responses) -> dict[str, Any]:
    """Ask half of the questions, all of them, and all of them again."""

    def endpoint() -> Endpoint:
        options = {"max_tokens": MAX_TOKENS, "at_once": AT_ONCE, "timeout": PATIENCE}
        return Endpoint(url, str(demo_folder()), responses=responses, **options)

    started = time.perf_counter()
    stopped, resumed, again = endpoint(), endpoint(), endpoint()
    guess = stopped.estimate(questions, PRICES)
    half = stopped.replies(questions)
    for _ in islice(half, len(questions) // 2):
        pass
    half.close()  # pyright: ignore[reportAttributeAccessIssue]
    texts = [reply.text for reply in resumed.replies(questions)]
    seconds = time.perf_counter() - started
    list(again.replies(questions))
    return {
        "questions": len(questions),
        "requests_until_stopped": stopped.spent.requests,
        "requests_resumed": resumed.spent.requests,
        "requests_again": again.spent.requests,
        "cost_guessed": guess.cost,
        "cost": sum(part.spent.json(PRICES)["cost"] for part in (stopped, resumed)),
        "cost_again": again.spent.json(PRICES)["cost"],
        "seconds_a_question": seconds / len(questions),
        "texts": texts,
    }


def same_text(texts: Sequence[str], questions: Sequence[Question]) -> float:
    """Share of the questions to which the model says the same in this process."""
    local: Respondent = InProcess(open_vlm("demo", dtype="float32", device="cpu"))
    pairs = zip(texts, local.replies(questions), strict=True)
    return sum(reply.text.startswith(text.strip()) for text, reply in pairs) / len(texts)


def _wait(url: str, process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            if requests.get(url, timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    raise SystemExit("`transformers serve` did not start; it needs: pip install 'transformers[serving]'")


if __name__ == "__main__":
    main()
