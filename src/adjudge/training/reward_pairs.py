"""One update of a reward model from pairs of labels, or of answers with analyses.

Shapes: ``B`` rows, ``L`` labels, ``P`` pairs, ``T`` tokens of an answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from adjudge.config import RewardModelConfig
from adjudge.models.engine.batch import shared_start
from adjudge.prompts.answers import every_answer
from adjudge.rl.preference import pairwise
from adjudge.rollout.analysed_pairs import AnswerPair, answer_values
from adjudge.rollout.label_rewards import divergent_tokens, label_values
from adjudge.rollout.label_scoring import Likeliest, rows_at_once
from adjudge.rollout.pairs import gold_labels
from adjudge.rollout.prompted import PromptedTask, PromptRow
from adjudge.system.parallel import joined_rows
from adjudge.system.timing import stage
from adjudge.training.updates import accumulate, apply_gradients
from adjudge.types import Value


def learn_reward_pairs(
    task: PromptedTask,
    rows: Sequence[PromptRow],
    weights: Mapping[Value | None, float],
    optimizer: Optimizer,
    config: RewardModelConfig,
) -> tuple[dict[str, Any], Likeliest]:
    """Make an update from all pairs of a batch; return figures and the labels of highest reward before it.

    The right label is paired with every other one. A row's pairs together count as its gold label does in `weights`.
    Raises DataError for a row without a right answer, NotFiniteError before a harmful update.
    """
    every, golds = every_answer(task.spec), gold_labels(task, rows)
    reward_BL = torch.empty(len(rows), len(every))

    def loss_of(part: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        value_BLT = label_values(task, [rows[index].ids for index in part])
        reward_BL[part] = value_BLT[..., -1].detach().cpu()
        pairs = [
            (position, golds[index], wrong)
            for position, index in enumerate(part)
            for wrong in range(len(every))
            if wrong != golds[index]
        ]
        weight_P = torch.tensor([weights.get(rows[part[position]].example.gold, 1.0) for position, _, _ in pairs])
        row_P, chosen_P, rejected_P = torch.tensor(pairs, device=value_BLT.device).unbind(1)
        loss_P = pairwise(
            value_BLT[row_P, chosen_P], value_BLT[row_P, rejected_P], divergent_tokens(task, chosen_P, rejected_P)
        )
        loss = (weight_P.to(loss_P.device) * loss_P).sum() / (len(every) - 1) / len(rows)
        return loss, {"loss": loss.detach()}

    with stage("update"):
        figures = accumulate(range(len(rows)), config.micro_batch_size or rows_at_once(every), loss_of)
        reward_BL.copy_(joined_rows(reward_BL))
        figures["grad_norm"] = apply_gradients(optimizer, config.optimizer.max_grad_norm)
    best = [every[label] for label in reward_BL.argmax(1).tolist()]
    return {**figures, **pair_figures(reward_BL, golds)}, Likeliest([row.example.gold for row in rows], best)


def learn_answer_pairs(
    task: PromptedTask,
    rows: Sequence[PromptRow],
    pairs: Sequence[AnswerPair | None],
    weights: Mapping[Value | None, float],
    optimizer: Optimizer,
    config: RewardModelConfig,
) -> dict[str, Any]:
    """Make one update from a batch's pairs of answers with analyses, and return its figures.

    The loss is the mean over rows, where a tie counts as a pair of equal answers: log 2, without gradient. A batch of
    ties makes no update.
    """
    margin_B = torch.zeros(len(rows))
    paired = [index for index, pair in enumerate(pairs) if pair is not None]

    def loss_of(part: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        some = [(rows[index], pair) for index in part if (pair := pairs[index]) is not None]
        loss_P, margin_P = _pair_losses(task, some)
        margin_B[part] = margin_P.detach().cpu()
        weight_P = torch.tensor([weights.get(row.example.gold, 1.0) for row, _ in some], device=loss_P.device)
        loss = (weight_P * loss_P).sum() / len(rows)
        return loss, {"loss": loss.detach()}

    figures: dict[str, Any] = {"loss": 0.0}
    with stage("update"):
        if paired:
            figures = accumulate(paired, config.micro_batch_size, loss_of)
            margin_B[paired] = joined_rows(margin_B[paired])
            figures["grad_norm"] = apply_gradients(optimizer, config.optimizer.max_grad_norm)
    ties = len(rows) - len(paired)
    figures["loss"] += ties * math.log(2) / len(rows)
    return {**figures, **(_preferences(margin_B[paired]) if paired else {}), "pairs": len(paired), "ties": ties}


@torch.no_grad()
def answer_pair_figures(
    task: PromptedTask, rows: Sequence[PromptRow], pairs: Sequence[AnswerPair | None]
) -> dict[str, float]:
    """Return `pair_figures` of answers with analyses, for the rows with a pair; nothing without any."""
    some = [(row, pair) for row, pair in zip(rows, pairs, strict=True) if pair is not None]
    margins = [_pair_losses(task, some[start : start + 8])[1].cpu() for start in range(0, len(some), 8)]
    return _preferences(torch.cat(margins)) if margins else {}


def _pair_losses(task: PromptedTask, some: Sequence[tuple[PromptRow, AnswerPair]]) -> tuple[Tensor, Tensor]:
    """Return the loss of each pair, and the difference of its rewards."""
    answers = [answer for _, pair in some for answer in (pair.chosen, pair.rejected)]
    value_NT = answer_values(task.policy, [row.ids for row, _ in some for _ in range(2)], answers)
    token_T = torch.arange(value_NT.shape[1], device=value_NT.device)
    bounds = [(shared_start(*pair[:2]), max(map(len, pair[:2]))) for _, pair in some]
    begin_P, end_P = torch.tensor(bounds, device=value_NT.device).unbind(1)
    divergent_PT = (token_T >= begin_P[:, None]) & (token_T < end_P[:, None])
    chosen_PT, rejected_PT = value_NT[0::2], value_NT[1::2]
    return pairwise(chosen_PT, rejected_PT, divergent_PT), chosen_PT[:, -1] - rejected_PT[:, -1]


def _preferences(margin_P: Tensor) -> dict[str, float]:
    preferred_P = (margin_P > 0).float() + 0.5 * (margin_P == 0).float()
    return {"preferred": float(preferred_P.mean()), "margin": float(margin_P.mean())}


def pair_figures(reward_BL: Tensor, golds: Sequence[int]) -> dict[str, float]:
    """Return the share of pairs whose right label has the higher reward, and the margin.

    Equal rewards count half in the share. The margin is the mean difference of the two rewards.
    """
    gold_B = torch.tensor(golds)
    is_pair_BL = torch.arange(reward_BL.shape[1]) != gold_B[:, None]
    return _preferences((reward_BL.gather(1, gold_B[:, None]) - reward_BL)[is_pair_BL])
