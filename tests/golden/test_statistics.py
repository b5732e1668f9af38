"""Intervals and tests against scipy and against full enumeration."""

from itertools import product

import numpy as np
import pytest
import scipy.stats
from specs import label_task, number_task

from adjudge.errors import DataError
from adjudge.evaluation import statistics
from adjudge.evaluation.statistics import (
    align_runs,
    bootstrap_interval,
    clopper_pearson,
    compare_methods,
    holm,
    mcnemar,
    metric_interval,
    paired_permutation,
)
from adjudge.tasks.scoring.metrics import METRICS, measure
from adjudge.types import Prediction

TASK = label_task("No", "Yes", metrics=("accuracy", "f1"))
ACCURACY, F1 = (measure(TASK, name, [Prediction("0", {}, "No", "", "No")]).value for name in ("accuracy", "f1"))


def _kept(gold, pred_KN):
    """Return what a metric of rows keeps of K runs: gold and predicted labels."""
    return np.stack([np.stack([gold, pred]) for pred in np.atleast_2d(pred_KN)])


def _draw(rows, right, seed):
    rng = np.random.default_rng(seed)
    gold = rng.integers(2, size=rows)
    return gold, np.where(rng.random(rows) < right, gold, 1 - gold)


def _run(golds, values, ids=None):
    words = {0: "No", 1: "Yes", -1: None}
    return [
        Prediction(str(ids[row] if ids else row), {}, words[gold], "", words[value])
        for row, (gold, value) in enumerate(zip(golds, values, strict=True))
    ]


def test_interval_agrees_with_scipys_percentile_bootstrap():
    gold, pred = _draw(200, 0.8, 1)
    value, low, high = bootstrap_interval(ACCURACY, _kept(gold, pred), resamples=4000, seed=0)
    right = (gold == pred).astype(float)
    expected = scipy.stats.bootstrap(
        (right,), np.mean, n_resamples=4000, method="percentile", rng=5
    ).confidence_interval
    assert value == right.mean()
    assert low == pytest.approx(expected.low, abs=0.01)
    assert high == pytest.approx(expected.high, abs=0.01)


def test_interval_of_f1_agrees_with_scipys():
    gold, pred = _draw(120, 0.7, 2)
    value, low, high = bootstrap_interval(F1, _kept(gold, pred), resamples=3000, seed=0)
    expected = scipy.stats.bootstrap(
        (gold, pred),
        lambda g, p: 2 * (g * p).sum() / (g.sum() + p.sum()),
        n_resamples=3000,
        paired=True,
        vectorized=False,
        method="percentile",
        rng=3,
    ).confidence_interval
    assert low < value < high
    assert low == pytest.approx(expected.low, abs=0.02)
    assert high == pytest.approx(expected.high, abs=0.02)


def test_more_seeds_on_the_same_rows_do_not_narrow_the_interval():
    gold, pred = _draw(100, 0.7, 3)
    one = bootstrap_interval(ACCURACY, _kept(gold, pred), resamples=500, seed=0)
    same = bootstrap_interval(ACCURACY, _kept(gold, np.stack([pred] * 5)), resamples=500, seed=0)
    assert same == pytest.approx(one)


def test_value_is_the_mean_over_seeds_and_rows_are_drawn_jointly():
    gold = np.zeros(50, dtype=int)
    first = np.arange(50) % 2
    # The two runs are right on complementary rows: their mean is ½ in every resample.
    assert bootstrap_interval(ACCURACY, _kept(gold, np.stack([first, 1 - first])), resamples=200, seed=0) == (
        0.5,
        0.5,
        0.5,
    )


def test_same_seed_gives_the_same_interval_for_any_chunk_size(monkeypatch):
    gold, pred = _draw(40, 0.7, 4)
    whole = bootstrap_interval(F1, _kept(gold, pred), resamples=300, seed=7)
    assert bootstrap_interval(F1, _kept(gold, pred), resamples=300, seed=7) == whole
    assert bootstrap_interval(F1, _kept(gold, pred), resamples=300, seed=8) != whole
    tested = paired_permutation(F1, _kept(gold, pred), _kept(gold, 1 - pred), resamples=300, seed=7)
    monkeypatch.setattr(statistics, "CHUNK_CELLS", 40 * 7)
    assert bootstrap_interval(F1, _kept(gold, pred), resamples=300, seed=7) == pytest.approx(whole)
    assert paired_permutation(F1, _kept(gold, pred), _kept(gold, 1 - pred), resamples=300, seed=7) == pytest.approx(
        tested
    )


@pytest.mark.parametrize(("hits", "units"), [(0, 1), (1, 1), (0, 5), (5, 5), (3, 5), (149, 149), (0, 1000)])
def test_interval_of_a_share_agrees_with_scipys(hits, units):
    expected = scipy.stats.binomtest(hits, units).proportion_ci(method="exact")
    assert clopper_pearson(hits, units) == pytest.approx((expected.low, expected.high), abs=1e-9)


