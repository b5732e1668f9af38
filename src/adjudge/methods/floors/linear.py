"""Logistic regression on the vectors of a frozen encoder: a floor that costs seconds.

Each text of a row becomes the mean of the encoder's last hidden states, scaled to length 1. A row of two texts has
both vectors, the size of their difference, and their product. The encoder is not trained; a number task takes ridge
regression.

Source: arXiv 1908.10084 (Sentence-BERT), section 3, for the mean and for pairs of texts; the classifier and its choice
of C are scikit-learn's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from adjudge.methods.base import Method, Trained
from adjudge.methods.floors.regression import Features, fit_floor, load_floor
from adjudge.models.encoder import load_encoder
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example


def train_linear(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Compute the vectors, fit, and save. Raises DataError for rows without gold answers, and ModelError."""
    (part,) = parts
    return fit_floor(run, part, _features(run), run.config.linear.c, {}, {})


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> Sequence[Any]:
    """Return the judges of a finished run. Raises RunError and ModelError."""
    return load_floor(run, specs, lambda _stored, _arrays: _features(run))


def _features(run: Run) -> Features:
    settings = run.config.linear
    encoder = load_encoder(settings.model, run.config.runtime, settings.max_tokens, ())

    def features(rows: Sequence[Example], done: Callable[[int], None]) -> Any:
        names = list(rows[0].fields) if rows else []
        columns = []
        for name in names:
            report = done if name == names[-1] else _nothing
            texts = [row.fields[name] for row in rows]
            columns.append(encoder.vectors(texts, run.config.evaluation.batch_size, report).numpy())
        if len(columns) == 2:
            columns += [np.abs(columns[0] - columns[1]), columns[0] * columns[1]]
        return np.concatenate(columns, axis=1).astype(np.float64)

    return features


def _nothing(_count: int) -> None:
    pass


METHOD = Method(train_linear, load_judges)
