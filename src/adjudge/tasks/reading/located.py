"""Where a user's table is now: at its path, or under its name in the data folder."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from adjudge.errors import DataError
from adjudge.system.console import note
from adjudge.tasks.spec import Source, TaskSpec


def located(
    spec: TaskSpec, data_dir: str | Path | None, *, split: str | None = None, must_exist: bool = True
) -> Source:
    """Return the task's source, with the files of a user's table where they are now.

    If `split` is given, only its file is looked for. A file that is not at its path is looked for by name in
    `data_dir`: a run keeps the path its table had, and the table may have been moved since. A note says when it was
    found there. Raises DataError with every place looked at, unless not `must_exist`.
    """
    table = spec.source.table
    if table is None:
        return spec.source
    files = {"train": table.train, "dev": table.dev, "test": table.test}
    if split == "test" or (split in files and table.dev is not None):
        files = {split: files[split]}
    elif split in files:
        files = {"train": table.train}
    now = {key: str(_place(spec, Path(file), data_dir, must_exist)) for key, file in files.items() if file is not None}
    return spec.source.model_copy(update={"table": table.model_copy(update=now)})


def _place(spec: TaskSpec, path: Path, data_dir: str | Path | None, must_exist: bool) -> Path:
    if path.is_file():
        return path
    places = [path] if data_dir is None else [path, Path(data_dir) / path.name]
    for candidate in places:
        if candidate.is_file():
            _say(candidate, path)
            return candidate
    if path.is_dir() or not must_exist:
        return path  # what is wrong with a folder is said by its reader
    if spec.source.table is not None and spec.source.table.dataset is not None:
        from adjudge.tasks.reading.hub_dataset import file_again

        return file_again(spec.source.table.dataset, path)
    tried = "".join(f"\n  {candidate}" for candidate in places)
    raise DataError(
        f"{spec.name}: there is no file {path.name}. Looked at:{tried}\n"
        "Put it back, or name the folder it is in now with --data-dir."
    )


@cache
def _say(new_path: Path, path: Path) -> None:
    note(f"{new_path} is read in place of {path}, which is gone.")
