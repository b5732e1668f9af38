"""One update of a reward model from pairs of labels.

Shapes: ``B`` rows, ``L`` labels, ``P`` pairs, ``T`` tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from adjudge.config import RewardModelConfig
from adjudge.prompts.answers import every_answer
from adjudge.rl.preference import pairwise
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
    """Make one update from all pairs of a batch; return its figures and the labels of highest reward before it.

    The right label is paired with every other one. A row's pairs together count as its gold label does in `weights`.
    Raises DataError for a row without a right answer, NotFiniteError before a harmful update.
    """
    every, golds = every_answer(task.spec), gold_labels(task, rows)
    reward_BL = torch.empty(len(rows), len(every))

    def loss_of(part: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        value_BLT = label_values(task, [rows[index].ids for index in part])
        reward_BL[part] = value_BLT[..., -1].detach().cpu()
        pairs = [
            (place, golds[index], wrong)
            for place, index in enumerate(part)
            for wrong in range(len(every))
            if wrong != golds[index]
        ]
        weight_P = torch.tensor([weights.get(rows[part[place]].example.gold, 1.0) for place, _, _ in pairs])
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


def pair_figures(reward_BL: Tensor, golds: Sequence[int]) -> dict[str, float]:
    """Return the share of pairs whose right label has the higher reward, where equal ones count half, and the margin.

    The margin is the mean difference of the two rewards.
    """
    gold_B = torch.tensor(golds)
    is_pair_BL = torch.arange(reward_BL.shape[1]) != gold_B[:, None]
    margin_P = (reward_BL.gather(1, gold_B[:, None]) - reward_BL)[is_pair_BL]
    preferred_P = (margin_P > 0).float() + 0.5 * (margin_P == 0).float()
    return {"preferred": float(preferred_P.mean()), "margin": float(margin_P.mean())}
