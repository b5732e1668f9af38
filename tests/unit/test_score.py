"""The scores of one run."""

import json

import pytest
from specs import label_task, number_task

from adjudge.errors import DataError
from adjudge.evaluation.score import score
from adjudge.types import Prediction

LABELS = label_task("No", "Yes", "Maybe", metrics=("matthews", "accuracy"))
NUMBER = number_task(0, 5, metrics=("pearson", "mae"))


def _predictions(*pairs):
    return [Prediction(f"dev.tsv:{row}", {}, gold, str(value), value) for row, (gold, value) in enumerate(pairs, 2)]


def test_scores_of_a_label_task():
    scores = score(LABELS, _predictions(("Yes", "Yes"), ("Yes", None), ("No", "No"), ("No", "Yes")), resamples=200)
    assert (scores["n"], scores["primary"], scores["unreadable"]) == (4, "matthews", 1)
    assert list(scores["metrics"]) == ["matthews", "accuracy"]
    accuracy = scores["metrics"]["accuracy"]
    assert accuracy["value"] == 0.5
    assert 0 <= accuracy["low"] < 0.5 < accuracy["high"] <= 1
    assert scores["per_label"] == {
        "No": {"recall": 0.5, "precision": 1.0, "f1": 2 / 3, "gold": 2, "predicted": 1},
        "Yes": {"recall": 0.5, "precision": 0.5, "f1": 0.5, "gold": 2, "predicted": 2},
        "Maybe": {"recall": None, "precision": None, "f1": None, "gold": 0, "predicted": 0},
    }
    assert scores["majority"] == {"word": "Yes", "share": 0.5, "one_label": False}
    json.dumps(scores, allow_nan=False)


def test_one_label_for_everything_is_reported():
    scores = score(LABELS, _predictions(("Yes", "Yes"), ("No", "Yes"), ("Yes", "Yes"), ("No", None)), resamples=100)
    assert scores["majority"] == {"word": "Yes", "share": 0.75, "one_label": True}
    assert scores["per_label"]["No"] == {"recall": 0.0, "precision": None, "f1": 0.0, "gold": 2, "predicted": 0}


def test_scores_without_a_readable_answer():
    scores = score(LABELS, _predictions(("Yes", None), ("No", None)), resamples=100)
    assert scores["majority"] == {"word": None, "share": 0.0, "one_label": False}
    assert scores["unreadable"] == 2
    assert scores["metrics"]["accuracy"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(0.8419, abs=1e-4)}
    assert scores["metrics"]["matthews"] == {"value": 0.0, "low": None, "high": None}


def test_five_right_answers_are_no_certainty():
    spec = label_task("No", "Yes", metrics=("accuracy", "macro_f1", "f1"))
    scores = score(spec, _predictions(*[("Yes", "Yes")] * 4, ("No", "No")), resamples=200)
    assert scores["metrics"]["accuracy"] == {"value": 1.0, "low": pytest.approx(0.4782, abs=1e-4), "high": 1.0}
    assert scores["metrics"]["macro_f1"] == {"value": 1.0, "low": None, "high": None}
    one = score(NUMBER, _predictions((1.0, 1.5)), resamples=50)["metrics"]
    assert one["mae"] == {"value": 0.5, "low": None, "high": None}
    json.dumps([scores, one], allow_nan=False)


def test_a_judge_of_one_answer_keeps_its_interval_of_zero():
    scores = score(LABELS, _predictions(*[("Yes", "Yes"), ("No", "Yes")] * 10), resamples=200)
    assert scores["metrics"]["matthews"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_scores_of_a_number_task():
    scores = score(NUMBER, _predictions((1.0, 1.5), (2.0, 2.0), (4.0, 4.5), (0.0, None)), resamples=100)
    assert scores["metrics"]["mae"]["value"] == pytest.approx((0.5 + 0 + 0.5 + 5) / 4)
    assert scores["unreadable"] == 1
    assert "per_label" not in scores
    json.dumps(scores, allow_nan=False)


def test_same_seed_gives_the_same_intervals():
    rows = _predictions(*[("Yes", "Yes"), ("No", "Yes"), ("No", "No")] * 10)
    assert score(LABELS, rows, resamples=200) == score(LABELS, rows, resamples=200)
    assert score(LABELS, rows, resamples=200, seed=1)["metrics"] != score(LABELS, rows, resamples=200)["metrics"]


def test_rows_without_a_gold_answer_are_refused():
    with pytest.raises(DataError, match=r"row dev\.tsv:3 has no gold answer"):
        score(LABELS, _predictions(("Yes", "Yes"), (None, "Yes")), resamples=100)
    with pytest.raises(DataError, match="no predictions"):
        score(LABELS, [], resamples=100)
