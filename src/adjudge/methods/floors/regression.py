"""What the floors share: fit a linear model on features, choose its C on held-out rows, save, judge.

A task with sets of labels (`several`) has one model of yes and no per label, whichever way other methods ask it.

Shapes: ``N`` rows, ``F`` features, ``L`` labels (1 for a number task).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from adjudge.errors import DataError, RunError
from adjudge.evaluation.logits import predictions_of
from adjudge.methods.base import Trained
from adjudge.runs.folder import Run, read_json
from adjudge.system.console import progress
from adjudge.system.files import whole_folder, write_json
from adjudge.tasks.scoring.sets import indicators
from adjudge.tasks.sets import set_text
from adjudge.tasks.spec import TaskSpec
from adjudge.training.labelled import target_of
from adjudge.training.mixture import TaskRows
from adjudge.types import Example, Prediction

Array = NDArray[Any]
Features = Callable[[Sequence[Example], Callable[[int], None]], Any]
"""(rows, called with the number of rows done) → their features ``[N, F]``, dense or sparse."""

FOLDER = "regression"
WEIGHTS, STORED = "weights.safetensors", "features.json"
CHOICES = (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
"""Values of C to choose from: the larger, the closer the fit."""
FOLDS = 5
ONE_FOLD_ROWS = 5000
"""With more rows than this, one held-out fifth decides instead of five."""
NEVER = -30.0
"""Logit of a label without a training row."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """A linear model of the label's logits, or of the number scaled to 0..1."""

    coef_LF: Array
    intercept_L: Array


class RegressionJudge:
    """A linear model on features as a judge."""

    def __init__(self, features: Features, fitted: Fitted, task: TaskSpec) -> None:
        self.features, self.fitted, self.task = features, fitted, task

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row with the likeliest word, or the number clipped to the task's range."""
        if not examples:
            return []
        with progress(title, len(examples)) as bar:
            features_NF = self.features(examples, bar.advance)
        logits_NL = np.asarray(features_NF @ self.fitted.coef_LF.T + self.fitted.intercept_L)
        if self.task.several:
            return _sets_of(examples, logits_NL, self.task, probabilities=probabilities)
        return predictions_of(examples, torch.from_numpy(logits_NL), self.task, probabilities=probabilities)


def fit_floor(
    run: Run,
    part: TaskRows,
    features: Features,
    c: float | None,
    stored: dict[str, Any],
    arrays: dict[str, Array],
    *,
    standardise: bool = False,
) -> Trained:
    """Fit on the rows of one task, save everything to the run folder, and return the judge.

    `stored` and `arrays` are what the features need to be built again. With `standardise`, each feature is fitted as
    its distance from the mean in standard deviations, divided by the root of their number. Raises DataError for a row
    without a gold answer or with an unknown one.
    """
    target_N = _targets(run, part)
    with progress(run.config.method, len(part.rows)) as bar:
        features_NF = features(part.rows, bar.advance)
    fitted, c, held_out = _fit(features_NF, target_N, part.spec, c, run.config.seed, standardise=standardise)
    save_regression(run, fitted, part.spec, stored, arrays)
    run.log({"step": 1, "rows": len(part.rows), "features": features_NF.shape[1], "c": c, "held_out": held_out})
    return Trained([RegressionJudge(features, fitted, part.spec)], len(part.rows))


def fit_mean(
    run: Run, part: TaskRows, blocks: Sequence[tuple[Features, bool]], c: float | None, stored: dict[str, Any]
) -> Trained:
    """Fit a model on each block of features, save the mean of their logits or numbers, return the judge.

    Each block says whether it is standardised, and chooses its own C. The log has the lists of them. The mean is one
    linear model on all features side by side (`side_by_side`). Raises what `fit_floor` raises.
    """
    target_N = _targets(run, part)
    fits: list[tuple[Fitted, float, float | None]] = []
    with progress(run.config.method, len(blocks) * len(part.rows)) as bar:
        for features, standardise in blocks:
            features_NF = features(part.rows, bar.advance)
            fits.append(_fit(features_NF, target_N, part.spec, c, run.config.seed, standardise=standardise))
    models = [fitted for fitted, _, _ in fits]
    fitted = Fitted(
        np.concatenate([model.coef_LF for model in models], axis=1) / len(models),
        np.mean([model.intercept_L for model in models], axis=0),
    )
    save_regression(run, fitted, part.spec, stored, {})
    chosen = {"c": [c for _, c, _ in fits], "held_out": [held_out for _, _, held_out in fits]}
    run.log({"step": 1, "rows": len(part.rows), "features": fitted.coef_LF.shape[1], **chosen})
    joined = side_by_side([features for features, _ in blocks])
    return Trained([RegressionJudge(joined, fitted, part.spec)], len(part.rows))


