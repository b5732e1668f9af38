"""The figures of a stream of tasks against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from adjudge.evaluation.forgetting import figures, summary
from adjudge.tasks import load_task
from adjudge.types import Prediction

SST2, RTE = load_task("vader/movies"), load_task("vader/tweets")


def test_three_tasks():
    R = np.array([[0.5, 0.5, 0.5], [0.9, 0.5, 0.5], [0.8, 0.85, 0.55], [0.7, 0.9, 0.8]])
    expected = {"acc": 0.8, "bwt": -0.075, "forgetting": 0.075, "fwt": 0.025, "learning": 1.05}
    assert {name: pytest.approx(value) for name, value in expected.items()} == figures(R)


def test_one_task_forgets_nothing_and_one_stage_has_a_mean_only():
    assert figures(np.array([[0.5], [0.9]]))["acc"] == 0.9
    assert np.isnan(figures(np.array([[0.5], [0.9]]))["bwt"])
    joint = figures(np.array([[0.5, 0.5], [0.9, 0.7]]))
    assert joint["acc"] == pytest.approx(0.8) and np.isnan([joint[n] for n in ("bwt", "forgetting", "fwt")]).all()


def answers(right, n=40):
    golds = ["Negative", "Positive"] * (n // 2)
    other = {"Negative": "Positive", "Positive": "Negative"}
    return [
        Prediction(str(i), {"text": str(i)}, gold, "", gold if i < right else other[gold])
        for i, gold in enumerate(golds)
    ]


def test_intervals_share_the_draws_of_all_stages():
    # Task 1 falls from 30 to 20 right, on the same rows: backward transfer is -0.25 with the interval of a share.
    stages = [
        {SST2.name: answers(10), RTE.name: answers(10)},
        {SST2.name: answers(30), RTE.name: answers(10)},
        {SST2.name: answers(20), RTE.name: answers(40)},
    ]
    result = summary([SST2, RTE], stages, 2000)
    assert result["R"] == [[0.25, 0.25], [0.75, 0.25], [0.5, 1.0]]
    assert (result["acc"], result["bwt"], result["forgetting"], result["fwt"]) == (0.75, -0.25, 0.25, 0.0)
    low, high = result["intervals"]["bwt"]
    # 10 of 40 rows changed: the exact binomial's middle 95 % is 5 to 15 rows.
    assert low == pytest.approx(-15 / 40, abs=0.03) and high == pytest.approx(-5 / 40, abs=0.03)
    assert result["intervals"]["fwt"] == [0.0, 0.0]
