"""Splitting dev rows off a table: balanced over labels, deterministic, equal texts together."""

from collections import Counter

import pytest

from adjudge.errors import DataError
from adjudge.tasks import infer_task, load_split
from adjudge.tasks.reading.split import split_table
from adjudge.types import Example


def rows(**labels):
    """Return rows of each label, with different texts."""
    return [
        Example(f"{label}:{number}", {"text": f"{label} text {number}"}, label)
        for label, count in labels.items()
        for number in range(count)
    ]


def counts(examples):
    return dict(Counter(example.gold for example in examples))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("labels", "dev"),
    [
        ({"a": 38, "b": 2}, {"a": 7, "b": 1}),
        ({"a": 12, "b": 12}, {"a": 3, "b": 2}),
        ({"a": 95, "b": 5}, {"a": 19, "b": 1}),
        ({"a": 500, "b": 300, "c": 200}, {"a": 100, "b": 60, "c": 40}),
        ({"a": 2, "b": 1}, {"a": 1}),
        ({f"l{number:02}": 3 for number in range(20)}, {f"l{number:02}": 1 for number in range(20)}),
    ],
)
def test_dev_rows_are_balanced_over_labels(labels, dev, seed):
    train_rows, dev_rows = split_table(rows(**labels), 0.2, seed)
    assert counts(dev_rows) == dev
    assert counts(train_rows) == {label: count - dev.get(label, 0) for label, count in labels.items()}


def test_the_split_depends_on_the_seed_and_not_on_the_row_order():
    examples = rows(a=30, b=10)
    ids = [{row.id for row in split_table(order, 0.2, 0)[1]} for order in (examples, examples[::-1])]
    assert ids[0] == ids[1]
    assert ids[0] != {row.id for row in split_table(examples, 0.2, 1)[1]}
    assert split_table(examples, 0.2, 0)[0] == [row for row in examples if row.id not in ids[0]]


@pytest.mark.parametrize("seed", range(3))
def test_contradictory_rows_stay_together(seed):
    examples = [
        Example(f"{number}", {"text": f"text {number // 2}"}, "ab"[number % 2 if number < 8 else number // 40])
        for number in range(80)
    ]
    train_rows, dev_rows = split_table(examples, 0.2, seed)
    assert not {row.fields["text"] for row in train_rows} & {row.fields["text"] for row in dev_rows}
    assert len(dev_rows) == 16 and set(counts(dev_rows)) == set(counts(train_rows)) == {"a", "b"}


def test_numbers_are_split_by_the_text_alone():
    examples = [Example(f"{number}", {"text": f"text {number}"}, number / 10) for number in range(45)]
    train_rows, dev_rows = split_table(examples, 0.2, 0)
    assert (len(train_rows), len(dev_rows)) == (36, 9)


def test_labels_with_one_text_each_cannot_be_split(tmp_path):
    path = tmp_path / "two.csv"
    path.write_text("text,label\nThe soup was cold.,bad\nA warm welcome.,good\n")
    with pytest.raises(DataError, match=r"2 rows with 2 different texts are too few.*no label has two"):
        load_split(infer_task(path, ["text"], "label"), "dev")
