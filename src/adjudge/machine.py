"""The machine used well, without the user having to know."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""glibc's names for what `mallopt` sets (malloc.h)."""
TOP_PAD_BYTES = 64 * 2**20


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed for the next allocation, and PyTorch's to ask for huge pages; returns whether it was.

    By default a tensor over 32 MB is a mapping of its own that goes back to the system when it is freed, and so does the top of the
    heap: a training step, which makes and frees the same tensors again and again, spends a part of its time in page faults. Peak memory
    stays the same (docs/performance.md has the figures). Call it before the first tensors are made. Does nothing on another C library,
    where an allocator was preloaded, or where the environment sets glibc's own (MALLOC_…).
    """
    if sys.platform != "linux" or os.environ.get("LD_PRELOAD") or any(name.startswith("MALLOC_") for name in os.environ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it at its first large allocation
    told = [library.mallopt(name, value) for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, TOP_PAD_BYTES))]
    return all(result == 1 for result in told)
