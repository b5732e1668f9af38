"""The run folders of several processes: the first one's is the run's, the others' vanish at the end.

All processes run the same code, which writes here and there; so each has a folder to write to. What a resumed run reads
is sent by the first process, so the others may be on machines that do not see its disk.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adjudge.config import Config
from adjudge.system.parallel import is_first, of_first, on_first, world_size

NOT_SENT = ("tracking", "evaluations", ".adjudge.lock")
"""What the other processes do not need of the folder of a run to resume."""


@contextmanager
def folder_of_process(folder: Path, *, resume: bool) -> Iterator[Path]:
    """Yield the folder this process writes to: `folder` in the first, elsewhere a copy, which is removed."""
    if world_size() == 1:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="adjudge-process-") as temporary:
        own_folder = folder if is_first() else Path(temporary) / folder.name
        for name in on_first(lambda: _files(folder) if resume else []):
            content = of_first((folder / name).read_bytes)  # one file at a time: checkpoints are large
            if not is_first():
                (own_folder / name).parent.mkdir(parents=True, exist_ok=True)
                (own_folder / name).write_bytes(content)
        yield own_folder


def config_of_process(config: Config) -> Config:
    """Return the settings with which this process runs: the first one alone reports to trackers."""
    return config if is_first() else config.model_copy(update={"tracking": Config().tracking})


def _files(folder: Path) -> list[str]:
    """Return the relative names of the files below a folder which the other processes need."""
    names = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    return [name.as_posix() for name in sorted(names) if name.parts[0] not in NOT_SENT]
