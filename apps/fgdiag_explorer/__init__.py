"""The explorer: recorded runs in a browser. It reads results; it computes none and writes nothing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fgdiag_explorer.app import create_app as create_app
    from fgdiag_explorer.serving import address as address
    from fgdiag_explorer.serving import serve as serve

_ROOMS = {"create_app": "app", "address": "serving", "serve": "serving"}

__all__ = ["address", "create_app", "serve"]


def __getattr__(name: str) -> Any:
    """Import a room when something of it is first asked for: Dash takes a second to load."""
    from importlib import import_module

    if name not in _ROOMS:
        raise AttributeError(f"module 'fgdiag_explorer' has no attribute {name!r}")
    return getattr(import_module(f"fgdiag_explorer.{_ROOMS[name]}"), name)
