"""Memory: how much there is, how much this process took at its peak, and how the allocator keeps it."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""glibc's names for what `mallopt` sets (malloc.h)."""
TOP_PAD_BYTES = 64 * 2**20

LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where Linux says what a container may use and uses: its second and its first version of control groups."""


def memory_gib(root: Path = Path("/")) -> float | None:
    """Memory of the machine, or of the container where it has less; None where the system does not tell."""
    limit, _ = _limit(root)
    known = [size for size in (_meminfo(root).get("MemTotal") or _installed(), limit) if size is not None]
    return min(known) / 2**30 if known else None


def available_gib(root: Path = Path("/")) -> float | None:
    """Memory that programs can still have; None where the system does not tell."""
    limit, used = _limit(root)
    free = _meminfo(root).get("MemAvailable")
    if free is None:
        return memory_gib(root)
    if limit is not None and used is not None:
        free = min(free, max(0, limit - used))
    return free / 2**30


def _meminfo(root: Path) -> dict[str, int]:
    path = root / "proc/meminfo"
    if not path.is_file():
        return {}
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {parts[0].rstrip(":"): int(parts[1]) * 1024 for parts in lines if len(parts) == 3}


def _limit(root: Path) -> tuple[int | None, int | None]:
    """Bytes that a container may use, and that it uses; None where there is no limit."""
    for limit, used in LIMITS:
        found = root / limit.lstrip("/")
        if found.is_file() and (text := found.read_text(encoding="utf-8").strip()).isdigit():
            now = root / used.lstrip("/")
            return int(text), int(now.read_text(encoding="utf-8")) if now.is_file() else None
    return None, None


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def peak_rss_gib() -> float:
    """Peak resident memory of this process in GiB.

    On Linux from /proc: `getrusage` there carries the peak of the process that started this one across the start.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


@cache
def keep_freed_memory() -> bool:
    """Tell glibc's allocator to keep what is freed for the next allocation, and PyTorch's to ask for huge pages; returns whether it was.

    By default a tensor over 32 MB is a mapping of its own that goes back to the system when it is freed, and so does the top of the
    heap: a training step, which makes and frees the same tensors again and again, spends a part of its time in page faults. Peak memory
    stays the same (docs/notes/engine.md has the figures). Call it before the first tensors are made. Does nothing on another C library,
    where an allocator was preloaded, or where the environment sets glibc's own (MALLOC_…).
    """
    if (
        sys.platform != "linux"
        or os.environ.get("LD_PRELOAD")
        or any(name.startswith("MALLOC_") for name in os.environ)
    ):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # PyTorch reads it at its first large allocation
    told = [
        library.mallopt(name, value)
        for name, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, TOP_PAD_BYTES))
    ]
    return all(result == 1 for result in told)
