"""Read text files line by line: UTF-8 or another encoding, plain or compressed with gzip.

The memory that a file can take is bounded by its size on disk.
"""

from __future__ import annotations

import codecs
import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from adjudge.errors import DataError
from adjudge.system.text import shorten

MOST_LINE = 2**26
"""Most characters of one line."""

MOST_UNPACKED = 100
"""How many times its size a gzip file may expand to. Text expands 3 to 20 times, a decompression bomb 1,000 times."""

SURELY_NO_BOMB = 2**22
"""Bytes that any gzip file may expand to."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row of a text file before it is checked: its line number (from 1) and its cells."""

    number: int
    cells: tuple[str, ...]


def is_packed(path: Path) -> bool:
    """Return whether a file is compressed with gzip, judging by its name."""
    return path.suffix.lower() == ".gz"


def plain_name(path: Path) -> Path:
    """Return the path without ``.gz``; its suffix then names the kind of table."""
    return path.with_suffix("") if is_packed(path) else path


def text_lines(
    path: Path, newline: str = "\n", encoding: str | None = None, advice: str = "Save the file as UTF-8."
) -> Iterator[str]:
    r"""Yield the lines of a text file with their line ends, without a byte-order mark.

    Lines end at `newline`; ``""`` means at ``\n``, ``\r`` or both. Without an `encoding`, the byte-order mark tells
    UTF-16 and UTF-32, and other files are UTF-8. Raises DataError for a file which is unreadable or not in its encoding
    (naming the line of the first invalid byte, then `advice`), a damaged or exploding gzip, or an endless line.
    """
    used = encoding
    try:
        with path.open("rb") as raw:
            # Both are binary streams; their common type is not declared.
            binary: IO[bytes] = _Unpacked(path, raw) if is_packed(path) else raw  # type: ignore[assignment]
            marked = marked_encoding(binary.peek(4)[:4])  # type: ignore[attr-defined]
            used = encoding or marked
            if used in _MARKS and used != marked:  # without a mark, Python reads neither; this is what Windows writes
                used += "-le"
            text = io.TextIOWrapper(binary, encoding="utf-8-sig" if used == "utf-8" else used, newline=newline)
            first = True
            while line := text.readline(MOST_LINE + 1):
                if len(line) > MOST_LINE:
                    raise DataError(
                        f"{path}: a line has more than {MOST_LINE // 2**20} million characters; is this a text file?"
                    )
                # UTF-8 and UTF-16 lose their mark above; an encoding that names the order of its bytes keeps it.
                yield line.removeprefix("\ufeff") if first and encoding else line
                first = False
    except UnicodeError:
        raise _encoding_error(path, used or "utf-8", advice) from None
    except _READ_ERRORS as error:
        raise _read_error(path, error) from None


def marked_encoding(begin: bytes) -> str:
    """Return the encoding that the byte-order mark at a file's beginning tells; ``utf-8`` without one."""
    for encoding, marks in _MARKS.items():
        if begin.startswith(marks):
            return encoding
    return "utf-8"


def told_encoding(path: Path) -> str:
    """Return the encoding that a text file's byte-order mark tells.

    Raises DataError when the file cannot be read.
    """
    try:
        with path.open("rb") as raw:
            binary: Any = _Unpacked(path, raw) if is_packed(path) else raw
            return marked_encoding(binary.peek(4)[:4])
    except _READ_ERRORS as error:
        raise _read_error(path, error) from None


_MARKS = {
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),  # the first begins like that of UTF-16
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
}

_READ_ERRORS = (zlib.error, EOFError, OSError)


def _read_error(path: Path, error: Exception) -> DataError:
    if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
        return DataError(f"{path}: cannot be read: {error.strerror or error}.")
    return DataError(f"{path}: is not a complete gzip file: {error}. Compress it again.")


class _Unpacked(io.BufferedReader):
    """A gzip file's content. Reading raises DataError once it grows far larger than text can."""

    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        super().__init__(_Counted(path, raw))  # type: ignore[arg-type]


