"""Drawing rows."""

import pytest

from adjudge.errors import DataError
from adjudge.tasks import take_rows
from adjudge.types import Example


def rows(*texts: str, split: str = "train") -> list[Example]:
    return [Example(f"{split}:{number}", {"text": text}) for number, text in enumerate(texts)]


MANY = rows(*(f"text {number}" for number in range(100)))


def test_draw_is_without_replacement_and_depends_only_on_the_seed():
    drawn = take_rows(MANY, 30, 7)
    assert len({e.id for e in drawn}) == 30
    assert drawn == take_rows(list(MANY), 30, 7)
    assert drawn != take_rows(MANY, 30, 8)
    assert [e.id for e in drawn] != sorted(e.id for e in drawn)


def test_draw_is_the_same_on_every_machine():
    assert [e.id for e in take_rows(MANY[:10], 4, 0)] == ["train:7", "train:8", "train:1", "train:5"]


def test_smaller_draw_is_the_beginning_of_a_larger_one():
    assert take_rows(MANY, 80, 3)[:20] == take_rows(MANY, 20, 3)


def test_all_rows_keep_file_order(capsys):
    assert take_rows(MANY, None, 1) == MANY
    assert take_rows(MANY, 100, 1) == MANY
    assert take_rows(MANY, 0, 1) == []
    assert capsys.readouterr().err == ""


def test_shortfall_is_reported_once(capsys):
    few = rows("reported once", "and all are used")
    assert take_rows(few, 1000, 1, "training rows") == few
    assert "1,000 training rows were requested and there are 2: all of them are used." in capsys.readouterr().err
    assert take_rows(few, 1000, 2, "training rows") == few
    assert capsys.readouterr().err == ""


def grouped(*sizes: int) -> list[Example]:
    return [
        Example(f"{group}/{row}", {"text": "x"}, group=f"q{group}")
        for group, size in enumerate(sizes)
        for row in range(size)
    ]


QUESTIONS = grouped(*(1 + number % 7 for number in range(60)))


@pytest.mark.parametrize("n", [1, 10, 57, 200])
def test_whole_groups_are_drawn_until_there_are_enough_rows(n):
    drawn = take_rows(QUESTIONS, n, 5)
    names = [row.group for row in drawn]
    assert n <= len(drawn) < n + 7
    assert drawn == [row for name in dict.fromkeys(names) for row in QUESTIONS if row.group == name]
    assert drawn[: len(take_rows(QUESTIONS, n // 2, 5))] == take_rows(QUESTIONS, n // 2, 5)


def test_rows_of_a_group_need_not_be_adjacent():
    mixed = [row for pair in zip(QUESTIONS[:100], QUESTIONS[100:200], strict=True) for row in pair]
    for row in (drawn := take_rows(mixed, 20, 1)):
        assert sum(other.group == row.group for other in drawn) == sum(other.group == row.group for other in mixed)


def test_rows_without_a_group_are_drawn_one_by_one():
    drawn = take_rows([*QUESTIONS, *MANY], 90, 2)
    assert 90 <= len(drawn) < 97
    assert 0 < sum(not row.group for row in drawn) < 100


def test_training_rows_are_drawn_one_by_one():
    assert len(take_rows(QUESTIONS, 57, 5, whole_groups=False)) == 57
    alone = [Example(row.id, row.fields) for row in QUESTIONS]
    assert [r.id for r in take_rows(QUESTIONS, 57, 5, whole_groups=False)] == [r.id for r in take_rows(alone, 57, 5)]


def test_a_negative_number_cannot_be_drawn():
    with pytest.raises(DataError, match="-1 rows"):
        take_rows(MANY, -1, 0)
