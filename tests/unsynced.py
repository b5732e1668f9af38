"""Let `os.fsync` do nothing. Imported for its effect.

It waits for the disk, and takes up to half of the time of a tiny run. It matters only where a machine loses its power;
tests kill processes.
"""

from __future__ import annotations

import os


def _nothing(_descriptor: int) -> None:
    pass


os.fsync = _nothing  # type: ignore[assignment]
