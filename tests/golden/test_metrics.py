"""Metrics against scikit-learn, scipy and hand-computed cases."""

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from specs import label_task, number_task

from adjudge.errors import DataError, TaskError
from adjudge.tasks.scoring.metrics import METRICS, encode, measure
from adjudge.types import Prediction

BINARY = label_task("No", "Yes", metrics=("accuracy", "f1", "matthews"))
NUMBER = number_task(0, 5, metrics=("pearson", "spearman", "mae"))


def _batch(task, name, gold_SN, pred_SN):
    """Return the metric of many resamples at once; each resample holds the encoded answers of its rows."""
    answer = task.words[0] if task.words else 0.0
    metric = measure(task, name, [Prediction("0", {}, answer, "", answer)]).value
    return metric(np.stack([gold_SN, pred_SN]))


def _value(task, name, golds, values):
    """Return one metric of rows that are not grouped."""
    rows = [
        Prediction(str(index), {}, gold, "", value)
        for index, (gold, value) in enumerate(zip(golds, values, strict=True))
    ]
    measured = measure(task, name, rows)
    return float(measured.value(measured.kept_CU[:, None])[0])


def _draw(n_labels, rows, seed, unreadable=0.2):
    rng = np.random.default_rng(seed)
    gold = rng.integers(n_labels, size=rows)
    pred = np.where(rng.random(rows) < 0.5, gold, rng.integers(n_labels, size=rows))
    return gold, np.where(rng.random(rows) < unreadable, -1, pred)


@pytest.mark.parametrize("n_labels", [2, 3, 5])
@pytest.mark.parametrize("unreadable", [0.0, 0.3])
def test_label_metrics_equal_scikit_learn(n_labels, unreadable):
    pairs = [_draw(n_labels, 60, seed, unreadable) for seed in range(20)]
    gold_SN, pred_SN = (np.stack(side) for side in zip(*pairs, strict=True))
    task = label_task(*[f"w{i}" for i in range(n_labels)])
    values = {name: _batch(task, name, gold_SN, pred_SN) for name in ("accuracy", "f1", "macro_f1", "matthews")}
    for row, (gold, pred) in enumerate(pairs):
        assert values["accuracy"][row] == pytest.approx(sklearn.metrics.accuracy_score(gold, pred))
        assert values["matthews"][row] == pytest.approx(sklearn.metrics.matthews_corrcoef(gold, pred))
        present = sorted({*gold, *pred} - {-1})
        macro = sklearn.metrics.f1_score(gold, pred, labels=present, average="macro", zero_division=0)
        assert values["macro_f1"][row] == pytest.approx(macro)
        # An unreadable answer counts as whichever of positive and negative is wrong.
        positive = np.where(pred == -1, gold != 1, pred == 1)
        assert values["f1"][row] == pytest.approx(sklearn.metrics.f1_score(gold == 1, positive))


def test_number_metrics_equal_scipy():
    rng = np.random.default_rng(0)
    gold_SN = np.round(rng.uniform(0, 5, (15, 40)), 1)
    pred_SN = np.round(np.clip(gold_SN + rng.normal(0, 1.5, gold_SN.shape), 0, 5), 0)  # many ties
    values = {name: _batch(NUMBER, name, gold_SN, pred_SN) for name in ("pearson", "spearman", "mae")}
    for row, (gold, pred) in enumerate(zip(gold_SN, pred_SN, strict=True)):
        assert values["pearson"][row] == pytest.approx(scipy.stats.pearsonr(gold, pred).statistic)
        assert values["spearman"][row] == pytest.approx(scipy.stats.spearmanr(gold, pred).statistic)
        assert values["mae"][row] == pytest.approx(sklearn.metrics.mean_absolute_error(gold, pred))


def test_binary_metrics_by_hand():
    # tp 2, fn 1, fp 1, tn 1.
    gold, pred = ["Yes", "Yes", "Yes", "No", "No"], ["Yes", "Yes", "No", "Yes", "No"]
    assert _value(BINARY, "accuracy", gold, pred) == pytest.approx(3 / 5)
    assert _value(BINARY, "f1", gold, pred) == pytest.approx(4 / 6)
    assert _value(BINARY, "matthews", gold, pred) == pytest.approx((2 * 1 - 1 * 1) / (3 * 3 * 2 * 2) ** 0.5)


def test_positive_label_defaults_to_the_second():
    gold, pred = ["Yes", "Yes", "Yes", "No"], ["Yes", "Yes", "Yes", "Yes"]
    assert _value(BINARY, "f1", gold, pred) == pytest.approx(6 / 7)
    assert _value(label_task("No", "Yes", metrics=("f1",), positive="No"), "f1", gold, pred) == 0.0
    with pytest.raises(TaskError, match="Did you mean 'Yes'"):
        _value(label_task("No", "Yes", metrics=("f1",), positive="yes"), "f1", gold, pred)


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "matthews"])
@pytest.mark.parametrize("row", range(6))
def test_unreadable_answer_is_never_correct(name, row):
    gold = ["Yes", "No", "Yes", "No", "Yes", "No"]
    other = "No" if gold[row] == "Yes" else "Yes"
    right, wrong, unreadable = (
        _value(BINARY, name, gold, [*gold[:row], value, *gold[row + 1 :]]) for value in (gold[row], other, None)
    )
    assert right == 1.0
    assert unreadable < 1.0
    if name in ("accuracy", "f1"):
        assert unreadable == pytest.approx(wrong)


