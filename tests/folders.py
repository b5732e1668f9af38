"""What lies in a folder, to see whether anything changed there."""

from __future__ import annotations

import hashlib
from pathlib import Path


def content_of(folder: Path) -> dict[str, tuple[str, int]]:
    """Return the SHA-256 and the time of change of every file below a folder, hidden ones included, by path."""
    return {
        str(path.relative_to(folder)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