def test_more_seeds_of_the_same_rows_do_not_narrow_the_interval_of_all_right():
    run = _run([0, 1, 1], [0, 1, 1])
    one, three = (metric_interval(TASK, "accuracy", [run] * count, 50, 0) for count in (1, 3))
    assert one == three == {"value": 1.0, "low": pytest.approx(0.025 ** (1 / 3)), "high": 1.0}


def test_interval_of_one_row_and_of_no_rows():
    assert bootstrap_interval(ACCURACY, _kept(np.array([1]), np.array([1])), resamples=100, seed=0) == (1.0, 1.0, 1.0)
    with pytest.raises(DataError, match="There are no rows"):
        bootstrap_interval(ACCURACY, _kept(np.array([], dtype=int), np.array([], dtype=int)), resamples=100, seed=0)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (5, 0), (3, 9), (10, 10), (1, 40)])
def test_mcnemar_agrees_with_scipys_binomial_test(only_a, only_b):
    a = np.array([1] * only_a + [0] * only_b + [1, 0, 1], dtype=bool)
    b = np.array([0] * only_a + [1] * only_b + [1, 0, 1], dtype=bool)
    expected = scipy.stats.binomtest(only_a, only_a + only_b).pvalue if only_a + only_b else 1.0
    assert mcnemar(a, b) == pytest.approx(expected)
    assert mcnemar(b, a) == pytest.approx(expected)


def test_mcnemar_by_hand():
    # Only a got the five rows right: 2 · ½⁵.
    assert mcnemar(np.ones(5), np.zeros(5)) == pytest.approx(1 / 16)
    with pytest.raises(ValueError, match="same rows"):
        mcnemar(np.ones(5), np.zeros(4))


def test_permutation_test_approaches_full_enumeration():
    rng = np.random.default_rng(6)
    gold = rng.integers(2, size=9)
    a, b = np.where(rng.random((2, 9)) < 0.85, gold, 1 - gold), np.where(rng.random((2, 9)) < 0.4, gold, 1 - gold)

    def f1(pred):
        return 2 * (gold * pred).sum() / (gold.sum() + pred.sum())

    def statistic(swap):
        return np.mean([f1(np.where(swap, y, x)) for x, y in zip(a, b, strict=True)]) - np.mean(
            [f1(np.where(swap, x, y)) for x, y in zip(a, b, strict=True)]
        )

    observed = statistic(np.zeros(9, dtype=bool))
    exact = np.mean(
        [abs(statistic(np.array(swap))) >= abs(observed) - 1e-9 for swap in product([False, True], repeat=9)]
    )
    difference, p = paired_permutation(F1, _kept(gold, a), _kept(gold, b), resamples=4000, seed=0)
    assert difference == pytest.approx(observed)
    assert 0.01 < exact < 0.9
    assert p == pytest.approx(exact, abs=0.03)


