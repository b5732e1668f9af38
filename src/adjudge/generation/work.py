"""The texts written so far, in a hidden folder beside the result: a killed `adjudge generate` goes on.

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


def files_at(out: Path) -> list[Path]:
    """Return the files of a result: the rows, what was asked, and the task over them."""
    return [out, out.with_suffix(".json"), out.with_suffix(".yaml")]


class Work:
    """The batches of texts that were written. A context manager, which keeps a second process out."""

    def __init__(self, out: Path, identity: Mapping[str, Any], *, force: bool = False) -> None:
        """Check whether `out` and what lies beside it may be written.

        Raises RunError when one of them is there, or other texts are unfinished.
        """
        self.folder = out.parent / f".{out.name}.work"
        self._file = self.folder / "texts.jsonl"
        self._first = json.dumps(identity, ensure_ascii=True, sort_keys=True)
        self._lock = Lock(self.folder)
        self.batches: list[list[Written]] = []
        self._force = force
        there = [file for file in files_at(out) if file.exists()]
        if there and not force and not self._file.is_file():
            raise RunError(f"{there[0]} is there already. Name another --out, or add --force to replace it.")
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
        changes = [
            f"{name} {before[name]} → {now[name]}" if isinstance(before.get(name), int | str) else name
            for name in now
            if before.get(name) != now[name]
        ]
        raise RunError(
            f"{self.folder} holds the texts of an unfinished command for {out} with other settings "
            f"({', '.join(changes)}). Give the same command to go on, or add --force to begin again."
        )

    def _lines(self) -> list[str]:
        """Return the whole lines; the last one of a killed process may be cut."""
        if not self._file.is_file():
            return []
        return self._file.read_text(encoding="ascii").split("\n")[:-1]
