"""The texts written so far, in a hidden folder beside the result, so that a killed `adjudge generate` goes on.

.OUT.work/texts.jsonl   what is written, in its first line; then a line per batch, in order
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from adjudge.errors import RunError
from adjudge.generation.selection import Written
from adjudge.system.console import note
from adjudge.system.files import Lock, write_text


class Work:
    """The batches of texts that were written. A context manager, which keeps a second process out."""

    def __init__(self, out: Path, identity: Mapping[str, Any], *, force: bool = False) -> None:
        """Check whether `out` may be written. Raises RunError when it is there, or another work is unfinished."""
        self.folder = out.parent / f".{out.name}.work"
        self._file = self.folder / "texts.jsonl"
        self._first = json.dumps(identity, ensure_ascii=True, sort_keys=True)
        self._lock = Lock(self.folder)
        self.batches: list[list[Written]] = []
        self._force = force
        if out.exists() and not force and not self._file.is_file():
            raise RunError(f"{out} is there already. Name another --out, or add --force to replace it.")
        self._check(out)

    def __enter__(self) -> Self:
        self._lock.acquire()
        lines = self._lines()
        if lines and lines[0] == self._first:
            self.batches = [[Written(*text) for text in json.loads(line)] for line in lines[1:]]
            note(f"going on after {sum(map(len, self.batches)):,} texts ({self.folder}).")
        write_text(self._file, "\n".join([self._first, *lines[1:] * bool(self.batches)]) + "\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def add(self, texts: Sequence[Written]) -> None:
        """Keep a batch of texts on the disk."""
        line = json.dumps([astuple(text) for text in texts], ensure_ascii=True, allow_nan=False)
        with self._file.open("a", encoding="ascii") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.batches.append(list(texts))

    def remove(self) -> None:
        """Remove the folder: the result is written."""
        self._lock.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _check(self, out: Path) -> None:
        lines = self._lines()
        if not lines or lines[0] == self._first or self._force:
            return
        before, now = json.loads(lines[0]), json.loads(self._first)
        names = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
        raise RunError(
            f"{self.folder} holds the texts of an unfinished run for {out} with another {', '.join(names)}. "
            "Give the same command to go on, or add --force to begin again."
        )

    def _lines(self) -> list[str]:
        """Return the whole lines; the last one of a killed process may be cut."""
        if not self._file.is_file():
            return []
        return self._file.read_text(encoding="ascii").split("\n")[:-1]
