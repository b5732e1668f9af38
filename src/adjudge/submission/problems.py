"""Problems of a submission, each with file, line and field, in lists that do not grow with the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

SHOWN = 5
"""How many problems of one kind are shown per file; the others are only counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake. Without a line it concerns the whole file."""

    file: str
    message: str
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        where = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (where, self.field, self.message) if part)


class ProblemLog:
    """The problems of one file: the first few of each kind, and a count of the others."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: list[tuple[str, Problem]] = []
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, message: str, line: int | None = None, field: str = "") -> None:
        """Add one problem. Problems of one `kind` are shown together with a count."""
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN:
            self._problems.append((kind, Problem(self.file, message, line, field)))

    def problems(self) -> list[Problem]:
        """Return the problems, with kinds in the order of their first problem."""
        problems = []
        for kind, count in self._counts.items():
            same_kind = [problem for name, problem in self._problems if name == kind]
            problems += same_kind
            if count > SHOWN:
                more = count - SHOWN
                message = f"{more:,} more line{'s have' if more > 1 else ' has'} this problem"
                problems.append(Problem(self.file, message, field=same_kind[0].field))
        return problems


def listed(numbers: list[int], shown: int = 10) -> str:
    """Return ascending numbers as ``3, 7 to 9, …``: runs are joined, and the first `shown` are written."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:shown]]
    return ", ".join(parts) + (", …" if len(runs) > shown else "")


def are(count: int) -> str:
    """Return ``is`` or ``are``, to follow a number of things."""
    return "is" if count == 1 else "are"
