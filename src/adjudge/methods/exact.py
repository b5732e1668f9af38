"""The exact policy gradient: raise the expected reward over all labels. Nothing is sampled.

One step: compute the probability of each label as the answer to each prompt, weigh the labels' rewards with them, and
follow the gradient of this expected reward, minus β times the exact KL to the reference. A number task's answers count
as labels where they can be listed: 51 from 0.0 to 5.0.

It has no noise from sampling, no baseline and no critic: this is what the sampled methods estimate. ``transform``
raises 2 arcsin √p or log p of the right labels instead. ``log`` is SFT's likelihood, so the difference between ``p``
and ``log`` is what a reward adds.

Differs from arXiv 1706.05374:

1. The sum is over labels, and their rewards are known. There the integral is over continuous actions, with a critic.
2. An answer is right only as the label word with its end. Other spellings count as unreadable.
3. A batch is learned from `update_epochs` times, until the KL to the policy it began with exceeds `stop_kl` (in nats
   per answer).
4. First comes supervised fine-tuning, whose result is the reference (`warm_start`).

Shapes: ``B`` rows, ``L`` labels or listed numbers.
Source: arXiv 1706.05374 (expected policy gradients), 1910.09093 (all-action gradients), 2510.13651 (transforms).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adjudge.config import ExactConfig
from adjudge.errors import ConfigError
from adjudge.methods.base import Trained
from adjudge.methods.base_loop import Step
from adjudge.methods.loop import AdapterLoop, adapter_loop, adapter_method
from adjudge.prompts.answers import every_answer
from adjudge.rl.kl import label_kl, with_other
from adjudge.rl.losses import expected_reward, label_objective
from adjudge.rollout.label_scoring import Likeliest, labels_of, rows_at_once
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows
from adjudge.runs.folder import Run
from adjudge.system.parallel import joined_rows, of_all_rows, on_first
from adjudge.system.timing import stage
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import accumulate, apply_gradients


def train_exact(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on the expected reward.

    Raises ConfigError for numbers that cannot be listed, and NotFiniteError.
    """
    config = run.config.exact
    for part in parts:
        every_answer(part.spec)
        if part.spec.is_number and config.transform != "p":
            raise ConfigError(
                f"{part.spec.name} is answered with a number, and exact.transform={config.transform} raises right "
                "labels only. Use exact.transform=p."
            )
    if config.reward.metric is not None and config.reward.metric_window == 0:
        raise ConfigError("exact.reward.metric: `exact` samples no answers, so it needs exact.reward.metric_window.")
    with adapter_loop(run, parts, config, prompt_rows, samples=True) as loop:
        for step in loop:
            figures, answers = exact_updates(loop, step, config)
            loop.log(step, {**figures, "lr": loop.lr}, answers)
    return loop.finish()


def exact_updates(
    loop: AdapterLoop[PromptRow], step: Step[PromptedTask, PromptRow], config: ExactConfig
) -> tuple[dict[str, Any], Likeliest]:
    """Learn from a batch, and return the figures and the answers from before the first update."""
    task, golds = step.task, [row.example.gold for row in step.rows]
    rewarder, examples, common_scale = task.rewarder, [row.example for row in step.rows], loop.multi_task
    assert rewarder is not None
    every = every_answer(task.spec)
    prompts = [row.ids for row in step.rows]
    reward_BL = torch.tensor(on_first(lambda: rewarder.of_each(examples, prompts, every, common_scale=common_scale)))
    unreadable_B = torch.tensor(on_first(lambda: rewarder.of_unreadable(examples, common_scale=common_scale)))
    reward_BL, unreadable_B = reward_BL.to(loop.policy.device), unreadable_B.to(loop.policy.device)
    ref_logp_BL = None
    if config.kl:
        with stage("reference"), torch.no_grad(), loop.policy.reference():
            parts = of_all_rows(step.rows, lambda rows: labels_of(task, rows, config.temperature).cpu())
            ref_logp_BL = torch.cat(parts).to(loop.policy.device)
    first_BL = torch.empty_like(reward_BL)
    own_BL = torch.empty_like(reward_BL)
    updates: list[float] = []
    figures: dict[str, float] = {}
    stopped = False

    def loss_of(rows: list[int]) -> tuple[Tensor, dict[str, Tensor]]:
        logp_BL = labels_of(task, [step.rows[row] for row in rows], config.temperature, grad=True)
        own_BL[rows] = logp_BL.detach()
        objective_B = label_objective(logp_BL, reward_BL[rows], unreadable_B[rows], config.transform)
        loss_B = -objective_B if ref_logp_BL is None else config.kl * label_kl(logp_BL, ref_logp_BL[rows]) - objective_B
        return loss_B.sum() / len(step.rows), {"loss": loss_B.detach().sum() / len(step.rows)}

    with stage("update"):
        for epoch in range(config.update_epochs):
            losses = accumulate(range(len(step.rows)), config.micro_batch_size or rows_at_once(every), loss_of)
            now_BL = joined_rows(own_BL)
            if epoch == 0:
                first_BL.copy_(now_BL)
                figures = losses
            stopped = config.stop_kl is not None and float(label_kl(now_BL, first_BL).mean()) > config.stop_kl
            if stopped:
                loop.optimizer.zero_grad(set_to_none=True)
                break
            updates.append(apply_gradients(loop.optimizer, config.optimizer.max_grad_norm))
    every_BA = with_other(first_BL)
    answers = Likeliest(golds, [every[label] for label in first_BL.argmax(1).tolist()])
    rewarder.remember(golds, answers.judgements)
    return {
        "reward": float(expected_reward(first_BL, reward_BL, unreadable_B).mean()),
        **({} if ref_logp_BL is None else {"kl": float(label_kl(first_BL, ref_logp_BL).mean())}),
        **figures,
        "label_mass": float(first_BL.exp().sum(1).mean()),
        "entropy": float(-(every_BA.exp() * every_BA).sum(1).mean()),
        "grad_norm": sum(updates) / len(updates) if updates else 0.0,
        "updates": len(updates),
        "stopped": stopped,
    }, answers


METHOD = adapter_method(train_exact)
