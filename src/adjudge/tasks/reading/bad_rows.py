"""Count the rows that cannot be read: stop at them, or go on without them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal, NoReturn, ParamSpec, TypeVar

from adjudge.errors import DataError
from adjudge.system.console import warn
from adjudge.types import Example

OnBadRows = Literal["error", "drop"]

LISTED = 20
"""Bad rows of a file that are listed; the others are only counted."""

_Arguments = ParamSpec("_Arguments")
_Made = TypeVar("_Made")


class KeptRows(list[Example]):
    """The rows of a split that could be read, and per file the number of those that were dropped."""

    dropped: dict[str, int]

    def __init__(self, rows: Iterable[Example] = (), dropped: Mapping[str, int] | None = None) -> None:
        super().__init__(rows)
        self.dropped = dict(dropped or {})


class BadRows:
    """The bad rows of one file, met in any order while it is read.

    With ``"error"``, `end` raises the first of them and names their number. With ``"drop"``, it lists them.
    """

    def __init__(self, path: Path, on_bad_rows: OnBadRows = "error") -> None:
        if on_bad_rows not in ("error", "drop"):
            raise DataError(f"bad_rows is '{on_bad_rows}': write 'error' or 'drop'.")
        self.path, self.on_bad_rows = path, on_bad_rows
        self.lines: set[int] = set()
        """Lines (or rows of a Parquet file) with a bad row."""
        self._errors: dict[int, DataError] = {}

    def __len__(self) -> int:
        return len(self.lines)

    def add(self, line: int, error: DataError) -> None:
        """Take note of a bad row. A row that is bad for two reasons counts once, with the first."""
        if line not in self.lines and len(self._errors) < LISTED:
            self._errors[line] = error
        self.lines.add(line)

    def attempt(
        self, line: int, make: Callable[_Arguments, _Made], *args: _Arguments.args, **options: _Arguments.kwargs
    ) -> _Made | None:
        """Return what `make` makes of a row, or None after taking note of its DataError."""
        try:
            return make(*args, **options)
        except DataError as error:
            self.add(line, error)
            return None

    def end(self, *, quiet: bool = False) -> None:
        """Raise DataError for the first bad row with the number of all, or list the rows that are dropped.

        `quiet` lists nothing: the rows are read again, and listed then.
        """
        if not self.lines:
            return
        if self.on_bad_rows == "error":
            self.stop()
        if not quiet:
            _list_dropped(str(self.path), tuple(str(self._errors[line]) for line in sorted(self._errors)), len(self))

    def stop(self) -> NoReturn:
        """Raise DataError for the first bad row, with the number of all."""
        raise self._first_error() from None

    def _first_error(self) -> DataError:
        line = min(self._errors)
        others = [str(number) for number in sorted(self.lines) if number != line]
        listed = ", ".join(others[:LISTED]) + (", …" if len(others) > LISTED else "")
        return DataError(f"{self._errors[line]} {how_many(len(self), f' (also: {listed})')}")


class StopAtFirst(BadRows):
    """Raises each bad row at once."""

    def add(self, line: int, error: DataError) -> None:
        """Raise the error of a bad row."""
        raise error


def how_many(count: int, where: str = "") -> str:
    """Return the sentence that ends the error of a first bad row; `where` tells where the others are."""
    if count == 1:
        return "It is the only bad row; data.bad_rows=drop goes on without it."
    return f"There are {count:,} bad rows in all{where}; data.bad_rows=drop goes on without them."


@lru_cache(maxsize=256)  # once for the same rows, however many splits, methods and seeds read them
def _list_dropped(path: str, errors: tuple[str, ...], count: int) -> None:
    rows = "1 bad row is" if count == 1 else f"{count:,} bad rows are"
    lines = "".join(f"\n  {error}" for error in errors)
    more = f"\n  and {count - len(errors):,} more" if count > len(errors) else ""
    warn(f"{path}: {rows} dropped (data.bad_rows=drop):{lines}{more}")
