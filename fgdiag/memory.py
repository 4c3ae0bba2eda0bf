"""Memory between batches: keep what is freed for the next one, and know when there is no more."""

import ctypes
import sys

import torch

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD = -1, -2, -3
KEEP_BYTES = 1 << 30
NO_MEMORY = ("out of memory", "not enough memory", "can't allocate memory")


def keep_freed_memory() -> None:
    """Keep up to 1 GiB of freed heap for the next batch; does nothing where the C library is not glibc.

    A forward pass on the CPU frees and allocates its activations again and again. With the defaults each one
    is unmapped and mapped anew, and page faults took up to a third of the time of a training step.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return
    # The mmap threshold is an int and capped by glibc at 32 MiB on 64-bit; larger blocks keep using mmap.
    libc.mallopt(M_MMAP_THRESHOLD, KEEP_BYTES)
    libc.mallopt(M_TRIM_THRESHOLD, KEEP_BYTES)
    libc.mallopt(M_TOP_PAD, 64 << 20)


def no_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in NO_MEMORY)
