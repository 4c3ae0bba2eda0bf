"""Small runs for tests: a tiny random LLaVA, forty noisy images, and all bytes of what was recorded of them.

As a program it records such a run in forked processes, and kills them: `recorded.py RUN FOLDER KILLS SEED`.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fgdiag.extraction import extract
from fgdiag.image_set import ImageSet
from fgdiag.images import open_images
from fgdiag.vlm import VLM, open_vlm
from tests.fgdiag import tiny

SIZES = ((40, 30), (30, 60), (90, 30), (33, 33), (28, 50))
TIMES = ("started", "finished", "seconds")


def tiny_vlm() -> VLM:
    model, processor = tiny.llava()
    return open_vlm(model, device="cpu", processor=processor)


def write_images(folder: Path, *, classes: int = 4, per_class: int = 10) -> Path:
    """Classes of noisy images of several sizes; one file is cut off, and one class is too thin to use."""
    for label in range(classes):
        (folder / f"class-{label}").mkdir(parents=True)
        for index in range(per_class):
            seed = label * per_class + index
            tiny.noise(*SIZES[seed % len(SIZES)], seed).save(folder / f"class-{label}" / f"{index:02d}.png")
    cut = folder / "class-1" / "03.png"
    cut.write_bytes(cut.read_bytes()[:-200])
    (folder / "thin").mkdir()
    tiny.noise(30, 30, 999).save(folder / "thin" / "only.png")
    return folder


def everything(run: Path) -> dict[str, Any]:
    """All that a run holds, but for the times: its files, and what is in them."""
    found: dict[str, Any] = {}
    for file in sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock"):
        name = str(file.relative_to(run))
        found[name] = file.read_bytes()
        if name == "run.json" or name.startswith("blocks/"):
            found[name] = {
                key: value for key, value in json.loads(file.read_text()).items() if key not in TIMES
            }
        if name == "images.parquet":
            found[name] = pd.read_parquet(file).to_json()
    return found


def chunks(run: Path, site: str, readout: str, block: int) -> list[np.ndarray]:
    """Read the raw bytes of an array, a chunk a block, without the library that wrote them."""
    folder = run / "activations.zarr" / site / readout
    width = json.loads((folder / "zarr.json").read_text())["shape"][1]
    files = sorted((folder / "c").glob("*/0"), key=lambda path: int(path.parent.name))
    return [np.fromfile(file, "<f4").reshape(-1, width)[:block] for file in files]


def record_and_kill(run: Path, folder: Path, kills: int, seed: int) -> None:
    """Write `run` without a stop; then the same beside it, killed `kills` times, in as many runs as that takes."""
    torch.set_num_threads(1)
    vlm, images = tiny_vlm(), open_images(folder)
    started = time.monotonic()
    os.waitpid(_fork(vlm, images, run), 0)
    whole = time.monotonic() - started
    expected, killed, moments = everything(run), run.with_name("killed"), random.Random(seed)
    died, finished = 0, 0
    while died < kills or not finished:
        child = _fork(vlm, images, killed)
        if died < kills:
            time.sleep(moments.uniform(0, 0.6 * whole))
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            died += 1
        elif status != 0:
            sys.exit("a restarted extraction failed")
        else:
            finished += 1
            if everything(killed) != expected:
                differing = {
                    name
                    for name in expected | everything(killed)
                    if expected.get(name) != everything(killed).get(name)
                }
                sys.exit(f"not bit-equal after {died} kills: {sorted(differing)}")
            shutil.rmtree(killed)
    print(
        json.dumps({"kills": died, "finished": finished, "files": len(expected), "seconds": round(whole, 2)})
    )


def _fork(vlm: VLM, images: ImageSet, run: Path) -> int:
    child = os.fork()
    if child:
        return child
    try:
        extract(vlm, images, run, block=4, batch_size=3)
        os._exit(0)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)


if __name__ == "__main__":
    record_and_kill(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
