"""Arrays with what is known of them, in one file that is whole or absent and says what it was made from."""

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fgdiag.store import write_bytes


def write_arrays(path: Path, key: str, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and plain values; `key` says what they were made from."""
    buffer = BytesIO()
    told = np.array(json.dumps({"key": key, **about}))
    np.savez_compressed(buffer, about=told, **arrays)  # pyright: ignore[reportArgumentType]
    write_bytes(path, buffer.getvalue())


def read_arrays(path: Path, key: str | None = None) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Read back values and arrays; None where there is nothing, or it was made from something else than `key`."""
    if not path.exists():
        return None
    with np.load(path) as kept:
        about = json.loads(str(kept["about"]))
        arrays = {name: kept[name] for name in kept.files if name != "about"}
    return (about, arrays) if about.pop("key") == key or key is None else None
