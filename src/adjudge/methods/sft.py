"""Supervised fine-tuning of LoRA layers on the right answers.

`minor_beta` makes it MinorSFT: a row counts 2σ(−β ρ) times, where ρ is the log-ratio of its answer to the model before
the training (the reference). Answers that the training has made likelier already count less.

`label_smoothing` and `temporal_ensembling` are for labels that may be wrong (`adjudge.training.noisy_labels`).

Differs from arXiv 2410.11020 (``--preset paper`` gives its constants), and from arXiv 2408.10642 (MinorSFT):

1. The loss counts the answer's tokens only; ``sft.loss=sequence`` counts prompt and answer, as the first does.
2. The learning rate is SFT's own, with a warm-up, and gradients are clipped.
3. The answer taught is the label word that evaluation reads, with the end at which evaluation stops.
4. MinorSFT weighs the mean over the batch's tokens, not each row's mean, so that β = 0 is SFT.
5. Of arXiv 2202.04538 (SuperGen), a label's probability is that of its answer. The cross-entropy is of all answers, so
   that it teaches the form too; the KL is between labels. A row whose mean prediction is not trusted is skipped in its
   batch, so there are as many steps as without.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from adjudge.errors import ConfigError
from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.models.policy import Policy
from adjudge.rewards.checks import need_labels
from adjudge.rollout.forward import taught_reference
from adjudge.rollout.prompted import TaughtRow, taught_rows
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.training.noisy_labels import NoisyLabels
from adjudge.training.state import Carried, Stateful
from adjudge.training.updates import teach

MEASURED_EVERY = 10
"""Steps between two measurements of plain SFT's deviation: each costs a pass of the reference."""


def train_sft(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on each task's right answers.

    Raises ConfigError, DataError for a row without a right answer, and NotFiniteError.
    """
    config = run.config.sft
    if config.minor_beta is not None and config.loss == "sequence":
        raise ConfigError("sft.minor_beta weighs rows by their answers. Use it with sft.loss=answer.")
    noisy = NoisyLabels(config)
    if noisy.settings and (config.minor_beta is not None or config.loss == "sequence"):
        raise ConfigError(
            "sft.label_smoothing and sft.temporal_ensembling learn from the labels of a row. "
            "Leave sft.minor_beta unset, and use sft.loss=answer."
        )
    for setting in noisy.settings:
        for part in parts:
            need_labels(part.spec, f"sft.{setting}")
    prepare = partial(taught_rows, loss=config.loss, balanced=config.class_weight == "balanced")
    known: dict[str, float] = {}
    carry: dict[str, Stateful] = {"reference log-probabilities": Carried(lambda: dict(known), known.update)}
    if noisy.ensembles:
        carry["ensemble"] = noisy
    with adapter_loop(run, parts, config, prepare, carry=carry) as loop:
        for step in loop:
            rows = step.rows
            if noisy.settings:
                figures = noisy.learn(loop.optimizer, step.task, step.task_index, rows)
                noisy.predict(step.number, loop.tasks, loop.rows)
                loop.log(step, {**figures, "lr": loop.lr})
                continue
            if config.minor_beta is not None or step.number % MEASURED_EVERY == 0:
                rows = with_reference(loop.policy, rows, str(step.task_index), known)
            figures = teach(
                *(loop.policy, loop.optimizer, rows, config.micro_batch_size, config.optimizer.max_grad_norm),
                minor_beta=config.minor_beta or 0.0,
            )
            if config.minor_beta is None:
                figures.pop("minor_weight", None)
            loop.log(step, {**figures, "lr": loop.lr})
    return loop.finish()


def with_reference(policy: Policy, rows: Sequence[TaughtRow], task: str, known: dict[str, float]) -> list[TaughtRow]:
    """Return the rows with the reference's log-probability of their answers.

    Each is computed once and kept in `known`.
    """
    new = [row for row in rows if f"{task} {row.id}" not in known]
    if new:
        for row, logp in zip(new, taught_reference(policy, new), strict=True):
            known[f"{task} {row.id}"] = logp
    return [row._replace(ref_logp=known[f"{task} {row.id}"]) for row in rows]


METHOD = adapter_method(train_sft)
