"""Logistic regression on the vectors of a frozen model: a floor that costs seconds.

With ``linear.states=encoder``, each text of a row becomes the mean of an encoder's last hidden states, scaled to length
1. A row of two texts has both vectors, the size of their difference, and their product. With ``policy``, a row is the
policy's hidden state at the end of its prompt, from which it would write its answer: the last layer's, or that of
``linear.layer``; each feature is standardised over the training rows. With ``both``, each has a regression of its own,
and the answer is that of their mean logits. Neither model is trained; a number task takes ridge regression.

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

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.methods.base import Method, Trained
from adjudge.methods.floors.regression import Features, fit_floor, fit_mean, load_floor, side_by_side
from adjudge.models.encoder import load_encoder
from adjudge.models.head import last_states
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.prompted import PromptedTask, prompt_rows
from adjudge.rollout.sampler import by_length
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

MIDDLE = 0.6
"""The depth of the layer ``middle``, as a share of all layers: 18 of the 30 of SmolLM2-135M."""


def train_linear(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Compute the vectors, fit, and save.

    Raises ConfigError for a layer that is not there, DataError, and ModelError.
    """
    (part,) = parts
    settings = run.config.linear
    blocks = [(features(part.spec), standardise) for features, standardise in _blocks(run)]
    layer = {} if settings.layer is None or settings.states == "encoder" else {"layer": settings.layer}
    stored = {"states": settings.states, **layer}
    if len(blocks) > 1:
        return fit_mean(run, part, blocks, settings.c, stored)
    ((features, standardise),) = blocks
    return fit_floor(run, part, features, settings.c, stored, {}, standardise=standardise)


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> Sequence[Any]:
    """Return the judges of a finished run. Raises RunError and ModelError."""
    blocks = [features for features, _ in _blocks(run)]
    return load_floor(run, specs, lambda _stored, _arrays, task: side_by_side([block(task) for block in blocks]))


def _blocks(run: Run) -> list[tuple[Callable[[TaskSpec], Features], bool]]:
    """Return functions from a task to the features of its rows, and whether these are standardised.

    A model is loaded once, and when it is needed.
    """
    policy, encoder = (_policy_features, True), (_encoder_features, False)
    chosen = {"policy": [policy], "encoder": [encoder], "both": [policy, encoder]}[run.config.linear.states]
    return [(features(run), standardise) for features, standardise in chosen]


def _policy_features(run: Run) -> Callable[[TaskSpec], Features]:
    load = cache(lambda: _policy(run.config))

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


def _policy(config: Config) -> Policy:
    """Load the policy, cut to the layers up to ``linear.layer``.

    Raises ConfigError for a layer that is not there.
    """
    policy, layer = load_policy(config), config.linear.layer
    if layer is None:
        return policy
    count = policy.layer_count
    number = max(1, round(MIDDLE * count)) if layer == "middle" else layer
    if number > count:
        raise ConfigError(f"linear.layer={number}: {policy.name} has {count} layers. Name one of 1 to {count}.")
    if number < count:  # the states after the last layer are those of no setting
        policy.keep_first_layers(number)
    return policy


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
