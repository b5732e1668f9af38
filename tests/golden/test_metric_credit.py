"""The credit of answers in a metric, by hand: gold (1, 1, 0, 0), answers (1, 0, 1, 0), F1 0.5."""

import numpy as np
import pytest
from specs import label_task, number_task

from adjudge.config import RewardConfig
from adjudge.rewards.metric import MetricCredit, batch_metric, is_defined

LABELS = label_task("No", "Yes", metrics=("accuracy", "f1", "macro_f1", "matthews"))
NUMBERS = number_task(0, 5, metrics=("pearson", "spearman", "mae"))
GOLDS, ANSWERS = ["Yes", "Yes", "No", "No"], ["Yes", "No", "Yes", "No"]


def credit(metric, kind=None, spec=LABELS, window=0):
    return MetricCredit(RewardConfig(metric=metric, metric_credit=kind, metric_window=window), spec)


@pytest.mark.parametrize(
    ("metric", "kind", "expected"),
    [
        ("f1", "leave-one-out", (0.5, -1 / 6, -1 / 6, 0.0)),
        ("f1", "flip", (0.5, -0.3, -1 / 6, 0.1)),
        ("f1", "linear", (0.375, 0.0, -0.125, 0.0)),
        ("matthews", "flip", (3**-0.5, -(3**-0.5), -(3**-0.5), 3**-0.5)),
        ("accuracy", "flip", (0.25, -0.25, -0.25, 0.25)),
    ],
)
def test_credit_by_hand(metric, kind, expected):
    found = credit(metric, kind).of_answers(GOLDS, ANSWERS)
    assert found == pytest.approx([4 * part for part in expected], abs=1e-6)  # times the number of rows


def test_the_flip_of_accuracy_is_the_reward_of_right_and_wrong():
    assert credit("accuracy").of_answers(GOLDS, ANSWERS) == pytest.approx([1.0, -1.0, -1.0, 1.0])


def test_an_unreadable_answer_is_worth_what_a_wrong_one_is_worth_in_accuracy():
    assert credit("accuracy").of_answers(["Yes", "No"], [None, "No"]) == pytest.approx([-1.0, 1.0])


def test_with_three_labels_the_others_are_averaged():
    spec = label_task("A", "B", "C")
    assert credit("accuracy", spec=spec).of_answers(["A", "A"], ["A", "B"]) == pytest.approx([1.0, -0.5])


def test_pearson_by_hand():
    """A scaled answer changes nothing: 2, 3, 3 correlates with the gold numbers as 1, 3, 3 does."""
    gold = np.array([[1.0, 2.0, 4.0]] * 4)
    answers = np.array([[1.0, 3.0, 3.0], [2.0, 3.0, 3.0], [1.0, 2.0, 3.0], [1.0, 3.0, 4.0]])
    values = batch_metric(NUMBERS, "pearson")(np.stack([gold, answers]))
    assert values == pytest.approx([0.755929, 0.755929, 0.981981, 0.928571], abs=1e-6)
    # without the first row the answers are equal: undefined, 0; without the others two points correlate with 1
    left_out = credit("pearson", spec=NUMBERS).of_answers([1.0, 2.0, 4.0], [1.0, 3.0, 3.0])
    assert left_out == pytest.approx([3 * 0.755929, 3 * (0.755929 - 1), 3 * (0.755929 - 1)], abs=1e-5)


def test_a_metric_of_errors_is_better_when_smaller():
    exact, off = credit("mae", spec=NUMBERS).of_answers([1.0, 4.0], [1.0, 2.0])
    assert (exact, off) == pytest.approx((2 * (-1 + 2), 2 * (-1 + 0)))


@pytest.mark.parametrize(
    ("metric", "golds", "values"),
    [
        ("f1", ["No", "No"], ["No", "No"]),
        ("matthews", ["No", "No"], ["No", "Yes"]),
        ("matthews", ["No", "Yes"], ["No", "No"]),
    ],
)
def test_where_the_metric_is_undefined_there_is_no_credit(metric, golds, values):
    undefined = credit(metric)
    assert undefined.of_answers(golds, values) == [0.0, 0.0]
    assert undefined.value is None
    linear = credit("f1", "linear").of_answers(["No", "No"], ["No", "No"])
    assert linear == [0.0, 0.0]


def test_one_row_alone_has_no_credit_when_left_out():
    assert credit("accuracy", "leave-one-out").of_answers(["Yes"], ["Yes"]) == [0.0]
    assert is_defined(LABELS, "accuracy", np.array([1]), np.array([1]))


def test_the_window_is_the_context_and_is_carried():
    """Two batches of two rows with a window are one batch of four for the second batch's rows."""
    for kind in ("flip", "leave-one-out", "linear"):
        whole = credit("f1", kind).of_answers(GOLDS, ANSWERS)
        split = credit("f1", kind, window=8)
        split.of_answers(GOLDS[:2], ANSWERS[:2])
        again = credit("f1", kind, window=8)
        again.load_state_dict(split.state_dict())
        assert again.of_answers(GOLDS[2:], ANSWERS[2:]) == pytest.approx(whole[2:])
        assert again.value == pytest.approx(0.5)


def test_the_window_keeps_the_latest_answers_only():
    short = credit("accuracy", window=1)
    short.remember(GOLDS, ANSWERS)
    assert short.state_dict() == {"window": [["No", "No"]]}


def test_every_answer_of_a_row_after_the_window():
    """With gold (1, 1, 0) and answers (1, 0, 1) before it, a row of gold 0 is worth −1/6 or 0.1 more or less."""
    before = credit("f1", window=8)
    before.remember(GOLDS[:3], ANSWERS[:3])
    ((no, yes, unreadable),) = before.of_each(["No"], [*LABELS.words, None])
    assert (no, yes) == pytest.approx((4 * 0.1, -4 * 0.1))  # F1 is 0.5 with No and 0.4 with Yes
    assert unreadable == pytest.approx(yes)  # unreadable is a false positive here
