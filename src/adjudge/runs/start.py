"""The finished run another one starts from: its adapter is also the reference."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from adjudge.config import Config
from adjudge.errors import RunError
from adjudge.models.sources.untrusted import has_head
from adjudge.system.files import sha256_of

MODEL_FILES = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model")
"""The files a model or an adapter is read from."""


@dataclass(frozen=True, slots=True)
class StartingPoint:
    """A run folder with an adapter, and the hashes of the adapter's files.

    The files must not change during the new run.
    """

    folder: Path
    files: dict[str, str]
    """File name to SHA-256."""

    @property
    def adapter(self) -> Path:
        """Return the folder of the adapter."""
        return self.folder / "adapter"

    @property
    def adapter_sha256(self) -> str:
        """Return the SHA-256 of the adapter's weights."""
        return self.files.get("adapter_model.safetensors", "")


def starting_point(config: Config) -> StartingPoint | None:
    """Return the run named by ``init``, or None without one. Raises RunError when it holds no adapter."""
    if config.init is None:
        return None
    folder = Path(config.init) / "adapter"
    if not folder.is_dir():
        raise RunError(f"{config.init} holds no adapter to start from: --init names the folder of a finished run.")
    if has_head(folder):
        raise RunError(
            f"{config.init} was trained to judge with a classification head, and writes no answers: nothing starts "
            "from it. Name a run that answers in words."
        )
    return StartingPoint(Path(config.init), model_hashes(folder))


def model_hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a model or an adapter, by file name."""
    files = sorted(path for pattern in MODEL_FILES for path in folder.glob(pattern))
    return {path.name: _sha256_of(path, path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@lru_cache(maxsize=256)
def _sha256_of(path: Path, _size: int, _modified_ns: int) -> str:
    """Return the SHA-256 of a file, computed once per version of it.

    Models are large, and a comparison has many runs.
    """
    return sha256_of(path)