def test_all_unreadable_is_zero():
    for name in ("accuracy", "f1", "macro_f1", "matthews"):
        assert _value(BINARY, name, ["Yes", "No"], [None, None]) == 0.0


def test_an_unreadable_number_becomes_the_farther_end():
    gold, pred = encode(NUMBER, [0.0, 2.0, 2.5, 4.0], [None, None, None, 3.0])
    assert gold.tolist() == [0.0, 2.0, 2.5, 4.0]
    assert pred.tolist() == [5.0, 5.0, 0.0, 3.0]
    assert _value(NUMBER, "mae", [0.0, 4.0], [None, 4.0]) == 2.5


def test_undefined_metrics_are_zero():
    equal = [0.1] * 30  # its mean is not exactly 0.1
    varied = [i / 10 for i in range(30)]
    for name in ("pearson", "spearman"):
        assert _value(NUMBER, name, varied, equal) == 0.0
        assert _value(NUMBER, name, equal, varied) == 0.0
        assert _value(NUMBER, name, [1.0], [1.0]) == 0.0
    assert _value(BINARY, "matthews", ["Yes", "No"], ["Yes", "Yes"]) == 0.0
    assert _value(BINARY, "f1", ["No", "No"], ["No", "No"]) == 0.0


def test_counts_of_large_splits_do_not_overflow():
    gold = np.tile([0, 1], 100_000)
    pred = np.where(np.arange(200_000) % 5 == 0, 1 - gold, gold)
    assert _batch(BINARY, "matthews", gold[None], pred[None])[0] == pytest.approx(0.6)


def test_perfect_correlation_is_exactly_one():
    values = [0.1, 0.7, 1.3, 2.9]
    assert _value(NUMBER, "pearson", values, values) == 1.0
    assert _value(NUMBER, "mae", values, values) == 0.0
    assert not METRICS["mae"].higher_is_better


def test_unknown_and_unsuitable_metrics_are_explained():
    with pytest.raises(TaskError, match="Did you mean 'accuracy'"):
        _value(BINARY, "acuracy", ["Yes"], ["Yes"])
    with pytest.raises(TaskError, match="Use: pearson, spearman, mae"):
        _value(NUMBER, "accuracy", [1.0], [1.0])
    with pytest.raises(TaskError, match="Use: accuracy, f1"):
        _value(BINARY, "mae", ["Yes"], ["Yes"])


def test_bad_rows_are_reported():
    with pytest.raises(DataError, match="row 1 has no gold"):
        _value(BINARY, "accuracy", ["Yes", None], ["Yes", "Yes"])
    with pytest.raises(DataError, match=r"row 0: 'yes'.*Did you mean 'Yes'"):
        _value(BINARY, "accuracy", ["Yes"], ["yes"])
    with pytest.raises(DataError, match="row 1: nan is not a number"):
        _value(NUMBER, "mae", [1.0, 1.0], [None, float("nan")])
    with pytest.raises(DataError, match="2 predictions for 1"):
        encode(BINARY, ["Yes"], ["Yes", "No"])
    with pytest.raises(DataError, match="no rows"):
        _value(BINARY, "accuracy", [], [])


@pytest.mark.parametrize("n_labels", [2, 3, 6])
@pytest.mark.parametrize("unreadable", [0.0, 0.3])
def test_quadratic_kappa_equals_scikit_learn(n_labels, unreadable):
    pairs = [_draw(n_labels, 60, seed, unreadable) for seed in range(20)]
    gold_SN, pred_SN = (np.stack(side) for side in zip(*pairs, strict=True))
    task = label_task(*[f"w{i}" for i in range(n_labels)], ordered=True)
    values = _batch(task, "quadratic_kappa", gold_SN, pred_SN)
    for row, (gold, pred) in enumerate(pairs):
        farther = np.where(2 * gold >= n_labels - 1, 0, n_labels - 1)  # an unreadable answer is the farther end
        read = np.where(pred == -1, farther, pred)
        expected = sklearn.metrics.cohen_kappa_score(gold, read, weights="quadratic", labels=range(n_labels))
        assert values[row] == pytest.approx(expected)


def test_quadratic_kappa_by_hand():
    task = label_task("Poor", "Fair", "Good", ordered=True)
    golds = ["Poor", "Fair", "Good", "Good"]
    assert _value(task, "quadratic_kappa", golds, golds) == 1.0
    near = _value(task, "quadratic_kappa", golds, ["Poor", "Fair", "Good", "Fair"])
    far = _value(task, "quadratic_kappa", golds, ["Poor", "Fair", "Good", "Poor"])
    assert far < near < 1.0
    assert far == _value(task, "quadratic_kappa", golds, ["Poor", "Fair", "Good", None])
    assert _value(task, "quadratic_kappa", ["Good"] * 3, ["Good"] * 3) == 0.0  # nothing to disagree about by chance
