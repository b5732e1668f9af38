"""Logistic regression on the vectors of a frozen model: a floor that costs seconds.

With ``linear.states=encoder``, each text of a row becomes the mean of an encoder's last hidden states, scaled to length
1. A row of two texts has both vectors, the size of their difference, and their product. With ``policy``, a row is the
policy's last hidden state at the end of its prompt, from which it would write its answer; each feature is standardised
over the training rows. Neither model is trained; a number task takes ridge regression.

Source: arXiv 1908.10084 (Sentence-BERT), section 3, for the mean and for pairs of texts; arXiv 1610.01644 for linear
probes of a network's states. The classifier and its choice of C are scikit-learn's.

Shapes: ``N`` rows, ``D`` width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from adjudge.methods.base import Method, Trained
from adjudge.methods.floors.regression import Features, fit_floor, load_floor
from adjudge.models.encoder import load_encoder
from adjudge.models.head import last_states
from adjudge.models.policy import load_policy
from adjudge.rollout.prompted import PromptedTask, prompt_rows
from adjudge.rollout.sampler import by_length
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example


def train_linear(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Compute the vectors, fit, and save. Raises DataError for rows without gold answers, and ModelError."""
    (part,) = parts
    settings = run.config.linear
    features, own = _features(run)(part.spec), settings.states == "policy"
    return fit_floor(run, part, features, settings.c, {"states": settings.states}, {}, standardise=own)


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> Sequence[Any]:
    """Return the judges of a finished run. Raises RunError and ModelError."""
    features = _features(run)
    return load_floor(run, specs, lambda _stored, _arrays, task: features(task))


def _features(run: Run) -> Callable[[TaskSpec], Features]:
    """Return a function from a task to the features of its rows; the model is loaded once, and when it is needed."""
    return _policy_features(run) if run.config.linear.states == "policy" else _encoder_features(run)


def _policy_features(run: Run) -> Callable[[TaskSpec], Features]:
    load = cache(lambda: load_policy(run.config))

    def of_task(spec: TaskSpec) -> Features:
        task = PromptedTask(load(), spec, run.config)
        task.policy.eval()

        @torch.no_grad()
        def features(rows: Sequence[Example], done: Callable[[int], None]) -> Any:
            prompts = [row.ids for row in prompt_rows(task, rows)]
            states_ND = np.empty((len(rows), task.policy.value_head.in_features))
            for indices in by_length(prompts, run.config.evaluation.batch_size):
                states_ND[indices] = last_states(task.policy, [prompts[index] for index in indices]).cpu().numpy()
                done(len(indices))
            return states_ND

        return features

    return of_task


def _encoder_features(run: Run) -> Callable[[TaskSpec], Features]:
    settings = run.config.linear
    load = cache(lambda: load_encoder(settings.model, run.config.runtime, settings.max_tokens, ()))

    def features(rows: Sequence[Example], done: Callable[[int], None]) -> Any:
        names = list(rows[0].fields) if rows else []
        columns = []
        for name in names:
            report = done if name == names[-1] else _nothing
            texts = [row.fields[name] for row in rows]
            columns.append(load().vectors(texts, run.config.evaluation.batch_size, report).numpy())
        if len(columns) == 2:
            columns += [np.abs(columns[0] - columns[1]), columns[0] * columns[1]]
        return np.concatenate(columns, axis=1).astype(np.float64)

    return lambda _task: features


def _nothing(_count: int) -> None:
    pass


METHOD = Method(train_linear, load_judges)
