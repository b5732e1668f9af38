"""Files and folders that appear whole or not at all, and locks that keep a second process out."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from adjudge.errors import DataError, RunError

SURROGATES = "backslashreplace"
"""Error handler for encoding text: the backslash escape of a lone surrogate is JSON that reads back equal."""


def cache_dir() -> Path:
    """Return the cache folder, which may not exist yet.

    It is ``$ADJUDGE_CACHE``, else ``$XDG_CACHE_HOME/adjudge``, else ``~/.cache/adjudge``.
    """
    own_cache = os.environ.get("ADJUDGE_CACHE", "").strip()
    if own_cache:
        return Path(own_cache).expanduser()
    user_cache = os.environ.get("XDG_CACHE_HOME", "").strip()
    base = Path(user_cache).expanduser() if user_cache else Path.home() / ".cache"
    return base / "adjudge"


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_lines(path: Path) -> tuple[list[str], str]:
    """Return the lines with text of a UTF-8 file, without surrounding white space, and its SHA-256.

    Raises DataError for a file that is missing, no text, or empty.
    """
    try:
        content = path.read_bytes()
        lines = [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise DataError(f"{path}: is a folder. Name a text file with one text per line.") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 (byte {error.start}). Write it as UTF-8.") from None
    if not lines:
        raise DataError(f"{path}: has no line with text. Write one text per line.")
    return lines, hashlib.sha256(content).hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically: fill a temporary file beside it, sync it, and rename it into place."""
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
    write_bytes(path, bytes(text, "utf-8", SURROGATES))


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8, indented, no NaN) atomically, as `write_text` does."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; on success sync it and rename it to `path`, on error delete it.

    An earlier folder at `path` is replaced. A process that is killed before the renames leaves a folder called
    ``.NAME.…`` beside it. A process that is killed between the two renames leaves nothing at `path`; `sweep` repairs
    both.
    """
    with temporary_folder(path) as folder:
        yield folder
        sync_tree(folder)
        mask = _umask()  # safetensors writes files that only their owner may read
        for file in folder.rglob("*"):
            os.chmod(file, (0o777 if file.is_dir() else 0o666) & ~mask)
        os.chmod(folder, 0o777 & ~mask)
        _replace(path, folder)


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder ``.NAME.…`` beside `path`, and delete it at the end unless it was renamed.

    A disk error inside safetensors is raised as OSError, so that a full disk does not look like a fault of ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield folder
    except SafetensorError as error:
        number = os_error_number(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def os_error_number(error: SafetensorError) -> int | None:
    """Return the system's error number from the message of a safetensors error, or None without one."""
    match = re.search(r"os error (\d+)", str(error))
    return int(match[1]) if match else None


def sweep(folder: Path, names: tuple[str, ...], older_than_s: float | None = None) -> None:
    """Remove temporary files and folders that killed processes left in `folder`.

    `names` are the names of the files and folders they were made for (``*``: any). A folder that was moved aside for a
    new one that never came is moved back. With `older_than_s`, younger leftovers are kept, because another process may
    still fill them.
    """
    for name in names:
        for leftover in folder.glob(f".{name}.*"):
            if older_than_s is not None and not _is_older(leftover, older_than_s):
                continue
            if _was_displaced(leftover):
                _put_back(leftover)
            elif leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


def _replace(path: Path, folder: Path) -> None:
    """Rename `folder` to `path` after moving an earlier folder aside; move that back on error."""
    earlier = folder.with_name(f"{folder.name}.before")
    try:
        if path.exists():
            path.rename(earlier)
        folder.rename(path)
        sync_folder(path.parent)
        shutil.rmtree(earlier, ignore_errors=True)
    except BaseException:
        if _was_displaced(earlier):
            _put_back(earlier)
        raise


def _was_displaced(path: Path) -> bool:
    """Return whether this is an earlier folder that was moved aside, and nothing has taken its name."""
    return path.name.endswith(".before") and path.is_dir() and not _name_before(path).exists()


def _put_back(path: Path) -> None:
    """Move a displaced folder back to its name."""
    path.rename(_name_before(path))


def _name_before(displaced: Path) -> Path:
    """Return the path that a displaced folder had: ``.NAME.RANDOM.before`` was ``NAME``."""
    return displaced.with_name(displaced.name[1:].removesuffix(".before").rpartition(".")[0])


def _is_older(path: Path, seconds: float) -> bool:
    try:
        return time.time() - path.stat().st_mtime > seconds
    except FileNotFoundError:  # another process finished meanwhile
        return False


def sync_file(path: Path) -> None:
    """Sync a file's content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Sync a folder's list of names to disk: without it a rename may be lost when the machine stops."""
    if os.name == "nt":  # a folder cannot be opened there, and the file system syncs renames itself
        return
    sync_file(path)


def sync_tree(folder: Path) -> None:
    """Sync every file below a folder, and the folder itself."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            sync_file(path)
    sync_folder(folder)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


LOCK_WAIT_S = 0.5
"""Seconds to wait for a lock, because `is_locked` itself holds it for a moment."""


class Lock:
    """A lock that keeps other processes out of a folder.

    It is held on the empty file ``.adjudge.lock`` in the folder, which stays there. The system releases the lock when
    this process ends for any reason.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = FileLock(folder / ".adjudge.lock", timeout=0, mode=0o666)

    def acquire(self) -> None:
        """Take the lock unless this object holds it already; make the folder when it is missing.

        Raises RunError when another process keeps the lock for longer than `LOCK_WAIT_S`, OSError when the folder
        cannot be made or written.
        """
        if self._lock.is_locked:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=LOCK_WAIT_S, poll_interval=0.02)
        except Timeout:
            raise RunError(
                f"Another process is working in {self._folder}. "
                "Wait until it has ended, or name another folder with --out."
            ) from None

    def release(self) -> None:
        """Release the lock."""
        self._lock.release(force=True)


def is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of `folder` now."""
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
