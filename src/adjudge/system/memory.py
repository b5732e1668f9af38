"""Measure memory (total, available, the process's peaks), see when it runs out, and free it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from functools import cache
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4
"""The parameters of glibc's `mallopt` (malloc.h)."""
TOP_PAD_BYTES = 64 * 2**20

LIMITS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Files with the limit and the use of a container on Linux: control groups version 2, then version 1."""


def memory_gib(root: Path = Path("/")) -> float | None:
    """Return the memory of the machine, or of the container if less; None if the system does not say."""
    limit, _ = _limit(root)
    sizes = [size for size in (_meminfo(root).get("MemTotal") or _installed(), limit) if size is not None]
    return min(sizes) / 2**30 if sizes else None


def available_gib(root: Path = Path("/")) -> float | None:
    """Return the memory that programs can still allocate; None if the system does not say."""
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
    """Return the bytes a container may use and the bytes it uses; None without a limit."""
    for limit, used in LIMITS:
        limit_file, used_file = root / limit.lstrip("/"), root / used.lstrip("/")
        if limit_file.is_file() and (text := limit_file.read_text(encoding="utf-8").strip()).isdigit():
            return int(text), int(used_file.read_text(encoding="utf-8")) if used_file.is_file() else None
    return None, None


def _installed() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


PEAKS = ("peak_rss_gib", "peak_gpu_gib")
"""Names of the peaks as a run records them."""


def peak_rss_gib() -> float:
    """Return the peak resident memory of this process in GiB.

    Linux: read from /proc, because a new process inherits its parent's peak in `getrusage`.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def peak_gpu_gib() -> float | None:
    """Return the peak memory, in GiB, of this process's tensors on the GPU that held most.

    None where no GPU was used. The figure is the peak of what PyTorch's allocator gave out. What it kept besides, and
    the driver's own memory, are extra.
    """
    if not uses_gpu():
        return None
    cuda = sys.modules["torch"].cuda
    peaks = [cuda.max_memory_allocated(device) for device in range(cuda.device_count())]
    return max(peaks, default=0) / 2**30 or None


def uses_gpu() -> bool:
    """Return whether this process has used a CUDA GPU. It neither imports PyTorch nor starts the GPU's driver."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()


def peaks() -> dict[str, float]:
    """Return this process's peaks as a run records them: `PEAKS`, without the GPU's where none was used."""
    values = zip(PEAKS, (peak_rss_gib(), peak_gpu_gib()), strict=True)
    return {name: value for name, value in values if value is not None}


@cache
def keep_freed_memory() -> bool:
    """Make glibc keep freed memory, and PyTorch ask for huge pages; return whether it worked.

    By default a tensor over 32 MB is a mapping of its own, which goes back to the system when it is freed. So does the
    top of the heap. A training step makes and frees the same tensors again and again, and then spends part of its time
    in page faults. Peak memory stays the same (figures: docs/notes/engine.md).

    Call this before the first tensors are made. It does nothing on another C library, with a preloaded allocator, or
    when the environment has settings of glibc's own (MALLOC_…).
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
    results = [
        library.mallopt(parameter, value)
        for parameter, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1), (M_TOP_PAD, TOP_PAD_BYTES))
    ]
    return all(result == 1 for result in results)


def return_freed_memory() -> None:
    """Give freed memory back to the system, once: after much was read of which little is kept. glibc only."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "malloc_trim"):
        library.malloc_trim(0)  # type: ignore[union-attr]


_OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "not enough memory",
    "cublas_status_alloc_failed",
)
"""What the messages of PyTorch's errors hold when an allocation failed, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that an allocation failed, on a GPU or a CPU."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)


def free_dropped() -> None:
    """Free the models that were dropped, and the GPU memory that PyTorch keeps for later tensors.

    A model's layers whose forward was replaced (`adjudge.models.engine`) refer to themselves, so they stay until the
    garbage collector comes by. Other processes cannot use what this one keeps. Call this where no local variable, and
    no error that is being handled, holds the model any more.
    """
    gc.collect()
    if uses_gpu():
        sys.modules["torch"].cuda.empty_cache()
