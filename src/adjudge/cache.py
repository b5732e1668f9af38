"""Where downloaded things are kept between runs, and how a file gets there whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def cache_dir() -> Path:
    """The cache folder: ``$ADJUDGE_CACHE``, else ``$XDG_CACHE_HOME/adjudge``, else ``~/.cache/adjudge``. Need not exist yet."""
    own = os.environ.get("ADJUDGE_CACHE", "").strip()
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME", "").strip()
    base = Path(shared).expanduser() if shared else Path.home() / ".cache"
    return base / "adjudge"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file aside, sync it, then rename it into place: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
