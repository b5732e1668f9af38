"""How far to believe a judge's label probabilities, and the temperature that makes them believable.

Shapes: ``N`` rows, ``L`` labels, ``U`` units, ``S`` resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adjudge.evaluation.statistics import CHUNK_CELLS, LEVEL, Runs
from adjudge.tasks.reading.groups import by_unit
from adjudge.tasks.scoring.probabilities import (
    Rated,
    Statistic,
    ece,
    ece_by_chance,
    log_loss,
    log_p,
    rated,
    scaled_probabilities,
    statistics_of,
)
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Prediction

Array = NDArray[Any]

BIASED = ("ece",)
"""Scores that chance makes larger, and resampling once more: their resamples are shifted back to the value."""

LOWEST, HIGHEST = 0.05, 20.0
"""Temperatures are looked for between these."""


def fit_temperature(rows: Rated) -> float:
    """Return the temperature T with the least log loss of softmax(log p / T), one for all labels.

    The loss is convex in 1 / T, so there is one minimum. It is 1 when all rows are right: such rows do not tell how
    unsure a judge should be, and any smaller T would look better.
    Source: Guo et al., arXiv 1706.04599, section 4.2.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    if rows.right_N.all():
        return 1.0
    logits_NL, gold_N = log_p(rows.p_NL), rows.gold_N[:, None]

    def loss(log_temperature: float) -> float:
        scaled = logits_NL / math.exp(log_temperature)
        return float((logsumexp(scaled, axis=1) - np.take_along_axis(scaled, gold_N, 1)[:, 0]).mean())

    bounds = (math.log(LOWEST), math.log(HIGHEST))
    return math.exp(float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x))


def calibrated(predictions: Sequence[Prediction], temperature: float | None) -> list[Prediction]:
    """Return predictions with their probabilities divided by a temperature; None changes nothing.

    Answers stay as they are.
    """
    if temperature is None:
        return list(predictions)
    return [
        replace(p, probabilities=scaled_probabilities(p.probabilities, temperature)) if p.probabilities else p
        for p in predictions
    ]


def fitted_record(rows: Rated) -> dict[str, Any]:
    """Fit a temperature to rows; return it with what it changed on them, as plain values for JSON."""
    temperature = fit_temperature(rows)
    after = rows.scaled(temperature)
    return {
        "temperature": temperature,
        "rows": len(rows.gold_N),
        "log_loss": {"before": _plain(log_loss(rows), rows), "after": _plain(log_loss(after), after)},
        "ece": {"before": _plain(ece(rows), rows), "after": _plain(ece(after), after)},
    }


def probability_scores(
    spec: TaskSpec, runs: Runs, temperatures: Sequence[float | None], *, resamples: int, seed: int = 0
) -> dict[str, Any] | None:
    """Score the label probabilities of one method's aligned runs; None where a row has none.

    `temperatures` has one per run, None for a run that is not calibrated. Returns plain values for JSON: ``rows``,
    ``own`` {name: {value, low, high}} for the probabilities as the judges gave them; where all runs are calibrated
    ``temperature`` (a mean over runs) and ``calibrated``, the same scores after it; and ``ece_by_chance``, the ECE that
    perfectly calibrated judges would have here. Values are means over the runs, and intervals those of a bootstrap
    over units (for `BIASED` scores without the bias of resampling). AUROC is None where the rows have one gold label
    only.
    """
    each = [rated(spec, run) for run in runs]
    rows = [one for one in each if one is not None]
    if len(rows) < len(each):
        return None
    units = by_unit(runs[0])
    unit_N = np.empty(len(runs[0]), dtype=np.int64)
    for unit, members in enumerate(units.values()):
        unit_N[members] = unit
    scores: dict[str, Any] = {
        "rows": len(runs[0]),
        "own": _intervals(spec, rows, unit_N, resamples, seed),
    }
    known = [temperature for temperature in temperatures if temperature is not None]
    if len(known) == len(rows):
        after = [one.scaled(temperature) for one, temperature in zip(rows, known, strict=True)]
        scores |= {"temperature": float(np.mean(known)), "calibrated": _intervals(spec, after, unit_N, resamples, seed)}
        rows = after
    return scores | {"ece_by_chance": float(np.mean([ece_by_chance(one) for one in rows]))}


def _intervals(
    spec: TaskSpec, runs: Sequence[Rated], unit_N: Array, resamples: int, seed: int
) -> dict[str, dict[str, float | None]]:
    """Return value, low and high of each score: means over runs, with all scores on the same resamples."""
    statistics = [statistics_of(spec, rows) for rows in runs]
    whole = np.ones((1, len(unit_N)))
    drawn: dict[str, list[Array]] = {name: [] for name in statistics[0]}
    rng, units = np.random.default_rng(seed), int(unit_N.max()) + 1
    size = max(1, CHUNK_CELLS // len(unit_N))
    for begin in range(0, resamples, size):
        count = min(size, resamples - begin)
        index_SU = rng.integers(units, size=(count, units)) + units * np.arange(count)[:, None]
        weight_SU = np.bincount(index_SU.ravel(), minlength=count * units).reshape(count, units)
        weight_SN = weight_SU[:, unit_N].astype(np.float64)
        for name, values in drawn.items():
            values.append(np.mean([run[name](weight_SN) for run in statistics], axis=0))
    figures: dict[str, dict[str, float | None]] = {}
    for name, values in drawn.items():
        value = float(np.mean([run[name](whole)[0] for run in statistics]))
        known = np.concatenate(values)
        known = known[~np.isnan(known)]
        if math.isnan(value) or units == 1 or not len(known):
            figures[name] = {"value": None if math.isnan(value) else value, "low": None, "high": None}
            continue
        if name in BIASED:
            known = np.maximum(known - known.mean() + value, 0.0)
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.percentile(known, [tail, 100 - tail]).tolist()
        alike = low == high  # equal resamples would claim certainty even from five rows
        figures[name] = {"value": value, "low": None if alike else low, "high": None if alike else high}
    return figures


def _plain(statistic: Statistic, rows: Rated) -> float:
    return float(statistic(np.ones((1, len(rows.gold_N))))[0])