def test_permutation_test_of_accuracy_agrees_with_scipys():
    gold, a = _draw(150, 0.8, 8)
    b = np.where(np.random.default_rng(9).random(150) < 0.68, gold, 1 - gold)
    _, p = paired_permutation(ACCURACY, _kept(gold, a), _kept(gold, b), resamples=5000, seed=0)
    expected = scipy.stats.permutation_test(
        ((a == gold).astype(float), (b == gold).astype(float)),
        lambda x, y, axis: x.mean(axis) - y.mean(axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=5000,
        rng=1,
    ).pvalue
    assert p == pytest.approx(expected, abs=0.03)
    assert p == pytest.approx(mcnemar(a == gold, b == gold), abs=0.03)


def test_permutation_test_of_equal_methods_and_of_extremes():
    gold, pred = _draw(60, 0.7, 10)
    assert paired_permutation(F1, _kept(gold, pred), _kept(gold, pred), resamples=200, seed=0) == (0.0, 1.0)
    difference, p = paired_permutation(ACCURACY, _kept(gold, gold), _kept(gold, 1 - gold), resamples=200, seed=0)
    assert difference == 1.0
    assert p == 1 / 201


def test_repeated_seeds_leave_the_permutation_test_unchanged():
    gold, a = _draw(80, 0.75, 11)
    _, b = _draw(80, 0.65, 12)
    one = paired_permutation(ACCURACY, _kept(gold, a), _kept(gold, b), resamples=500, seed=0)
    more = paired_permutation(ACCURACY, _kept(gold, [a, a, a]), _kept(gold, [b, b]), resamples=500, seed=0)
    assert more == pytest.approx(one)


def test_holm_by_hand():
    # m = 4: 0.01·4, 0.02·3, 0.03·2 (not below 0.06), 0.04·1 (not below 0.06).
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_tests_of_all_pairs_and_tasks():
    gold, a = _draw(60, 0.9, 13)
    _, b = _draw(60, 0.5, 14)
    other = label_task("No", "Yes", name="other", metrics=("f1",))
    runs = {
        ("mine", "zero-shot"): [_run(gold, b)],
        ("mine", "sft"): [_run(gold, a)],
        ("mine", "ppo"): [_run(gold, a), _run(gold, b)],
        ("other", "sft"): [_run(gold, a)],
        ("other", "ppo"): [_run(gold, b)],
    }
    tests = compare_methods([TASK, other], runs, resamples=300)
    assert [(t["task"], t["metric"], t["a"], t["b"], t["test"]) for t in tests] == [
        ("mine", "accuracy", "zero-shot", "sft", "mcnemar"),
        ("mine", "accuracy", "zero-shot", "ppo", "paired permutation"),
        ("mine", "accuracy", "sft", "ppo", "paired permutation"),
        ("other", "f1", "sft", "ppo", "paired permutation"),
    ]
    assert tests[0]["difference"] == pytest.approx((gold == b).mean() - (gold == a).mean())
    assert tests[0]["p"] == mcnemar(a == gold, b == gold)
    assert [t["p_holm"] for t in tests] == holm([t["p"] for t in tests])
    assert compare_methods([TASK], {("mine", "sft"): [_run(gold, a)]}, resamples=300) == []


def test_rows_are_matched_by_id():
    gold, a = _draw(30, 0.8, 15)
    turned = list(range(29, -1, -1))
    runs = {("mine", "a"): [_run(gold, a)], ("mine", "b"): [_run(gold[::-1], a[::-1], ids=turned)]}
    (test,) = compare_methods([TASK], runs, resamples=100)
    assert (test["difference"], test["p"]) == (0.0, 1.0)
    first, second = align_runs(TASK, [_run(gold, a), _run(gold[::-1], a[::-1], ids=turned)])
    assert first == second == _run(gold, a)


def test_unreadable_answers_count_as_wrong_in_paired_tests():
    gold = np.ones(8, dtype=int)
    runs = {("mine", "a"): [_run(gold, gold)], ("mine", "b"): [_run(gold, -gold)]}
    (test,) = compare_methods([TASK], runs, resamples=100)
    assert test["difference"] == 1.0
    assert test["p"] == pytest.approx(2 / 2**8)


def test_predictions_on_different_rows_are_refused():
    def compare(first, second):
        return compare_methods([TASK], {("mine", "a"): [first], ("mine", "b"): [second]}, resamples=100)

    with pytest.raises(DataError, match=r"mine: a and b judged different rows .* such as '2'"):
        compare(_run([0, 1], [0, 1]), _run([0, 1], [0, 1], ids=[0, 2])[:2] + _run([1], [1], ids=[1]))
    with pytest.raises(DataError, match="different gold"):
        compare(_run([0, 1], [0, 1]), _run([1, 1], [0, 1]))
    with pytest.raises(DataError, match="'7' occurs twice"):
        compare(_run([0, 1], [0, 1], ids=[7, 7]), _run([0, 1], [0, 1], ids=[7, 7]))
    with pytest.raises(DataError, match="two runs judged different rows"):
        align_runs(TASK, [_run([0, 1], [0, 1]), _run([0], [0])])
    with pytest.raises(DataError, match="no predictions"):
        align_runs(TASK, [])


FIGURES = {
    "accuracy": (0.6222222222222222, 0.5219444444444445, 0.7111111111111111, 0.029925187032418952),
    "f1": (0.5964912280701754, 0.43902439024390244, 0.7170566037735848, 0.16957605985037408),
    "macro_f1": (0.6560846560846559, 0.5493202302060187, 0.7334671782652309, 0.059850374064837904),
    "matthews": (0.46956675309299784, 0.3298961822825494, 0.5824525593153742, 0.034912718204488775),
    "pearson": (0.2612973241628813, 0.011691309014175812, 0.48655652533979893, 0.004987531172069825),
    "spearman": (0.27969003962471034, 0.0205488931536652, 0.5026758851501866, 0.004987531172069825),
    "mae": (0.6444444444444445, 0.4775000000000001, 0.8666666666666667, 0.004987531172069825),
}
"""Value, low, high and p of the rows below, from the version before groups of rows (0162045)."""


@pytest.mark.parametrize("name", list(FIGURES))
def test_figures_of_ungrouped_rows_are_unchanged(name):
    rng = np.random.default_rng(21)
    gold = rng.integers(3, size=90)
    answers = [np.where(rng.random(90) < 0.6, gold, rng.integers(-1, 3, size=90)) for _ in range(2)]
    if METRICS[name].kind == "number":
        task, words = number_task(-1, 2, metrics=(name,)), (0.0, 1.0, 2.0, None)
    else:
        task, words = label_task("a", "b", "c", metrics=(name,)), ("a", "b", "c", None)
    one, two = (
        [Prediction(str(row), {}, words[g], "", words[v]) for row, (g, v) in enumerate(zip(gold, answer, strict=True))]
        for answer in answers
    )
    interval = metric_interval(task, name, [one], resamples=400, seed=0)
    (test,) = compare_methods([task], {("mine", "a"): [one], ("mine", "b"): [two, one]}, resamples=400)
    assert (*interval.values(), test["p"]) == pytest.approx(FIGURES[name], rel=1e-12)
