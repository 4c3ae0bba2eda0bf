"""fgdiag: find where a vision-language model loses fine-grained detail.

Everything is loaded on first use, so that `import fgdiag` takes no time and needs no heavy package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgdiag.errors import FgdiagError
    from fgdiag.extraction import extract
    from fgdiag.family_table import families
    from fgdiag.hooks import capture
    from fgdiag.images import ImageSet, open_images
    from fgdiag.sites import Site
    from fgdiag.store import Run
    from fgdiag.vlm import VLM, open_vlm

__version__ = "0.1.0"

_ROOM_OF = {
    "VLM": "vlm",
    "FgdiagError": "errors",
    "ImageSet": "images",
    "Run": "store",
    "Site": "sites",
    "capture": "hooks",
    "extract": "extraction",
    "families": "family_table",
    "open_images": "images",
    "open_vlm": "vlm",
}

__all__ = [
    "VLM",
    "FgdiagError",
    "ImageSet",
    "Run",
    "Site",
    "capture",
    "extract",
    "families",
    "open_images",
    "open_vlm",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"fgdiag has no {name!r}")
    return getattr(import_module(f"fgdiag.{_ROOM_OF[name]}"), name)
