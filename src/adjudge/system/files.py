"""Files and folders that are there whole or not at all, and that no second process writes to."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from adjudge.errors import RunError

SURROGATES = "backslashreplace"
"""A lone surrogate has no UTF-8; as a backslash escape it is JSON that reads back as it was."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: a temporary file beside it, synced, then renamed into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
        sync_folder(path.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically, as `write_bytes` does; lone surrogates become backslash escapes."""
    write_bytes(path, text.encode("utf-8", errors=SURROGATES))


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8, indented, no NaN) as `write_text` does."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


LOOK_S = 0.5
"""Seconds to wait for a lock: one who only looks whether it is held holds it for a moment."""


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, aside: when the block ends it is synced and renamed to `path`, in place of what was there; after an error, gone.

    A process that is killed on the way leaves a folder called ``.NAME.…`` behind (see `sweep`), and what was at `path` before; killed
    between the two renames, nothing at `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield aside
        for file in sorted(aside.rglob("*")):
            if file.is_file():
                sync_file(file)
        sync_folder(aside)
        os.chmod(aside, 0o777 & ~_umask())
        before = aside.with_name(f"{aside.name}.before")
        if path.exists():
            path.rename(before)
        aside.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(before, ignore_errors=True)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        _put_back(aside.with_name(f"{aside.name}.before"))
        found = re.search(r"os error (\d+)", str(error)) if isinstance(error, SafetensorError) else None
        if found:  # safetensors has no error of the system: a full disk must not look like a fault of ours
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from None
        raise


def sweep(folder: Path, names: tuple[str, ...]) -> None:
    """Remove what a killed process left aside of the files and folders of these names (``*``: of any) in `folder`.

    A folder that was moved out of the way of a new one, which then did not come, is put back.
    """
    for name in names:
        for left in folder.glob(f".{name}.*"):
            if _put_back(left):
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def _put_back(before: Path) -> bool:
    """Whether this was the earlier folder of a name that has none now, and is at its place again."""
    if not before.name.endswith(".before") or not before.is_dir():
        return False
    target = before.with_name(before.name[1:].removesuffix(".before").rpartition(".")[0])
    if target.exists():
        return False
    before.rename(target)
    return True


class Lock:
    """Keeps other processes out of a folder; the system lets go of it when this process ends, however it does.

    It lies beside what it guards as ``.adjudge.lock`` and stays there, empty.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / ".adjudge.lock", timeout=0, mode=0o666)

    def acquire(self) -> None:
        """Take it, making the folder where there is none; nothing happens when it is held already.

        Raises RunError when another process has it for longer than a look takes (`is_locked`), OSError as the folder does.
        """
        if self._lock.is_locked:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=LOOK_S, poll_interval=0.02)
        except Timeout:
            raise RunError(
                f"Another process is working in {self._folder}. Wait until it has ended, or name another folder with --out."
            ) from None

    def release(self) -> None:
        """Give it back."""
        self._lock.release(force=True)


def is_locked(folder: Path) -> bool:
    """Whether a process works in `folder` now."""
    path = folder / ".adjudge.lock"
    if not path.is_file():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # a folder that may not be written: nobody works in it
        return False


def sync_file(path: Path) -> None:
    """Have a file's content on the disk before anything says that it is there."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Have a folder's names on the disk: without it a rename may be lost when the machine stops."""
    if os.name == "nt":  # a folder cannot be opened there, and renames are synced by the file system
        return
    sync_file(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def cache_dir() -> Path:
    """The cache folder: ``$ADJUDGE_CACHE``, else ``$XDG_CACHE_HOME/adjudge``, else ``~/.cache/adjudge``. Need not exist yet."""
    own = os.environ.get("ADJUDGE_CACHE", "").strip()
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME", "").strip()
    base = Path(shared).expanduser() if shared else Path.home() / ".cache"
    return base / "adjudge"
