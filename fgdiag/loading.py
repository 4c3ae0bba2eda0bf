"""Load something of `transformers` from a folder or the hub, or say in one line why not."""

import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from fgdiag.errors import ModelNotFound


def load(loader: Any, source: str | Path, options: dict[str, Any] | None = None) -> Any:
    """Call `loader.from_pretrained`.

    Raises
    ------
    ModelNotFound
        There is no such model, or its files are broken.
    """
    try:
        return loader.from_pretrained(source, **options or {})
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelNotFound(
            f"{source} cannot be loaded: {first_line(error)}{_advice(source, error)}"
        ) from error


def first_line(error: Exception) -> str:
    """First line of a message of `transformers`, up to where it guesses what might be wrong."""
    lines = str(error).strip().splitlines()
    line = lines[0] if lines else type(error).__name__
    return re.split(r"(?<=\S)\.? If you were trying", line)[0].rstrip(".")


def _advice(source: str | Path, error: Exception) -> str:
    if not Path(source).is_dir():
        return ". Check the name and the network, or give a folder that `save_pretrained` has written."
    broken = isinstance(error, (OSError, SafetensorError))
    return ". Save the model there again, or give another folder." if broken else "."
