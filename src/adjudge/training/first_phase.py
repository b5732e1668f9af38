"""The first steps of a run: supervised ones, with a learning rate and a schedule of their own.

They go on for longer than planned where they have not taught anything yet: what follows learns from the answers that
they leave, and is held near them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

LEAST_ROWS = 64
"""Rows below which nothing is said about how good the answers are."""
SURE = 2.0
"""Standard errors by which answers are better than one answer for all rows."""


class FirstPhase:
    """How many of a run's steps are its first phase. Its state survives a kill.

    It ends after `share` of the steps. When too few rows of its second half were answered right before they were
    learned from, it goes on to `limit` of the steps, and leaves at least `left` steps. `common` holds, per task, the
    share of rows that one answer for all of them gets right. `lr` is the peak learning rate.
    """

    def __init__(
        self, share: float, lr: float = 0.0, limit: float = 0.0, *, left: int = 1, common: Sequence[float] = ()
    ) -> None:
        self._share, self._lr, self._limit, self._left, self._common = share, lr, limit, left, common
        self._goes_on = False
        self._rows, self._right, self._expected, self._variance = 0, 0.0, 0.0, 0.0

    def planned(self, total: int) -> int:
        """Return the number of its steps in a run of `total`, if it does not go on.

        One is left for what follows.
        """
        return min(round(self._share * total), max(total - 1, 0))

    def longest(self, total: int) -> int:
        """Return the largest number of steps that it may have."""
        return max(min(round(self._limit * total), total - self._left), self.planned(total))

    def may_go_on(self, total: int) -> bool:
        """Return whether it is decided on the way how long it is."""
        return bool(self._common) and self.longest(total) > self.planned(total)

    def steps(self, total: int) -> int:
        """Return the number of its steps, as it is known by now."""
        return self.longest(total) if self._goes_on else self.planned(total)

    def rate(self, step: int, total: int, rate_factor: Callable[[int, int], float]) -> float:
        """Return the learning rate of one of its steps, counted from 0.

        Where it goes on, its schedule begins anew.
        """
        planned = self.planned(total)
        if step < planned:
            return self._lr * rate_factor(step, planned)
        return self._lr * rate_factor(step - planned, self.steps(total) - planned)

    def see(self, step: int, total: int, task: int, rows: int, right: float) -> str | None:
        """Take note of the share `right` of a step's rows, answered before they were learned from.

        `step` is counted from 1. After the last planned step, return why the phase goes on, None if it does not.
        """
        planned, common = self.planned(total), self._common[task] if self._common else 0.0
        if planned // 2 < step <= planned:
            self._rows += rows
            self._right += rows * right
            self._expected += rows * common
            self._variance += rows * common * (1 - common)
        unknown = self._rows < LEAST_ROWS or not self.may_go_on(total)
        if step != planned or unknown or self._right > self._expected + SURE * math.sqrt(self._variance):
            return None
        self._goes_on = True
        return (
            f"the warm start goes on, to step {self.steps(total)} of {total}: {self._right / self._rows:.2f} of its "
            f"last {self._rows} answers were right, and one answer for all would be in "
            f"{self._expected / self._rows:.2f}."
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        counts = (self._rows, self._right, self._expected, self._variance)
        return {"goes_on": self._goes_on, "counts": counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state."""
        self._goes_on = bool(state["goes_on"])
        self._rows, self._right, self._expected, self._variance = state["counts"]


def commonest_share(answers: Iterable[object]) -> float:
    """Return the share of the commonest answer."""
    counts = Counter(map(str, answers))
    return max(counts.values()) / counts.total()
