"""One update from pairs of answers, or from the log-ratios that answers are to reach.

Shapes: ``B`` rows, ``A`` answers to each, ``L`` labels, ``P`` pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from adjudge.config import WarmStartConfig
from adjudge.prompts.answers import every_answer
from adjudge.rl.kl import label_kl
from adjudge.rl.preference import sppo
from adjudge.rollout.label_scoring import Likeliest, rows_at_once
from adjudge.rollout.pairs import AnswerPass, PairedRow, run_answers
from adjudge.rollout.prompted import PromptedTask, PromptRow
from adjudge.system.parallel import joined_rows
from adjudge.system.timing import stage
from adjudge.training.batches import chunks
from adjudge.training.updates import accumulate, apply_gradients


class PairPass(NamedTuple):
    """The pairs of some rows under the policy as it is now, with gradient.

    A tied row has its right answer twice.
    """

    chosen_P: Tensor
    """Log-ratio of each pair's right answer to the reference, in nats."""
    rejected_P: Tensor
    chosen_logp_P: Tensor
    rows: Sequence[PairedRow]
    passed: AnswerPass
    chosen_index_P: Tensor
    """Where each pair's right answer is among the distinct answers of the pass."""
    rejected_index_P: Tensor


class Targets(NamedTuple):
    """What the reference answers to a batch, all labels first, and where each answer's log-ratio is to go."""

    answers: list[list[list[int]]]
    ref_logp_BA: Tensor
    target_BA: Tensor
    weight_BA: Tensor
    ties: int
    """Rows whose sampled answers are all right, or all wrong."""


PairLoss = Callable[[PairPass], tuple[Tensor, dict[str, Tensor]]]
"""Returns the loss of each pair, ``[P]``, and more figures of each pair to log."""


def learn_pairs(
    task: PromptedTask, rows: Sequence[PairedRow], optimizer: Optimizer, config: WarmStartConfig, loss_of: PairLoss
) -> tuple[dict[str, Any], Likeliest]:
    """Make one update from the pairs of a batch; return its figures and the likeliest answers before it.

    The loss is the mean over rows. A tie counts as a pair of equal answers: its loss is log 2, without gradient. A
    batch of ties makes no update. Raises NotFiniteError before a harmful update.
    """
    every, pairs = every_answer(task.spec), sum(len(row.rejected) for row in rows)
    total_weight = sum(weight for row in rows for _, weight in row.rejected)
    logp_BL = torch.empty(len(rows), len(every))

    def loss_of_part(part: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        some = [rows[index] for index in part]
        batch, weight_P = run_pairs(task, some)
        logp_BL[part] = batch.passed.logp_BA[:, : len(every)].detach().cpu()
        loss_P, more = loss_of(batch)
        loss = ((weight_P * loss_P).sum() + (len(some) - weight_P.sum()) * math.log(2)) / len(rows)
        shown = {"chosen": batch.chosen_P, "rejected": batch.rejected_P, **more}
        shown["preferred"] = (batch.chosen_P > batch.rejected_P).float()
        sums = {name: (weight_P * value_P.detach()).sum() for name, value_P in shown.items()}
        return loss, {"loss": loss.detach(), **{name: value / (total_weight or 1) for name, value in sums.items()}}

    size = config.micro_batch_size or rows_at_once(every)
    with stage("update"):
        if pairs:
            figures = accumulate(range(len(rows)), size, loss_of_part)
            logp_BL.copy_(joined_rows(logp_BL))
            figures["grad_norm"] = apply_gradients(optimizer, config.optimizer.max_grad_norm)
            figures["margin"] = figures["chosen"] - figures["rejected"]
        else:
            with torch.no_grad():
                losses = [loss_of_part(list(range(len(rows)))[part])[1]["loss"] for part in chunks(len(rows), size)]
            figures = {"loss": float(sum(losses))}
    ref_logp_BL = torch.tensor([row.ref_logp[: len(every)] for row in rows])
    counts = {"pairs": pairs, "ties": sum(not row.rejected for row in rows)}
    labels, answers = label_figures(task, [row.row for row in rows], logp_BL, ref_logp_BL)
    return {**figures, **counts, **labels}, answers


def learn_targets(
    task: PromptedTask, rows: Sequence[PromptRow], targets: Targets, optimizer: Optimizer, config: WarmStartConfig
) -> tuple[dict[str, Any], Likeliest]:
    """Make one update by the weighted squared distance of log-ratios from targets; see `learn_pairs`."""
    every, device = every_answer(task.spec), task.policy.device
    logp_BL = torch.empty(len(rows), len(every))

    def loss_of_part(part: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        passed = run_answers(task.policy, [rows[index].ids for index in part], [targets.answers[i] for i in part])
        logp_BL[part] = passed.logp_BA[:, : len(every)].detach().cpu()
        ref_logp_BA, target_BA, weight_BA = (
            tensor_BA[part].to(device) for tensor_BA in (targets.ref_logp_BA, targets.target_BA, targets.weight_BA)
        )
        loss = sppo(passed.logp_BA - ref_logp_BA, target_BA, weight_BA).sum() / len(rows)
        return loss, {"loss": loss.detach()}

    with stage("update"):
        figures = accumulate(range(len(rows)), config.micro_batch_size or rows_at_once(every), loss_of_part)
        logp_BL.copy_(joined_rows(logp_BL))
        figures["grad_norm"] = apply_gradients(optimizer, config.optimizer.max_grad_norm)
    labels, answers = label_figures(task, rows, logp_BL, targets.ref_logp_BA[:, : len(every)])
    return {**figures, "ties": targets.ties, **labels}, answers


def label_figures(
    task: PromptedTask, rows: Sequence[PromptRow], logp_BL: Tensor, ref_logp_BL: Tensor
) -> tuple[dict[str, float], Likeliest]:
    """Return the KL to the reference over the labels, their mass, and the likeliest label of each row."""
    every = every_answer(task.spec)
    likeliest = [every[label] for label in logp_BL.argmax(1).tolist()]
    kl, mass = label_kl(logp_BL, ref_logp_BL).mean(), logp_BL.exp().sum(1).mean()
    return {"kl": float(kl), "label_mass": float(mass)}, Likeliest([row.example.gold for row in rows], likeliest)


def run_pairs(task: PromptedTask, rows: Sequence[PairedRow]) -> tuple[PairPass, Tensor]:
    """Run the answers of some rows; return their pairs and each pair's weight, 0 for a tie's."""
    device = task.policy.device
    passed = run_answers(task.policy, [row.row.ids for row in rows], [row.answers for row in rows])
    width = passed.logp_BA.shape[1]
    ref_logp_BA = torch.tensor([[*row.ref_logp, *[0.0] * (width - len(row.ref_logp))] for row in rows], device=device)
    ratio_BA = passed.logp_BA - ref_logp_BA
    listed = [
        (index, row.gold, rejected, weight)
        for index, row in enumerate(rows)
        for rejected, weight in row.rejected or [(row.gold, 0.0)]
    ]
    row_P, chosen_P, rejected_P = (torch.tensor([pair[part] for pair in listed], device=device) for part in range(3))
    pairs = PairPass(
        chosen_P=ratio_BA[row_P, chosen_P],
        rejected_P=ratio_BA[row_P, rejected_P],
        chosen_logp_P=passed.logp_BA[row_P, chosen_P],
        rows=rows,
        passed=passed,
        chosen_index_P=passed.index_BA[row_P, chosen_P],
        rejected_index_P=passed.index_BA[row_P, rejected_P],
    )
    return pairs, torch.tensor([pair[3] for pair in listed], device=device)
