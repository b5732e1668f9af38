"""How much memory there is: the machine's, or what a container is allowed of it."""

from __future__ import annotations

import os
from pathlib import Path

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
