"""The metrics of sets of labels against scikit-learn's on indicator matrices."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score
from specs import label_task

from adjudge.errors import DataError, TaskError
from adjudge.evaluation.score import score
from adjudge.evaluation.statistics import metric_interval
from adjudge.tasks.scoring.metrics import measure
from adjudge.tasks.sets import set_text
from adjudge.types import Prediction

NAMES = ("joy", "anger", "fear", "love")
TASK = label_task(*NAMES, several="words", metrics=("micro_f1", "macro_f1", "sample_f1", "exact_match"))


def rows_of(gold_UL, given_UL):
    def text(row):
        return set_text([name for name, there in zip(NAMES, row, strict=True) if there], NAMES)

    pairs = zip(gold_UL, given_UL, strict=True)
    return [Prediction(str(n), {}, text(gold), "", text(given)) for n, (gold, given) in enumerate(pairs)]


def value(name, rows):
    measured = measure(TASK, name, rows)
    return float(measured.value(measured.kept_CU[:, None])[0])


@pytest.mark.parametrize("seed", range(3))
def test_they_equal_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    gold_UL, given_UL = rng.random((2, 40, 4)) < 0.4
    gold_UL[0] = given_UL[0] = False
    rows = rows_of(gold_UL, given_UL)
    assert value("exact_match", rows) == pytest.approx(accuracy_score(gold_UL, given_UL))
    assert value("micro_f1", rows) == pytest.approx(f1_score(gold_UL, given_UL, average="micro"))
    assert value("macro_f1", rows) == pytest.approx(f1_score(gold_UL, given_UL, average="macro"))
    # of two empty sets our F1 is 1, a right answer
    assert value("sample_f1", rows) == pytest.approx(f1_score(gold_UL, given_UL, average="samples", zero_division=1.0))


def test_an_unreadable_answer_is_every_label_wrong():
    gold_UL = np.array([[1, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)
    rows = [Prediction(str(n), {}, row.gold, "?", None) for n, row in enumerate(rows_of(gold_UL, gold_UL))]
    assert all(value(name, rows) == 0 for name in TASK.metrics)
    one_right = [rows_of(gold_UL, gold_UL)[0], rows[1]]
    assert value("exact_match", one_right) == 0.5
    assert value("micro_f1", one_right) == pytest.approx(2 / (2 + 4))


def test_scores_have_intervals_and_figures_per_label():
    gold_UL = np.eye(4, dtype=bool)[[0, 1, 1, 2]]
    given_UL = np.eye(4, dtype=bool)[[0, 1, 0, 2]]
    scores = score(TASK, rows_of(gold_UL, given_UL), resamples=100)
    assert scores["primary"] == "micro_f1" and scores["metrics"]["exact_match"]["value"] == 0.75
    assert scores["metrics"]["micro_f1"]["low"] < 0.75 < scores["metrics"]["micro_f1"]["high"]
    assert scores["per_label"]["anger"] == {"recall": 0.5, "precision": 1.0, "f1": 2 / 3, "gold": 2, "predicted": 1}
    assert scores["per_label"]["love"]["recall"] is None
    all_right = metric_interval(TASK, "exact_match", [rows_of(gold_UL, gold_UL)], 100, 0)
    assert all_right["high"] == 1.0 and all_right["low"] == pytest.approx(0.3976, abs=1e-4)


def test_other_metrics_and_other_values_are_refused():
    with pytest.raises(TaskError, match=r"'accuracy' does not fit .* sets\. Use: macro_f1, exact_match"):
        measure(TASK, "accuracy", rows_of([[1, 0, 0, 0]], [[1, 0, 0, 0]]))
    with pytest.raises(TaskError, match="'micro_f1' does not fit a task whose answers are labels"):
        measure(label_task("a", "b"), "micro_f1", [Prediction("0", {}, "a", "", "a")])
    with pytest.raises(DataError, match="row 0: 'anger, joy' is not a set of joy, anger, fear, love"):
        measure(TASK, "micro_f1", [Prediction("0", {}, "joy", "", "anger, joy")])
