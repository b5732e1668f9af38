"""The rows that a temperature is fitted on: training rows that the judge does not learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from adjudge.errors import ConfigError
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

UNUSED, HELD_OUT = "unused training rows", "held-out training rows"
"""Where such rows are from: rows that ``data.train_rows`` left over, or rows kept from training."""


class CalibrationRows(NamedTuple):
    """Rows that a temperature is fitted on, and where they are from."""

    rows: Sequence[Example]
    source: str


def set_aside(
    spec: TaskSpec,
    learned: Sequence[Example],
    pool: Sequence[Example],
    judged: Sequence[Example],
    count: int,
    seed: int,
) -> tuple[list[Example], CalibrationRows]:
    """Return the rows to learn from, and `count` rows to calibrate with.

    These are rows of `pool` (all training rows) that are not among the drawn rows `learned`, where there are as many,
    and training then loses none. Else they are taken from `learned`, in whole groups. Raises ConfigError when fewer
    rows would remain to learn from than are set aside.
    """
    from adjudge.tasks import take_rows

    unused = unused_rows(learned, pool, judged)
    if len(unused) >= count:
        return list(learned), CalibrationRows(take_rows(unused, count, seed), UNUSED)
    held = take_rows(learned, count, seed)
    ids = {row.id for row in held}
    remaining = [row for row in learned if row.id not in ids]
    if len(remaining) < len(held):
        raise ConfigError(
            f"{spec.name}: calibration.rows={count} would hold out {len(held)} of {len(learned)} training rows, and "
            f"leave {len(remaining)} to train on. Hold out fewer, or calibrate the finished run with rows of a file: "
            "adjudge calibrate --run DIR --data FILE."
        )
    return remaining, CalibrationRows(held, HELD_OUT)


def unused_rows(learned: Sequence[Example], pool: Sequence[Example], judged: Sequence[Example]) -> list[Example]:
    """Return the labelled rows of `pool` that are neither learned nor judged, in their order.

    A row with the texts of such a row is left out too, and so are all rows of a group with a learned row.
    """
    from adjudge.tasks import without_overlap

    ids, groups = {row.id for row in learned}, {row.group for row in learned if row.group}
    others = [row for row in pool if row.id not in ids and row.group not in groups and row.gold is not None]
    return without_overlap(others, [*learned, *judged])
