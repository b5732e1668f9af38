"""A warm start goes on where it has not taught anything yet: when, how long, and at which rates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest

from adjudge.config import OptimizerConfig
from adjudge.training.first_phase import FirstPhase, commonest_share
from adjudge.training.optim import rate_factor

TOTAL = 40


def seen(phase: FirstPhase, shares: Sequence[float], *, rows: int = 16, total: int = TOTAL) -> str | None:
    """Show the phase its planned steps; return what it says after the last."""
    said = [phase.see(step, total, 0, rows, right) for step, right in enumerate(shares, 1)]
    assert not any(said[:-1]), "it is decided after the last planned step"
    return said[-1]


def test_it_goes_on_where_its_answers_are_no_better_than_one_for_all() -> None:
    phase = FirstPhase(0.5, limit=0.75, common=[0.5])
    # The last 10 of 20 steps count: 160 rows, 80 of which one answer gets right, give or take 6.3.
    said = seen(phase, [1.0] * 10 + [0.57] * 10)
    assert said is not None
    assert "to step 30 of 40: 0.57 of its last 160 answers were right" in said
    assert "one answer for all would be in 0.50" in said
    assert phase.steps(TOTAL) == 30


def test_it_ends_as_planned_where_they_are_better() -> None:
    phase = FirstPhase(0.5, limit=0.75, common=[0.5])
    assert seen(phase, [0.0] * 10 + [0.58] * 10) is None, "80 + 2 · 6.3 of 160 is 0.579"
    assert phase.steps(TOTAL) == phase.planned(TOTAL) == 20


def test_one_answer_for_all_may_be_right_often() -> None:
    phase = FirstPhase(0.5, limit=0.75, common=[commonest_share(["Yes"] * 8 + ["No"] * 2)])
    assert seen(phase, [0.8] * 20) is not None
    assert seen(FirstPhase(0.5, limit=0.75, common=[0.5]), [0.8] * 20) is None


@pytest.mark.parametrize(
    ("phase", "rows"),
    [
        (FirstPhase(0.5, limit=0.0, common=[0.5]), 16),
        (FirstPhase(0.5, limit=0.5, common=[0.5]), 16),
        (FirstPhase(0.5, limit=0.75, common=[]), 16),
        (FirstPhase(0.5, limit=0.75, common=[0.5]), 6),  # 60 rows tell nothing
        (FirstPhase(0.5, limit=0.75, left=20, common=[0.5]), 16),
    ],
)
def test_it_does_not_go_on_without_leave_or_evidence(phase: FirstPhase, rows: int) -> None:
    assert seen(phase, [0.1] * 20, rows=rows) is None
    assert phase.steps(TOTAL) == 20


def test_it_leaves_the_steps_that_what_follows_needs() -> None:
    phase = FirstPhase(0.5, limit=0.99, left=5, common=[0.5])
    assert seen(phase, [0.1] * 20) is not None
    assert phase.steps(TOTAL) == 35
    assert FirstPhase(0.99).planned(TOTAL) == 39
    assert FirstPhase(0.5).planned(1) == 0


def test_tasks_have_their_own_answer_for_all() -> None:
    phase = FirstPhase(0.5, limit=0.75, common=[0.9, 0.5])
    said = [phase.see(step, TOTAL, step % 2, 16, (0.9, 0.5)[step % 2]) for step in range(1, 21)]
    assert said[-1] is not None and "0.70 of its last 160" in said[-1]


def test_the_rate_rises_and_falls_anew_where_it_goes_on() -> None:
    config = OptimizerConfig(schedule="linear", warmup_share=0.0)
    phase = FirstPhase(0.5, 3e-4, limit=0.75, common=[0.5])
    factor = partial(rate_factor, config=config)
    planned = [phase.rate(step, TOTAL, factor) for step in range(20)]
    seen(phase, [0.1] * 20)
    assert [phase.rate(step, TOTAL, factor) for step in range(20)] == planned
    more = [phase.rate(step, TOTAL, factor) for step in range(20, 30)]
    assert more == pytest.approx([3e-4 * (10 - step) / 10 for step in range(10)])


def test_what_was_seen_survives_a_kill() -> None:
    whole, first = (FirstPhase(0.5, limit=0.75, common=[0.5]) for _ in range(2))
    for step in range(1, 16):
        first.see(step, TOTAL, 0, 16, 0.55)
    resumed = FirstPhase(0.5, limit=0.75, common=[0.5])
    resumed.load_state_dict(first.state_dict())
    rest = [resumed.see(step, TOTAL, 0, 16, 0.55) for step in range(16, 21)]
    assert rest[-1] == seen(whole, [0.55] * 20) is not None
    assert resumed.state_dict() == whole.state_dict()
