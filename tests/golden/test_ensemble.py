"""Weights of an ensemble, and its probabilities, against values worked out by hand."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from adjudge.evaluation.ensemble import EnsembleJudge, em_step, fit_weights, gold_probabilities, mix
from adjudge.tasks import infer_task
from adjudge.types import Example, Prediction

GOLD_NK = np.array([[0.9, 0.2], [0.1, 0.8]])


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,Good\nb,Bad\n" * 4)
    return infer_task(tmp_path / "rows.csv", ["text"], "label")


def predictions(*good, gold="Good"):
    """Return a prediction per probability of the label Good."""
    rows = [Example(str(number), {"text": "a"}, gold) for number, _ in enumerate(good)]
    return [
        Prediction.of(row, "", None, {"Bad": 1 - share, "Good": share}) for row, share in zip(rows, good, strict=True)
    ]


def test_probabilities_are_mixed_by_weight(spec):
    (mixed,) = mix(spec, [0.75, 0.25], [predictions(0.9), predictions(0.2)])
    assert mixed.probabilities == pytest.approx({"Good": 0.725, "Bad": 0.275}) and mixed.value == "Good"


def test_one_step_of_the_fit():
    """The responsibilities are (0.8182, 0.1818) and (0.1111, 0.8889)."""
    assert em_step(np.array([0.5, 0.5]), GOLD_NK) == pytest.approx([0.4646, 0.5354], abs=1e-4)


def test_the_fit_finds_the_likeliest_weights():
    weights = fit_weights(GOLD_NK, least=0)
    grid = np.linspace(0, 1, 2001)
    best = grid[np.log(np.outer(grid, GOLD_NK[:, 0]) + np.outer(1 - grid, GOLD_NK[:, 1])).sum(1).argmax()]
    assert weights == pytest.approx([best, 1 - best], abs=2e-3) and weights.sum() == pytest.approx(1)


def test_equal_experts_share_the_weight_and_small_ones_are_left_out():
    assert fit_weights(np.full((5, 3), 0.4)) == pytest.approx([1 / 3] * 3)
    assert fit_weights(np.array([[0.9, 0.1, 0.1]] * 9)).tolist() == pytest.approx([1, 0, 0])
    weights = fit_weights(np.array([[0.9, 0.05, 0.85]] * 5 + [[0.2, 0.05, 0.8]] * 5))
    assert weights[1] == 0 and weights.sum() == pytest.approx(1)


def test_rows_that_nobody_finds_possible_have_no_say():
    assert em_step(np.array([0.5, 0.5]), np.array([[0.0, 0.0], *GOLD_NK])) == pytest.approx([0.4646, 0.5354], abs=1e-4)
    assert fit_weights(np.zeros((3, 2))).tolist() == [0.5, 0.5]


class Fixed:
    def __init__(self, *good):
        self.good = good

    def judge(self, examples, *, probabilities=False, title=""):
        assert probabilities
        return predictions(*self.good)


def test_weights_of_one_and_equal_experts_change_no_answer(spec):
    rows = [Example(str(number), {"text": "a"}, "Good") for number in range(3)]
    one, other = Fixed(0.9, 0.3, 0.6), Fixed(0.1, 0.2, 0.3)
    alone = EnsembleJudge(spec, {"one": lambda: one, "other": lambda: other}, [1.0, 0.0]).judge(rows)
    assert [each.probabilities["Good"] for each in alone] == [0.9, 0.3, 0.6]
    for weights in ([0.5, 0.5], [0.25, 0.75]):
        same = EnsembleJudge(spec, {"one": lambda: one, "again": lambda: one}, weights).judge(rows)
        assert [each.probabilities["Good"] for each in same] == pytest.approx([0.9, 0.3, 0.6])
        assert [each.value for each in same] == ["Good", "Bad", "Good"]


def test_an_expert_is_gone_before_the_next_is_loaded(spec):
    loaded = []

    def load():
        assert [each() for each in loaded] == [None] * len(loaded)
        expert = Fixed(0.9)
        expert.itself = expert  # as models do
        loaded.append(weakref.ref(expert))
        return expert

    gc.disable()
    try:
        EnsembleJudge(spec, dict.fromkeys("abc", load), [0.5, 0.25, 0.25]).judge([Example("0", {"text": "a"}, "Good")])
        assert [each() for each in loaded] == [None] * 3
    finally:
        gc.enable()


def test_the_right_answers_probabilities_are_taken():
    parts = [predictions(0.9, 0.3), predictions(0.2, 0.4)]
    assert gold_probabilities(parts).tolist() == [[0.9, 0.2], [0.3, 0.4]]
    assert gold_probabilities([predictions(0.9, gold="Bad")]) == pytest.approx(np.array([[0.1]]))
