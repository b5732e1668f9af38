"""The learned and the mixed reward: values by hand, and what they are equal to."""

from __future__ import annotations

import math

import pytest

from adjudge.rewards.learned import LearnedReward, mixed_reward
from adjudge.tasks import load_task
from adjudge.types import Example, Judgement

SPEC = load_task("glue/sst2")
WORDS = SPEC.words


def rows(count: int) -> list[Example]:
    return [Example(f"t:{index}", {}, WORDS[index % len(WORDS)]) for index in range(count)]


@pytest.mark.parametrize(
    ("learned", "other", "threshold", "expected"),
    [(5.0, 0.4, 3.9, 4.3), (-1.2, 0.4, 3.9, -0.8), (3.9, 0.0, 3.9, 3.9), (5.0, 0.4, math.inf, 5.4)],
)
def test_beyond_the_threshold_only_the_other_reward_counts(
    learned: float, other: float, threshold: float, expected: float
) -> None:
    assert mixed_reward(learned, other, threshold) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (3.5, 100.0), (0.01, -7.0)])
def test_a_model_that_knows_the_right_label_pays_as_right_and_wrong_do(scale: float, shift: float) -> None:
    """Of two labels the right one earns 1 and the wrong one −1, whatever the model's scale and origin."""
    examples = rows(5)
    rewards = [[scale * (word == row.gold) + shift for word in WORDS] for row in examples]
    learned = LearnedReward(SPEC, [row.id for row in examples], rewards)
    for row in examples:
        for word in WORDS:
            assert learned.of(row, Judgement(word, word)) == pytest.approx(1 if word == row.gold else -1, abs=1e-5)


def test_by_hand() -> None:
    """Row means 1 and 4 off: −1, 1, −2, 2; their deviation is the root of 2.5."""
    learned = LearnedReward(SPEC, ["t:0", "t:1"], [[0.0, 2.0], [2.0, 6.0]])
    paid = [learned.of(row, Judgement(word, word)) for row in rows(2) for word in WORDS]
    assert paid == pytest.approx([-0.632456, 0.632456, -1.264911, 1.264911], abs=1e-5)


def test_equal_rewards_pay_nothing() -> None:
    learned = LearnedReward(SPEC, ["t:0"], [[2.5, 2.5]])
    assert [learned.of(rows(1)[0], Judgement(word, word)) for word in WORDS] == [0.0, 0.0]


def test_what_cannot_be_read_is_not_rated() -> None:
    assert LearnedReward(SPEC, ["t:0"], [[0.0, 1.0]]).of(rows(1)[0], Judgement("??", None)) is None
