"""Learn labels that may be wrong: smoothed targets, and a run's own predictions averaged over time.

Every `every` steps all training rows are predicted. The mean of these predictions decides which rows are learned from,
and the prediction of a row must not go far from its mean. Both are off by default, and SFT is then SFT.

Shapes: ``B`` rows, ``N`` all rows of a task, ``L`` labels.
Source: arXiv 2202.04538 (SuperGen).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from adjudge.config import SftConfig
from adjudge.prompts.answers import every_answer
from adjudge.rl.noisy_labels import accumulated, ensemble_kl, mean_prediction, risen, smoothed_loss, trusted
from adjudge.rollout.label_scoring import labels_of, rows_at_once
from adjudge.rollout.prompted import PromptedTask, TaughtRow
from adjudge.system.parallel import of_all_rows
from adjudge.system.timing import stage
from adjudge.training.updates import accumulate, apply_gradients, teach


class NoisyLabels:
    """A run's label smoothing and temporal ensemble. The predictions are a part of its state."""

    def __init__(self, config: SftConfig) -> None:
        self._config, self._settings = config, config.temporal_ensembling
        self._count = 0
        """Predictions so far."""
        self._predicted: dict[str, dict[str, Any]] = {}
        """Of each task by its index: the ids and labels of its rows, and the running sum of their predictions."""
        self._trusted: dict[str, dict[str, Tensor]] = {}
        """The mean prediction of each row that is learned from, by task and id."""

    @property
    def settings(self) -> list[str]:
        """Return the settings that are on: none for plain SFT."""
        smoothing = ["label_smoothing"] if self._config.label_smoothing else []
        return [*smoothing, *(["temporal_ensembling"] if self.ensembles else [])]

    @property
    def ensembles(self) -> bool:
        """Return whether predictions are averaged, so that there is a state."""
        return self._settings.every is not None

    def state_dict(self) -> dict[str, Any]:
        """Return the predictions so far."""
        return {"count": self._count, "predicted": dict(self._predicted)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the predictions of a `state_dict`."""
        self._count, self._predicted = state["count"], dict(state["predicted"])
        self._trusted = {task: self._trust(predicted) for task, predicted in self._predicted.items()}

    def predict(self, step: int, tasks: Sequence[PromptedTask], rows: Sequence[Sequence[TaughtRow]]) -> None:
        """Predict all rows of all tasks, if it is due after this step."""
        if self._settings.every is None or step % self._settings.every:
            return
        self._count += 1
        with stage("ensemble"):
            for index, (task, part) in enumerate(zip(tasks, rows, strict=True)):
                probability_NL = _probabilities(task, part)
                before = self._predicted.get(str(index))
                self._predicted[str(index)] = {
                    "ids": [row.id for row in part],
                    "labels": _label_indices(task, part),
                    "sum": accumulated(
                        torch.zeros_like(probability_NL) if before is None else before["sum"],
                        probability_NL,
                        self._settings.momentum,
                    ),
                }
        self._trusted = {task: self._trust(predicted) for task, predicted in self._predicted.items()}

    def learn(
        self, optimizer: Optimizer, task: PromptedTask, task_index: int, rows: Sequence[TaughtRow]
    ) -> dict[str, float]:
        """Learn from a batch's trusted rows, and return the figures of `teach`, with those of the ensemble.

        ``kept`` is the share of the rows that is learned from. Nothing is updated when it is 0.
        """
        config, policy = self._config, task.policy
        trusted_rows = self._trusted.get(str(task_index))
        kept = [row for row in rows if trusted_rows is None or row.id in trusted_rows]
        about = {"kept": len(kept) / len(rows)} if self.ensembles else {}
        if not kept:
            return {"loss": 0.0, "right": 0.0, "grad_norm": 0.0, **about}
        weight = risen(self._settings.kl, self._count, self._settings.ramp)
        if not weight and not config.label_smoothing:
            max_norm = config.optimizer.max_grad_norm
            return {**teach(policy, optimizer, kept, config.micro_batch_size, max_norm), **about}
        tokens = sum(row.weight * len(row.taught) for row in kept)
        means = None if trusted_rows is None else torch.stack([trusted_rows[row.id] for row in kept])

        def loss_of(index: list[int]) -> tuple[Tensor, dict[str, Tensor | float]]:
            some = [kept[row_index] for row_index in index]
            label_B = _label_indices(task, some).to(policy.device)
            logp_BL = labels_of(task, some, 1.0, grad=True)
            weight_B = torch.tensor([row.weight for row in some], device=policy.device)
            loss = (weight_B * smoothed_loss(logp_BL, label_B, config.label_smoothing)).sum() / tokens
            figures: dict[str, Tensor | float] = {"right": (logp_BL.argmax(1) == label_B).float().sum()}
            if means is not None and weight:
                kl_B = ensemble_kl(means[index].to(policy.device), logp_BL.log_softmax(1))
                loss = loss + weight * (weight_B * kl_B).sum() / tokens
                figures["ensemble_kl"] = kl_B.detach().sum()
            return loss, {"loss": loss.detach(), **figures}

        size = config.micro_batch_size or rows_at_once(every_answer(task.spec))
        sums = accumulate(range(len(kept)), size, loss_of)
        norm = apply_gradients(optimizer, config.optimizer.max_grad_norm)
        figures = {name: value / len(kept) for name, value in sums.items() if name != "loss"}
        return {"loss": sums["loss"], **figures, **about, "grad_norm": norm}

    def _trust(self, predicted: Mapping[str, Any]) -> dict[str, Tensor]:
        mean_NL = mean_prediction(predicted["sum"], self._settings.momentum, self._count)
        kept_N = trusted(mean_NL, predicted["labels"], self._settings.threshold)
        return {id: mean_NL[row] for row, id in enumerate(predicted["ids"]) if kept_N[row]}


def _probabilities(task: PromptedTask, rows: Sequence[TaughtRow]) -> Tensor:
    """Return the probability of each label of each row, without dropout, ``[N, L]`` on the CPU."""
    policy = task.policy
    training = policy.training
    policy.train(False)
    parts = of_all_rows(rows, lambda share: labels_of(task, share, 1.0).cpu())
    policy.train(training)
    return torch.cat(parts).softmax(1)


def _label_indices(task: PromptedTask, rows: Sequence[TaughtRow]) -> Tensor:
    """Return the index of each row's label, by what is taught."""
    answers = task.taught_labels()
    return torch.tensor([answers.index(row.taught) for row in rows])
