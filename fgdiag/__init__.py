"""fgdiag: find where a vision-language model loses fine-grained detail.

Everything is loaded on first use, so that `import fgdiag` takes no time and needs no heavy package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgdiag.capture import capture
    from fgdiag.errors import FgdiagError
    from fgdiag.extract import extract
    from fgdiag.families import families
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
    "capture": "capture",
    "extract": "extract",
    "families": "families",
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
    # Importing the room `fgdiag.capture` binds the module to this name; the public thing must win over it.
    globals()[name] = getattr(import_module(f"fgdiag.{_ROOM_OF[name]}"), name)
    return globals()[name]
