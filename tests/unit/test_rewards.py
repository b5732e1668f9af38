"""Rewards against the paper's constants."""

import pytest
from specs import label_task, number_task

from adjudge.config import RewardConfig
from adjudge.errors import DataError, NotFiniteError
from adjudge.rewards.score import reward, reward_scale, rewards
from adjudge.types import Judgement

CONFIG = RewardConfig()


LABELS = label_task("No", "Yes")
STSB = number_task(0, 5)


def test_right_wrong_and_unreadable_labels_get_the_papers_constants():
    judgements = [Judgement("Yes", "Yes"), Judgement("No", "No"), Judgement("Not sure", None)]
    assert rewards(judgements, ["Yes"] * 3, LABELS, CONFIG) == [1.0, -1.0, -3.0]


def test_other_constants_are_taken_from_the_configuration():
    other = RewardConfig(right=2, wrong=0, unreadable=-0.5)
    assert rewards([Judgement("Yes", "Yes"), Judgement("", None)], ["No", "No"], LABELS, other) == [0.0, -0.5]


def test_numbers_get_half_the_range_less_the_distance():
    found = [reward(Judgement("", value), 4.0, STSB, CONFIG) for value in (4.0, 3.0, 0.0, None)]
    assert found == [2.5, 1.5, -1.5, -2.5]


def test_an_unreadable_number_gets_no_more_than_the_farthest_one():
    wide = number_task(-4, 4)
    assert reward(Judgement("", None), 4.0, wide, CONFIG) == reward(Judgement("", -4.0), 4.0, wide, CONFIG) == -4.0


@pytest.mark.parametrize("task", [LABELS, STSB])
def test_a_missing_gold_answer_is_an_error_that_names_the_row(task):
    with pytest.raises(DataError, match=r"Row 1 of the batch: mine: .* no gold answer"):
        rewards([Judgement("", None)] * 2, [1.0 if task is STSB else "Yes", None], task, CONFIG)


def test_a_gold_answer_of_another_kind_is_an_error():
    with pytest.raises(DataError, match="Did you mean 'Yes'"):
        reward(Judgement("Yes", "Yes"), "yes", LABELS, CONFIG)
    with pytest.raises(DataError, match="not a number"):
        reward(Judgement("1", 1.0), "1", STSB, CONFIG)


def test_a_reward_that_is_not_finite_stops_and_names_the_row():
    with pytest.raises(NotFiniteError, match="row 1"):
        rewards([Judgement("", 1.0)] * 2, [1.0, float("nan")], STSB, CONFIG)


def test_rewards_of_several_tasks_on_one_scale_by_hand():
    """STS-B pays 2.5 to −2.5, and the labels pay 1, −1 and −3.

    Divided by the task's scale, readable answers of both pay 1 to −1.
    """
    assert (reward_scale(LABELS, CONFIG), reward_scale(STSB, CONFIG), reward_scale(number_task(-4, 4), CONFIG)) == (
        1.0,
        2.5,
        4.0,
    )
    numbers = rewards([Judgement("", value) for value in (4.0, 2.75, 0.0, None)], [4.0] * 4, STSB, CONFIG)
    assert [score / reward_scale(STSB, CONFIG) for score in numbers] == [1.0, 0.5, pytest.approx(-0.6), -1.0]
    labels = rewards([Judgement("", value) for value in ("Yes", "No", None)], ["Yes"] * 3, LABELS, CONFIG)
    assert [score / reward_scale(LABELS, CONFIG) for score in labels] == [1.0, -1.0, -3.0]


@pytest.mark.parametrize(
    ("config", "size"),
    [
        (RewardConfig(right=2, wrong=-1), 2.0),
        (RewardConfig(right=0, wrong=-0.5), 0.5),
        (RewardConfig(right=-1, wrong=4), 4.0),
        (RewardConfig(right=0, wrong=0), 1.0),
    ],
)
def test_the_size_of_a_reward_is_that_of_the_readable_answer_that_counts_most(config, size):
    assert reward_scale(LABELS, config) == size