class _Counted(io.RawIOBase):
    def __init__(self, path: Path, raw: IO[bytes]) -> None:
        self._path, self._most = path, max(SURELY_NO_BOMB, MOST_UNPACKED * path.stat().st_size)
        self._file, self._read = gzip.GzipFile(fileobj=raw), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._file.read(len(buffer))
        self._read += len(content)
        if self._read > self._most:
            raise DataError(
                f"{self._path}: expands to more than {MOST_UNPACKED} times its size, which text does not do. "
                "Unpack it yourself if it is correct."
            )
        buffer[: len(content)] = content
        return len(content)


def _encoding_error(path: Path, encoding: str, advice: str) -> DataError:
    """Return an error which names the first byte (or only the line) that is not in the encoding.

    The file is read again for this, so reading a valid file need not count lines.
    """
    find: Callable[[Path], str] = _first_bad_byte
    if encoding.replace("-", "") not in ("utf8", "utf8sig"):
        find = lambda path: _first_bad_line(path, encoding)  # noqa: E731
    try:
        return DataError(f"{path}:{find(path)} {advice}")
    except _READ_ERRORS as error:  # a gzip file may be damaged before that line
        return _read_error(path, error)


def _first_bad_byte(path: Path) -> str:
    with path.open("rb") as raw:
        file: Any = _Unpacked(path, raw) if is_packed(path) else raw
        number = 0
        while line := file.readline(MOST_LINE):
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                before = line[: error.start]
                return (
                    f"{number}: byte {line[error.start]:#04x} is not valid UTF-8 (field {before.count(9) + 1} "
                    f"counted by tabs, byte {len(before) + 1} of the line)."
                )
    return " is not valid UTF-8."


def _first_bad_line(path: Path, encoding: str) -> str:
    with path.open("rb") as raw:
        binary: Any = _Unpacked(path, raw) if is_packed(path) else raw
        text = io.TextIOWrapper(binary, encoding=encoding, errors="replace")
        number = 0
        with contextlib.suppress(UnicodeError):  # of some codecs, in spite of "replace"
            while line := text.readline(MOST_LINE):
                number += 1
                if "\ufffd" in line:
                    return f"{number}: has bytes that are not valid {encoding}."
    return f" is not valid {encoding}."


def tab_separated(path: Path, encoding: str | None = None, advice: str = "Save the file as UTF-8.") -> Iterator[Line]:
    r"""Yield the rows of a tab-separated file; `encoding` and `advice` are those of `text_lines`.

    Lines end at ``\n`` or ``\r\n`` and cells at tabs only: quotes are text, and so are U+2028, U+0085 and ``\f``. Blank
    lines at the end are skipped; any other blank line is a row with one empty cell. Raises DataError when the file is
    empty.
    """
    blank: list[Line] = []  # kept back until another row follows
    number = 0
    for number, text in enumerate(text_lines(path, encoding=encoding, advice=advice), 1):
        line = text.removesuffix("\n")
        row = Line(number, tuple(line.removesuffix("\r").split("\t")))
        if not line.strip("\r"):
            blank.append(row)
            continue
        yield from blank
        blank.clear()
        yield row
    if len(blank) == number:
        raise DataError(f"{path}: the file is empty.")


def read_tab_separated(path: Path) -> list[Line]:
    """Return all rows of `tab_separated`."""
    return list(tab_separated(path))


def json_lines(path: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield each object of a JSONL file as (line number from 1, line, object), skipping blank lines.

    Raises DataError for a line which is not JSON or not an object, an object with a key twice, or an empty file.
    """
    empty = True
    for number, line in enumerate(text_lines(path), 1):
        if line.strip():
            empty = False
            yield number, line, parse_object(path, number, line)
    if empty:
        raise DataError(f"{path}: the file is empty.")


def parse_object(path: Path, number: int, line: str) -> dict[str, Any]:
    """Return the object on one line of a JSONL file.

    Raises DataError for a line which is not JSON or not an object, or an object with a key twice.
    """
    try:
        parsed = json.loads(line, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{number}: is not JSON: {error}. Each line is one object.") from None
    if not isinstance(parsed, dict):
        raise DataError(f"{path}:{number}: is {kind_of(parsed)}, not an object: {shorten(line.strip())}")
    return parsed


def read_json_lines(path: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """Return all objects of `json_lines`."""
    return list(json_lines(path))


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key '{shorten(twice)}' occurs twice")
    return mapping


def kind_of(value: Any) -> str:
    """Return the kind of a JSON value in words."""
    kinds = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "an object",
    }
    return kinds.get(type(value), "null")