def side_by_side(blocks: Sequence[Features]) -> Features:
    """Return a function of rows to the features of all blocks, one after the other."""

    def features(rows: Sequence[Example], done: Callable[[int], None]) -> Any:
        last = len(blocks) - 1
        parts = [block(rows, done if index == last else _nothing) for index, block in enumerate(blocks)]
        return np.concatenate(parts, axis=1)

    return features


def _nothing(_count: int) -> None:
    pass


def _targets(run: Run, part: TaskRows) -> Array:
    """Return what the rows of one task teach.

    Raises DataError without rows, and for a row without a gold answer or with an unknown one.
    """
    task = part.spec
    run.rewind({})  # a killed fit is repeated whole
    if not part.rows:
        raise DataError(f"{task.name}: there are no training rows.")
    if task.several:
        return np.asarray(indicators(task, [row.gold for row in part.rows]).astype(np.float64))
    return np.array([target_of(row, task) for row in part.rows])


def _fit(
    features_NF: Any, target_N: Array, task: TaskSpec, c: float | None, seed: int, *, standardise: bool
) -> tuple[Fitted, float, float | None]:
    """Return a model of the features as they are, its C, and the held-out score that chose it."""
    centre_F, scale_F = _centre_and_scale(features_NF) if standardise else (0.0, 1.0)
    if standardise:
        features_NF = (features_NF - centre_F) / scale_F
    fit = fit_number if task.is_number else fit_sets if task.several else fit_labels
    held_out = None
    if c is None:
        c, held_out = choose_c(fit, features_NF, target_N, len(task.names), seed)
    fitted = fit(features_NF, target_N, len(task.names), c)
    if standardise:
        coef_LF = fitted.coef_LF / scale_F
        fitted = Fitted(coef_LF, fitted.intercept_L - coef_LF @ centre_F)
    return fitted, c, held_out


def save_regression(
    run: Run,
    fitted: Fitted,
    task: TaskSpec,
    stored: dict[str, Any],
    arrays: dict[str, Array],
    also: Callable[[Path], None] | None = None,
) -> None:
    """Save a linear model, and what its features need, to the run folder: whole or not at all.

    `also` saves more into the same folder.
    """
    with whole_folder(run.folder / FOLDER) as temporary:
        if also is not None:
            also(temporary)
        save_file({"coef": fitted.coef_LF, "intercept": fitted.intercept_L, **arrays}, temporary / WEIGHTS)
        write_json(temporary / STORED, {**stored, "words": list(task.names), **_kind(task)})


def load_floor(
    run: Run, specs: Sequence[TaskSpec], features_of: Callable[[dict[str, Any], dict[str, Array], TaskSpec], Features]
) -> list[RegressionJudge]:
    """Return a finished run's judges.

    Raises RunError when its files are missing, damaged, or for other labels.
    """
    folder = run.part(FOLDER)
    try:
        arrays, stored = load_file(folder / WEIGHTS), read_json(folder / STORED)
        fitted = Fitted(arrays.pop("coef"), arrays.pop("intercept"))
    except (OSError, SafetensorError, KeyError) as error:
        raise RunError(
            f"{run.folder} holds no trained {run.config.method}, or a damaged one ({error}). Was the run finished?"
        ) from None
    for task in specs:
        if stored.get("words") != list(task.names) or stored.get("sets", False) != bool(task.several):
            wants = "sets of " * bool(task.several) + (", ".join(task.names) or "a number")
            raise RunError(
                f"{folder}: it answers {', '.join(stored.get('words', ())) or 'with a number'}, "
                f"but the task {task.name} wants {wants}."
            )
    return [RegressionJudge(features_of(stored, arrays, task), fitted, task) for task in specs]


def _centre_and_scale(features_NF: Array) -> tuple[Array, Array]:
    """Return each feature's mean, and its standard deviation times √F (1 where it never changes)."""
    scale_F = features_NF.std(0) * np.sqrt(features_NF.shape[1])
    return features_NF.mean(0), np.where(scale_F > 0, scale_F, 1.0)


