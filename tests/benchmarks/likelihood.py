"""Class-name likelihood: the shared prompt and the trie of names against one whole forward pass for each name.

python tests/benchmarks/likelihood.py [--quick] [--json]

Both ways run in one process, in turns, on the demo VLM and drawn images. `ratio` is the median, over those turns, of
the time of one pass a name by that of the trie, for 100 invented names such as "great spotted warbler".
`largest_difference` is between their scores, in nats, with float32 weights; `difference_as_stored` with weights in the
dtype that the model opens in, whose rounding it shows. `images_a_second_1000_names` is the trie's alone.
"""

import argparse
import json
import time
from statistics import median, quantiles

import numpy as np
import torch
from fgdiag_probes.likelihood import Way, answer_ids
from fgdiag_probes.name_scoring import NODES_AT_ONCE, score_by_trie, score_by_whole_passes
from fgdiag_probes.name_trie import Tokens, tries
from PIL import Image

from fgdiag import open_vlm
from fgdiag.memory import keep_freed_memory
from fgdiag.prompts import FINE_QUESTION
from fgdiag.vlm import VLM

NAMES, MANY = 100, 1000
KINDS = "rose lily iris thrush warbler finch terrier spaniel hound beetle moth apple pear orchid fern crab"
QUALITIES = (
    "red blue pale spotted striped common great little northern water desert mountain golden black bearded giant "
    "alpine silver tufted mottled royal sweet wild Japanese Carolina crested painted horned dwarf broad-billed"
)


def main() -> None:
    """Measure, print a line a turn, and with `--json` one line of figures last."""
    parser = argparse.ArgumentParser(description="Speed of class-name likelihood against one pass a name.")
    parser.add_argument("--quick", action="store_true", help="few turns: ends within 2 minutes")
    parser.add_argument("--json", action="store_true", help="print one line of figures last")
    asked = parser.parse_args()
    keep_freed_memory()
    vlm, pictures = open_vlm("demo"), drawn(1 if asked.quick else 4)
    ids = tokens_of(vlm, NAMES)
    nodes = sum(len(trie.nodes) for trie in tries(ids, most=NODES_AT_ONCE))
    counts = [len(name) for name in ids]
    print(
        f"{NAMES} names of {min(counts)} to {max(counts)} tokens, {sum(counts)} in all, in {nodes} nodes; {vlm.dtype}"
    )
    ratios, differences = turns(vlm, pictures, ids, 3 if asked.quick else 5)
    speeds = {many: images_a_second(vlm, pictures, tokens_of(vlm, many)) for many in (NAMES, MANY)}
    exact = open_vlm("demo", dtype="float32")
    largest = difference(exact, pictures[:1], ids)
    low, _, high = quantiles(ratios, n=4)
    print(
        f"ratio {median(ratios):.1f} ({low:.1f} to {high:.1f}); images a second: {speeds[NAMES]:.2f} with {NAMES} "
        f"names, {speeds[MANY]:.3f} with {MANY}; largest difference {largest:.1e} nats in float32"
    )
    if asked.json:
        figures = {
            "ratio": median(ratios),
            "largest_difference": largest,
            "difference_as_stored": max(differences),
        }
        figures |= {f"images_a_second_{many}_names": speed for many, speed in speeds.items()}
        print(json.dumps(figures))


def drawn(count: int) -> list[Image.Image]:
    """Images of noise, 320 x 240."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (240, 320, 3), dtype=np.uint8)) for _ in range(count)]


def invented(count: int) -> list[str]:
    """Names as those of flowers, birds and breeds are: up to two qualities before a kind, none of them twice."""
    rng, adjectives, kinds = np.random.default_rng(0), QUALITIES.split(), KINDS.split()
    names: dict[str, None] = {}
    while len(names) < count:
        qualities = rng.choice(adjectives, rng.choice(3, p=[0.1, 0.5, 0.4]), replace=False)
        names[" ".join([*qualities, rng.choice(kinds)])] = None
    return list(names)


def tokens_of(vlm: VLM, count: int) -> list[Tokens]:
    """Tokens of invented names."""
    prompt = vlm.chat(FINE_QUESTION)
    return [answer_ids(vlm, prompt, name) for name in invented(count)]


def turns(
    vlm: VLM, pictures: list[Image.Image], ids: list[Tokens], count: int
) -> tuple[list[float], list[float]]:
    """Ratio of the two ways' times and their largest difference in nats, by turn."""
    prompt, ratios, differences = vlm.chat(FINE_QUESTION), [], []
    scored(score_by_trie, vlm, pictures, prompt, ids)
    for turn in range(count):
        order = (score_by_trie, score_by_whole_passes)[:: 1 if turn % 2 else -1]
        found = {score: scored(score, vlm, pictures, prompt, ids) for score in order}
        (seconds, fast), (whole_seconds, whole) = found[score_by_trie], found[score_by_whole_passes]
        ratios.append(whole_seconds / seconds)
        differences.append(float(abs(fast - whole).max()))
        print(
            f"turn {turn}: {seconds:.2f} s against {whole_seconds:.2f} s, ratio {ratios[-1]:.1f}", flush=True
        )
    return ratios, differences


def images_a_second(vlm: VLM, pictures: list[Image.Image], ids: list[Tokens]) -> float:
    """Of the trie."""
    return len(pictures) / scored(score_by_trie, vlm, pictures, vlm.chat(FINE_QUESTION), ids)[0]


def difference(vlm: VLM, pictures: list[Image.Image], ids: list[Tokens]) -> float:
    """Largest difference of the two ways, in nats."""
    prompt = vlm.chat(FINE_QUESTION)
    ways = (score_by_trie, score_by_whole_passes)
    fast, whole = (scored(score, vlm, pictures, prompt, ids)[1] for score in ways)
    return float(abs(fast - whole).max())


@torch.inference_mode()
def scored(
    score: Way, vlm: VLM, pictures: list[Image.Image], prompt: str, ids: list[Tokens]
) -> tuple[float, np.ndarray]:
    """Seconds, and scores (pictures, names)."""
    start = time.perf_counter()
    scores = score(vlm, pictures, prompt, ids)
    return time.perf_counter() - start, scores


if __name__ == "__main__":
    main()
