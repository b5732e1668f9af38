"""Choice of the rows shown in a few-shot prompt."""

from __future__ import annotations

import pytest
from specs import label_task, number_task

from adjudge.config import PromptConfig
from adjudge.errors import DataError
from adjudge.prompts.demonstrations import choose_demonstrations
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

LABELS = label_task("No", "Yes")
NUMBERS = number_task(0, 5)


def rows(*golds) -> list[Example]:
    return [Example(str(index), {"text": f"t{index}"}, gold) for index, gold in enumerate(golds)]


def chosen(train, count: int, how: str = "balanced", spec: TaskSpec = LABELS) -> list[int]:
    config = PromptConfig(demonstrations=count, demonstration_choice=how)
    return [int(example.id) for example in choose_demonstrations(train, spec, config)]


def test_first_takes_the_first_labelled_rows() -> None:
    assert chosen(rows("Yes", None, "Yes", "Yes", "No"), 3, "first") == [0, 2, 3]


def test_balanced_takes_each_labels_first_rows_in_their_order() -> None:
    train = rows("Yes", "Yes", "Yes", "Yes", "No", None, "No", "No")
    assert chosen(train, 4) == [0, 1, 4, 6]
    assert chosen(train, 5) == [0, 1, 4, 6, 7]  # the odd one goes to the first label of the task
    assert chosen(train, 1) == [4]


def test_balanced_fills_up_where_a_label_is_rare_or_missing() -> None:
    assert chosen(rows("Yes", "Yes", "Yes", "No", "Yes"), 4) == [0, 1, 2, 3]
    assert chosen(rows("Yes", "Yes", "Yes"), 3) == [0, 1, 2]


def test_numbers_are_spread_over_the_sorted_answers() -> None:
    train = rows(5.0, 0.0, 4.0, 1.0, 3.0, 2.0)
    assert chosen(train, 3, spec=NUMBERS) == [0, 3, 4]  # 1, 3 and 5: one from each third
    assert chosen(train, 6, spec=NUMBERS) == [0, 1, 2, 3, 4, 5]
    assert len(set(chosen(rows(*[2.0] * 50), 7, spec=NUMBERS))) == 7


def test_random_draws_by_the_seed() -> None:
    train = rows(*["Yes", "No", None] * 20)
    config = PromptConfig(demonstrations=6, demonstration_choice="random")
    drawn = [choose_demonstrations(train, LABELS, config, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({row.id for row in drawn[0]}) == 6
    assert all(row.gold is not None for row in drawn[0])


def test_zero_demonstrations() -> None:
    assert chosen([], 0) == chosen([], 0, "first") == chosen([], 0, "random") == chosen([], 0, spec=NUMBERS) == []


@pytest.mark.parametrize("how", ["balanced", "random", "first"])
def test_too_few_labelled_rows_is_an_error(how: str) -> None:
    with pytest.raises(DataError, match="3 demonstrations were requested, but there are 2"):
        chosen(rows("Yes", None, "No"), 3, how)


@pytest.mark.timeout(60)
def test_unknown_gold_answers_are_an_error() -> None:
    with pytest.raises(DataError, match="maybe"):
        chosen(rows("maybe", "maybe", "Yes"), 3)