def fit_labels(features_NF: Any, target_N: Array, labels: int, c: float) -> Fitted:
    """Fit a logistic regression; labels without a row are never the likeliest."""
    from sklearn.linear_model import LogisticRegression

    seen = np.unique(target_N).astype(int)
    coef_LF, intercept_L = np.zeros((labels, features_NF.shape[1])), np.full(labels, NEVER)
    intercept_L[seen] = 0.0
    if len(seen) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged: the last iterate is a floor too
            model = LogisticRegression(C=c, max_iter=1000).fit(features_NF, target_N)
        both = len(seen) == 2  # one row of coefficients, of the second label against the first
        coef_LF[seen[1:] if both else seen] = model.coef_
        intercept_L[seen[1:] if both else seen] = model.intercept_
    return Fitted(coef_LF, intercept_L)


def fit_sets(features_NF: Any, target_NL: Array, labels: int, c: float) -> Fitted:
    """Fit one logistic regression of yes and no per label."""
    fits = [fit_labels(features_NF, target_NL[:, label], 2, c) for label in range(labels)]
    return Fitted(
        np.stack([fit.coef_LF[1] - fit.coef_LF[0] for fit in fits]),
        np.array([fit.intercept_L[1] - fit.intercept_L[0] for fit in fits]),
    )


def fit_number(features_NF: Any, target_N: Array, _labels: int, c: float) -> Fitted:
    """Fit a ridge regression with the penalty 1 / c."""
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / c).fit(features_NF, target_N)
    return Fitted(np.asarray(model.coef_)[None], np.array([float(model.intercept_)]))


def choose_c(
    fit: Callable[[Any, Array, int, float], Fitted], features_NF: Any, target_N: Array, labels: int, seed: int
) -> tuple[float, float | None]:
    """Return the C of the best held-out score, and this score.

    The score is the share of right answers, or minus the mean squared error. With too few rows to hold some out: 1 and
    None. Equal scores: the C nearest to 1.
    """
    sets = target_N.ndim == 2
    if len(target_N) < 2 * FOLDS or (not sets and len(np.unique(target_N)) == 1):
        return 1.0, None
    fold_N = _folds(target_N[:, 0] if sets else target_N, labels, seed)
    folds = range(1 if len(target_N) > ONE_FOLD_ROWS else FOLDS)
    scores: dict[float, float] = {}
    for c in sorted(CHOICES, key=lambda c: abs(np.log(c))):
        parts = []
        for fold in folds:
            train_N, held_N = np.flatnonzero(fold_N != fold), np.flatnonzero(fold_N == fold)
            fitted = fit(features_NF[train_N], target_N[train_N], labels, c)
            logits_NL = np.asarray(features_NF[held_N] @ fitted.coef_LF.T + fitted.intercept_L)
            if sets:
                parts.append(((logits_NL > 0) == target_N[held_N]).mean(1))
            elif labels:
                parts.append(logits_NL.argmax(1) == target_N[held_N])
            else:
                parts.append(-((logits_NL[:, 0] - target_N[held_N]) ** 2))
        scores[c] = float(np.concatenate(parts).mean())
    best = max(scores, key=lambda c: scores[c])  # the first of equals
    return best, scores[best]


def _sets_of(examples: Sequence[Example], logits_NL: Array, task: TaskSpec, *, probabilities: bool) -> list[Prediction]:
    """Return the labels that are likelier than not; with `probabilities`, that of each label."""
    shares_NL = 1 / (1 + np.exp(-np.clip(logits_NL, NEVER, -NEVER)))
    predictions = []
    for example, row in zip(examples, shares_NL.tolist(), strict=True):
        shares = dict(zip(task.names, row, strict=True))
        value = set_text({name for name, share in shares.items() if share > 0.5}, task.names)
        predictions.append(Prediction.of(example, value, value, shares if probabilities else {}))
    return predictions


def _kind(task: TaskSpec) -> dict[str, bool]:
    return {"sets": True} if task.several else {}


def _folds(target_N: Array, labels: int, seed: int) -> Array:
    """Return each row's fold. Every label's rows are spread over the folds."""
    order_N = np.random.default_rng(seed).permutation(len(target_N))
    if labels:
        order_N = order_N[np.argsort(target_N[order_N], kind="stable")]
    fold_N = np.empty(len(target_N), dtype=int)
    fold_N[order_N] = np.arange(len(target_N)) % FOLDS
    return fold_N
