"""The number formats models compute in, and which of them this machine is fast at."""

from contextlib import suppress
from pathlib import Path

import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def fast_dtype(device: torch.device | None = None) -> torch.dtype:
    """bfloat16 where the device (by default the CPU) computes in it, about three times as fast; else float32.

    On a CPU that is AVX-512 BF16 or AMX.
    """
    if device is not None and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    with suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text()
        if "avx512_bf16" in flags or "amx_bf16" in flags:
            return torch.bfloat16
    return torch.float32
