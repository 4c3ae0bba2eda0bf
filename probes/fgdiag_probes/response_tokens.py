"""What the VLM replies in its own words, and its hidden states while it does: the readout `response`.

A run records the prompt only. For the tokens of the reply the model has to write it, greedily, once for each image.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fgdiag.errors import ModelNotSupported, RunIncomplete
from fgdiag.progress import track
from fgdiag.store import Run, write_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

    from fgdiag.images import ImageSet
    from fgdiag.vlm import VLM

RESPONSE = "response"
"""Readout: mean over the tokens that the model has written."""
IMAGES_A_PART = 64
BATCH = 16
MOST_TOKENS = 16
"""A class name takes two to six."""
FOLDER = "recipes/responses"


@dataclass(frozen=True)
class Responses:
    """What the VLM wrote about every readable image.

    Attributes
    ----------
    texts
        (images,) the reply, without special tokens; empty where there is none.
    features
        By site, (images, width) float32: mean over the tokens of the reply; NaN where there is none.
    """

    texts: np.ndarray
    features: dict[str, np.ndarray]


def last_sites(run: Run) -> list[str]:
    """Return the last LLM block of a run, and the final norm where the model has one."""
    llm = [site for site in run.sites if site.part == "llm"]
    if not llm:
        raise RunIncomplete(f"{run.path} recorded no layer of the LLM; record it anew, without --sites.")
    norm = [site for site in llm if site.index == "norm"]
    return [str(site) for site in [*[site for site in llm if site not in norm][-1:], *norm]]


def record_responses(run: Run, vlm: "VLM", images: "ImageSet") -> Responses:
    """Let the VLM reply to the run's prompt about every image, and keep its hidden states at the last sites.

    Parts of 64 images are kept in `results/recipes/responses/`, so an interrupted call goes on where it stopped.

    Raises
    ------
    ModelNotSupported
        The model writes nothing that could be read.
    """
    rows, files = _readable(run), _files(run)
    todo = [(start, file) for start, file in files if not file.exists()]
    done = len(rows) - sum(len(rows[start : start + IMAGES_A_PART]) for start, _ in todo)
    prompt, sites = vlm.chat(run.manifest["prompt"]), last_sites(run)
    for start, file in track(
        todo, description="letting the model reply", total=len(rows), done=done, size=IMAGES_A_PART
    ):
        part = rows[start : start + IMAGES_A_PART]
        batches = [part[first : first + BATCH] for first in range(0, len(part), BATCH)]
        _write(
            file, [_reply(vlm, [images.open(int(row)) for row in batch], prompt, sites) for batch in batches]
        )
    return read_responses(run)


def read_responses(run: Run) -> Responses:
    """Read back what `record_responses` kept; `RunIncomplete` where that is not all."""
    if not has_responses(run):
        raise RunIncomplete(
            f"{run.path} has no replies of the model yet; `fgdiag recipe response-wide-shut {run.path}` asks for them."
        )
    rows, parts = _readable(run), [np.load(file) for _, file in _files(run)]
    texts = np.full(len(run.images), "", object)
    texts[rows] = np.concatenate([part["texts"] for part in parts])
    features = {}
    for site in last_sites(run):
        found = np.concatenate([part[site] for part in parts])
        features[site] = np.full((len(run.images), found.shape[1]), np.nan, np.float32)
        features[site][rows] = found
    return Responses(texts.astype(str), features)


def has_responses(run: Run) -> bool:
    """Whether `read_responses` finds everything."""
    return all(file.exists() for _, file in _files(run))


def _readable(run: Run) -> np.ndarray:
    return np.flatnonzero((run.images["status"] == "ok") & run.images["split"].isin(["train", "val", "test"]))


def _files(run: Run) -> list[tuple[int, Path]]:
    starts = range(0, len(_readable(run)), IMAGES_A_PART)
    return [(start, run.result_path(f"{FOLDER}/{start:06d}.npz")) for start in starts]


def _write(file: Path, replies: list[tuple[list[str], dict[str, np.ndarray]]]) -> None:
    texts = np.array([text for written, _ in replies for text in written], str)
    sites = {site: np.concatenate([found[site] for _, found in replies]) for site in replies[0][1]}
    buffer = BytesIO()
    np.savez(buffer, texts=texts, **sites)  # pyright: ignore[reportArgumentType]
    write_bytes(file, buffer.getvalue())


@torch.inference_mode()
def _reply(
    vlm: "VLM", pictures: Sequence["Image"], prompt: str, sites: Sequence[str]
) -> tuple[list[str], dict[str, np.ndarray]]:
    """Texts, and by site (pictures, width) the mean over the tokens written.

    A token has hidden states only once it is read to write the next one, so the very last of a reply that is cut off
    has none.
    """
    tokenizer: Any = vlm.processor.tokenizer  # pyright: ignore[reportAttributeAccessIssue]
    model: Any = vlm.model
    modules = {site: vlm.model.get_submodule(vlm.anatomy.site(site).path) for site in sites}
    with _last_positions(modules) as steps:
        whole = model.generate(
            **vlm.inputs(pictures, prompt),
            do_sample=False,
            num_beams=1,
            min_new_tokens=1,
            max_new_tokens=MOST_TOKENS,
        )
    passes = len(steps[sites[0]])
    written = whole[:, -passes:]
    if passes < 2 or len(written) != len(pictures):
        raise ModelNotSupported(f"{vlm.name} writes no reply whose hidden states could be read.")
    stopped = (
        torch.isin(written, torch.tensor(_stops(model, tokenizer), device=written.device)).cummax(1).values
    )
    read = ~stopped[:, :-1, None]
    texts = [
        tokenizer.decode(reply[~over], skip_special_tokens=True).strip()
        for reply, over in zip(written, stopped, strict=True)
    ]
    means = {
        site: ((torch.stack(found[1:], 1) * read).sum(1) / read.sum(1)).cpu().numpy()
        for site, found in steps.items()
    }
    return texts, means


def _stops(model: Any, tokenizer: Any) -> list[int]:
    """Tokens with which a reply ends, or is filled up."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    ends = configured if isinstance(configured, list) else [configured]
    return sorted({one for one in [*ends, tokenizer.eos_token_id, tokenizer.pad_token_id] if one is not None})


@contextmanager
def _last_positions(modules: dict[str, nn.Module]) -> Iterator[dict[str, list[Tensor]]]:
    """Keep what leaves each module at the last position, (batch, width) float32 a forward pass."""
    steps: dict[str, list[Tensor]] = {site: [] for site in modules}

    def keep(site: str) -> Any:
        def hook(_module: nn.Module, _args: object, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            steps[site].append(hidden[:, -1].float())

        return hook

    handles = [module.register_forward_hook(keep(site)) for site, module in modules.items()]
    try:
        yield steps
    finally:
        for handle in handles:
            handle.remove()
