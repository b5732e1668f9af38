"""Scores of probabilities against hand-computed values and scikit-learn; the temperature against a grid."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.metrics import log_loss as sklearn_log_loss
from specs import label_task

from adjudge.evaluation.calibration import calibrated, fit_temperature, probability_scores
from adjudge.tasks.scoring.probabilities import (
    Rated,
    auroc,
    brier,
    ece,
    ece_by_chance,
    log_loss,
    rated,
    reliability,
    risk_coverage,
    scaled_NL,
)
from adjudge.types import Prediction

TWO = label_task("No", "Yes")
THREE = label_task("a", "b", "c")


def of(statistic, rows=None):
    return statistic(np.ones((1, rows or 4)))[0]


def two_labels(yes, gold):
    """Rows with these probabilities of the second label, and these gold labels."""
    yes = np.array(yes, dtype=float)
    return Rated(np.stack([1 - yes, yes], axis=1), np.array(gold))


def drawn(rows, labels, temperature, seed=0):
    """Rows of a judge whose probabilities are right once they are divided by `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(rows, labels)) * 2 * temperature
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    gold = np.array([rng.choice(labels, p=share) for share in scaled_NL(p, temperature)])
    return Rated(p, gold)


def predictions(rows, spec):
    return [
        Prediction(
            str(i), {}, spec.words[gold], "", spec.words[p.argmax()], dict(zip(spec.words, p.tolist(), strict=True))
        )
        for i, (p, gold) in enumerate(zip(rows.p_NL, rows.gold_N, strict=True))
    ]


def test_scores_by_hand():
    # confidences 0.9 (right), 0.9 (wrong), 0.6 (right), 0.8 (right): bins (.8667, .9333], (.5333, .6], (.7333, .8]
    rows = two_labels([0.9, 0.9, 0.4, 0.8], [1, 0, 0, 1])
    assert of(ece(rows)) == pytest.approx((2 * abs(0.9 - 0.5) + abs(0.6 - 1) + abs(0.8 - 1)) / 4)
    assert of(brier(rows)) == pytest.approx(2 * (0.1**2 + 0.9**2 + 0.4**2 + 0.2**2) / 4)
    assert of(log_loss(rows)) == pytest.approx(-np.log([0.9, 0.1, 0.6, 0.8]).mean())
    # pairs of a Yes (0.9, 0.8) and a No (0.9, 0.4): a tie, two right, one wrong
    assert of(auroc(rows, 1)) == pytest.approx((0.5 + 1 + 0 + 1) / 4)


@pytest.mark.parametrize("decimals", [1, 8])
def test_scores_agree_with_scikit_learn(decimals):
    yes = np.clip(np.random.default_rng(1).beta(0.6, 0.6, 300).round(decimals), 1e-6, 1 - 1e-6)
    gold = (np.random.default_rng(2).random(300) < 0.3 + 0.4 * yes).astype(int)
    rows = two_labels(yes, gold)
    assert of(auroc(rows, 1), 300) == pytest.approx(roc_auc_score(gold, yes))
    assert of(log_loss(rows), 300) == pytest.approx(sklearn_log_loss(gold, yes))
    assert of(brier(rows), 300) == pytest.approx(2 * brier_score_loss(gold, yes))


def test_scores_of_three_labels_agree_with_scikit_learn():
    rows = drawn(200, 3, 1.5)
    assert of(auroc(rows, 1), 200) == pytest.approx(roc_auc_score(rows.gold_N, rows.p_NL, multi_class="ovr"))
    assert of(log_loss(rows), 200) == pytest.approx(sklearn_log_loss(rows.gold_N, rows.p_NL))


def test_a_label_without_rows_is_left_out_of_the_mean():
    rows = Rated(np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]), np.array([0, 1, 1]))
    assert of(auroc(rows, 1), 3) == pytest.approx(1.0)


def test_weights_are_repeated_rows():
    rows, weights = drawn(40, 3, 2.0), np.random.default_rng(3).integers(0, 4, 40)
    repeated = Rated(np.repeat(rows.p_NL, weights, axis=0), np.repeat(rows.gold_N, weights))
    for of_rows, of_repeated in ((score(rows), score(repeated)) for score in (ece, brier, log_loss)):
        assert of_rows(weights[None, :])[0] == pytest.approx(of(of_repeated, weights.sum()))
    assert auroc(rows, 1)(weights[None, :])[0] == pytest.approx(of(auroc(repeated, 1), weights.sum()))


@pytest.mark.parametrize(("labels", "temperature"), [(2, 3.0), (3, 0.5), (3, 2.0)])
def test_the_temperature_is_found(labels, temperature):
    rows = drawn(4000, labels, temperature)
    found = fit_temperature(rows)
    assert found == pytest.approx(temperature, rel=0.1)
    losses = [of(log_loss(rows.scaled(t)), 4000) for t in np.geomspace(0.1, 10, 400)]
    assert of(log_loss(rows.scaled(found)), 4000) <= min(losses) + 1e-9


def test_scaling_halves_the_error_and_keeps_the_answers():
    rows = drawn(2000, 3, 2.5)
    held_out, judged = Rated(rows.p_NL[:500], rows.gold_N[:500]), Rated(rows.p_NL[500:], rows.gold_N[500:])
    after = judged.scaled(fit_temperature(held_out))
    assert of(ece(after), 1500) < of(ece(judged), 1500) / 2
    assert (after.right_N == judged.right_N).all()
    assert np.allclose(after.p_NL.sum(1), 1)


def test_no_temperature_is_fitted_where_all_rows_are_right():
    assert fit_temperature(two_labels([0.9, 0.2], [1, 0])) == 1.0


def test_a_probability_of_zero_is_finite():
    rows = two_labels([1.0, 1.0, 1.0, 0.0], [1, 1, 0, 0])
    assert np.isfinite(of(log_loss(rows)))
    assert 1 < fit_temperature(rows) <= 20.0
    assert np.isfinite(rows.scaled(20.0).p_NL).all()


def test_the_error_by_chance_is_that_of_a_calibrated_judge():
    errors = [of(ece(drawn(200, 2, 1.0, seed)), 200) for seed in range(30)]
    assert ece_by_chance(drawn(200, 2, 1.0)) == pytest.approx(np.mean(errors), rel=0.2)


def test_reliability_and_risk_by_hand():
    rows = two_labels([0.9, 0.9, 0.4, 0.8], [1, 0, 0, 1])
    assert [(round(b.confidence, 3), b.right, b.rows) for b in reliability(rows)] == [
        (0.6, 1.0, 1),
        (0.8, 1.0, 1),
        (0.9, 0.5, 2),
    ]
    coverage, risk = risk_coverage(rows)  # the two of 0.9 are answered together
    assert coverage.tolist() == [0.5, 0.75, 1.0]
    assert risk == pytest.approx([1 / 2, 1 / 3, 1 / 4])


def test_scores_have_intervals_before_and_after():
    rows = drawn(300, 2, 3.0)
    runs = [predictions(rows, TWO)]
    scores = probability_scores(TWO, runs, [3.0], resamples=500)
    assert scores["rows"] == 300 and scores["temperature"] == 3.0
    assert scores["own"]["ece"]["value"] == pytest.approx(of(ece(rows), 300))
    assert scores["calibrated"]["ece"]["value"] < scores["own"]["ece"]["value"] / 2
    assert scores["calibrated"]["auroc"]["value"] == pytest.approx(scores["own"]["auroc"]["value"])
    for figure in (*scores["own"].values(), *scores["calibrated"].values()):
        assert figure["low"] < figure["value"] < figure["high"]
    assert "calibrated" not in probability_scores(TWO, runs, [None], resamples=100)
    assert probability_scores(TWO, runs, [3.0], resamples=500) == scores


def test_intervals_are_those_of_a_bootstrap_over_rows():
    rows = drawn(150, 3, 1.0)
    figure = probability_scores(THREE, [predictions(rows, THREE)], [None], resamples=3000)["own"]["brier"]
    per_row = ((rows.p_NL - np.eye(3)[rows.gold_N]) ** 2).sum(1)
    error = per_row.std() / np.sqrt(150)
    assert figure["low"] == pytest.approx(per_row.mean() - 1.96 * error, abs=0.2 * error)
    assert figure["high"] == pytest.approx(per_row.mean() + 1.96 * error, abs=0.2 * error)


def test_one_gold_label_has_no_auroc():
    scores = probability_scores(TWO, [predictions(two_labels([0.9, 0.8, 0.3], [1, 1, 1]), TWO)], [None], resamples=100)
    assert scores["own"]["auroc"] == {"value": None, "low": None, "high": None}
    assert scores["own"]["brier"]["value"] > 0


def test_rows_without_probabilities_are_not_scored():
    runs = predictions(two_labels([0.9, 0.8], [1, 0]), TWO)
    assert rated(TWO, runs) is not None
    lacking = [runs[0], Prediction("x", {}, "No", "", "No")]
    assert rated(TWO, lacking) is None and probability_scores(TWO, [lacking], [None], resamples=100) is None
    assert rated(TWO, []) is None


def test_calibrated_predictions_keep_their_answers():
    (one,) = predictions(two_labels([0.9], [1]), TWO)
    (after,) = calibrated([one], 2.0)
    odds = (0.9 / 0.1) ** 0.5
    assert after.probabilities["Yes"] == pytest.approx(odds / (1 + odds))
    assert (after.value, after.text, after.id) == (one.value, one.text, one.id)
    assert calibrated([one], None) == [one]
