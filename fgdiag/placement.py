"""Where a model runs and in which numbers: what is asked for, or what this machine and the checkpoint are best at."""

import importlib.util
from contextlib import suppress
from typing import Any

import torch
import transformers

from fgdiag.errors import ModelNotFound
from fgdiag.precision import DTYPES, fast_dtype


def device_for(name: str) -> torch.device:
    """Return the device of a name, a GPU for `auto` where there is one; `ModelNotFound` where there is none."""
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    known = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        known.append("mps")
    with suppress(RuntimeError):
        device = torch.device(name)
        if str(device) in known or (device.index is None and any(d.startswith(name) for d in known)):
            return device
    raise ModelNotFound(f"No device {name!r} on this machine: choose from {', '.join(['auto', *known])}.")


def dtype_for(name: str, place: torch.device, config: Any) -> str | torch.dtype:
    """Return the dtype of a name, `auto` as in `fgdiag.open_vlm`; `ModelNotFound` where it has none."""
    if name in DTYPES:
        return DTYPES[name]
    if name != "auto":
        raise ModelNotFound(f"Unknown dtype {name!r}: choose from {', '.join(['auto', *DTYPES])}.")
    if place.type != "cpu":
        return "auto"
    return fast_dtype() if stored_dtype(config).itemsize == 2 else torch.float32


def stored_dtype(config: Any) -> torch.dtype:
    """Return the dtype that a checkpoint was saved in, by its config."""
    stored = str(getattr(config, "dtype", None) or config.get_text_config().dtype)
    return DTYPES.get(stored.removeprefix("torch."), torch.float32)


def quantization_for(bits: str | None) -> Any:
    """Return the config of `4bit` or `8bit` weights for `transformers`; `ModelNotFound` where they cannot be had."""
    if bits is None:
        return None
    if bits not in ("4bit", "8bit"):
        raise ModelNotFound(f"Unknown quantization {bits!r}: choose 4bit or 8bit.")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ModelNotFound(
            f"{bits} weights need 'bitsandbytes'. Install it with: pip install 'fgdiag[quantization]'"
        )
    four = bits == "4bit"
    return transformers.BitsAndBytesConfig(
        load_in_4bit=four, load_in_8bit=not four, bnb_4bit_compute_dtype=torch.bfloat16
    )
