"""What is wrong with a submission: each thing with file, line and field, and no list that grows with the file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

SHOWN = 5
"""How many problems of one kind are shown for one file; the others are counted."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. Without a line it concerns the whole file."""

    file: str
    what: str
    line: int | None = None
    field: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return ": ".join(part for part in (place, self.field, self.what) if part)


class Found:
    """The problems of one file, in the order they were found: the first few of each kind, and how many more there are."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: list[tuple[str, Problem]] = []
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, what: str, line: int | None = None, field: str = "") -> None:
        """Note one problem. Problems of one `kind` are shown together with a count."""
        self._counts[kind] += 1
        if self._counts[kind] <= SHOWN:
            self._problems.append((kind, Problem(self.file, what, line, field)))

    def problems(self) -> list[Problem]:
        """What was found, kinds in the order of their first problem."""
        found = []
        for kind, count in self._counts.items():
            same = [problem for name, problem in self._problems if name == kind]
            found += same
            if count > SHOWN:
                more = count - SHOWN
                found.append(
                    Problem(
                        self.file, f"{more:,} more line{'s have' if more > 1 else ' has'} this", field=same[0].field
                    )
                )
        return found


def listed(numbers: list[int], shown: int = 10) -> str:
    """Ascending numbers as ``3, 7 to 9, …``: runs are joined, and only the first few are written out."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    parts = [str(first) if first == last else f"{first} to {last}" for first, last in runs[:shown]]
    return ", ".join(parts) + (", …" if len(runs) > shown else "")


def are(count: int) -> str:
    """``is`` or ``are``, after a number of things."""
    return "is" if count == 1 else "are"
