"""Maps per second by method, on the demo VLM and drawn birds, without and with the checks of a map.

python tests/benchmarks/attribution.py [--quick] [--json]
python tests/benchmarks/attribution.py --checks RUN [--target WHAT] [--images N]

Weights are float32; the target is the contrast of two class names. `maps_a_second_METHOD` is the median over pictures
of the map alone, `checks_a_second` that of deletion, insertion, and the maps that it is compared with.

With `--checks` it prints instead, as a table, how the methods do on a run of the field guide: one pair of species of
each genus, drawn by a seed, and N test images of each pair. The maps are kept in the run, so a
stopped measurement goes on where it was.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
from fgdiag_probes.attribution import attribute, attribute_image
from fgdiag_probes.faithfulness import faithfulness
from fgdiag_probes.layout import pixel_layout
from fgdiag_probes.map_methods import METHODS
from fgdiag_probes.substitution import Substitution
from fgdiag_probes.targets import NameTarget
from PIL import Image

from fgdiag import open_vlm
from fgdiag.fieldguide import GENERA, SPECIES, draw_bird, species_named
from fgdiag.images import open_images
from fgdiag.memory import keep_freed_memory
from fgdiag.store import Run
from fgdiag.vlm import VLM

FIRST, SECOND = "Ruby Barkpecker", "Golden Barkpecker"


def main() -> None:
    """Measure, print a line a method, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="Maps per second by method.")
    parser.add_argument("--quick", action="store_true", help="one picture a method")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    parser.add_argument(
        "--checks", type=Path, metavar="RUN", help="check the methods on a run of the field guide"
    )
    parser.add_argument("--target", default="probe:vision", help="what is explained there")
    parser.add_argument("--images", type=int, default=2, help="test images of each of the eight pairs")
    parser.add_argument("--methods", default="", help="comma-separated; default: all that the target allows")
    asked = parser.parse_args()
    keep_freed_memory()
    if asked.checks:
        return check(asked.checks, asked.target, asked.images, asked.methods)
    vlm = open_vlm("demo", dtype="float32")
    count = 1 if asked.quick else 5
    pictures = [draw_bird(species_named(FIRST), seed=seed).image for seed in range(count)]
    tried = [f"{name}@{method.entries[0]}" for name, method in METHODS.items()] if asked.quick else ways()
    attribute_image(
        vlm, pictures[0], NameTarget(FIRST, SECOND), "gradcam@projector", checked=False
    )  # finds layouts
    attribute_image(vlm, pictures[0], NameTarget(FIRST, SECOND), "gradcam@vision", checked=False)
    figures = {}
    for way in tried:
        seconds = median(seconds_of(vlm, picture, way) for picture in pictures)
        figures[f"maps_a_second_{way}"] = 1 / seconds
        print(f"{way}: {seconds:.2f} s a map", flush=True)
    figures["checks_a_second"] = 1 / median(seconds_of_checks(vlm, picture) for picture in pictures)
    print(f"checks: {1 / figures['checks_a_second']:.2f} s a map")
    if asked.json:
        print(json.dumps(figures))


def check(path: Path, target: str, count: int, methods: str) -> None:
    """Print the checks of each method on a run of the field guide, for all images and for those right by detail."""
    run = Run.open(path)
    images = replace(open_images(run.manifest["images"]["source"]), table=run.images)
    names = methods.split(",") if methods else ways(target)
    vlm = open_vlm(run.manifest["model"], dtype="float32")
    found = attribute(run, vlm, images, look_alikes(), methods=names, target=target, count=count)
    for title, some in (("all images", found), ("images decided rightly, by their detail", found.by_detail)):
        print(f"\n{target}, {title}")
        print(some.frame().round(3).to_string(index=False) if some.maps else "none")
    print(*found.sentences(), sep="\n")


def look_alikes(seed: int = 0) -> list[tuple[str, str]]:
    """One pair of species of each genus."""
    rng = np.random.default_rng(seed)
    pairs = []
    for genus in GENERA:
        first, second = rng.choice([one.name for one in SPECIES if one.genus == genus], 2, replace=False)
        pairs.append((str(first), str(second)))
    return pairs


def ways(target: str = "name") -> list[str]:
    """Every method at every entry; at the pixels alone where the target is a probe of the encoder."""
    every = [f"{name}@{entry}" for name, method in METHODS.items() for entry in method.entries]
    return [way for way in every if way.endswith("@pixels") or not target.startswith("probe:vision")]


def seconds_of(vlm: VLM, picture: Image.Image, way: str) -> float:
    """Of one map."""
    start = time.perf_counter()
    attribute_image(vlm, picture, NameTarget(FIRST, SECOND), way, checked=False)
    return time.perf_counter() - start


def seconds_of_checks(vlm: VLM, picture: Image.Image) -> float:
    """Of the checks of one map."""
    given, layout = (
        Substitution(vlm, picture, NameTarget(FIRST, SECOND), "pixels"),
        pixel_layout(vlm, picture.size),
    )
    values = layout.lay((given.original - given.blurred).abs())
    start = time.perf_counter()
    faithfulness(given, layout, values)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
