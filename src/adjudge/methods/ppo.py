"""Proximal policy optimisation of LoRA layers on a reward for right answers, token by token.

One step: sample answers to each prompt, score them, give each token −β(log π − log π_ref) and the last one the score
too, estimate advantages, learn from the batch a few times with the clipped losses, and steer β.

Differs from arXiv 2410.11020 (``--preset paper`` gives its constants):

1. An answer stops where it ends, not after 12 to 32 tokens.
2. Adapter dropout is off in every pass: with it the ratio of the first update would not be 1.
3. Log-probabilities and values are kept from sampling, and the first update goes backward through that pass.
4. An analysis before the judgement is sampled and gets credit; one after it is not sampled.
5. Gradients are clipped, and the updates of a batch end early when the policy has moved far (`stop_kl`).
6. The default optimizer is AdamW at a rate for LoRA, with a warm-up and a decay.
7. First comes supervised fine-tuning, whose result is the reference (`warm_start`).
8. Several answers per prompt come from one pass over it (`samples`).
9. Where the answer is a label, the baseline is its exact expected reward, not a critic's guess (`values`). Inside an
   analysis it may be the mean reward of continuations: VinePPO, with the KL in the loss (`methods/baselines.py`).
10. One answer for all rows earns nothing (`reward.balance`): a label's reward is weighted by its rarity, and a number's
    is less what the number would earn on average.
11. The first β is 1 after a warm start: a smaller one lets the policy become sure before it is right (`kl_init`).
    Numbers have a short warm start and a β of 0.05: their distance teaches what next tokens do not.
12. Where no sample of a row is right, its right answer is taught beside them (`sft_weight`, `sft_rows`; PPO-ptx teaches
    other texts): a policy that is sure of a wrong answer gets next to no gradient from samples.

Source: arXiv 1707.06347 (PPO), 1506.02438 (GAE), 1909.08593 (KL to a reference, adaptive β), 2410.11020 (rewards),
2410.01679 (VinePPO), 2203.02155 (PPO-ptx).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adjudge.config import PpoConfig
from adjudge.errors import ConfigError
from adjudge.methods.base import Trained
from adjudge.methods.baselines import check_values, compare, uses_exact
from adjudge.methods.for_tasks import all_numbers, first_kl
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.methods.settings import sft_weight
from adjudge.rl.kl import AdaptiveKL, kl_per_response
from adjudge.rollout.collect import Rollout, sample, score
from adjudge.rollout.forward import reference_logp
from adjudge.rollout.prompted import PromptedTask, PromptRow, prompt_rows, taught_row
from adjudge.rollout.sampler import Sampling
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.training.state import Stateful, generator_state
from adjudge.training.updates import Critic, ReferencePenalty, RightAnswers, clipped_updates


class PpoBatch(NamedTuple):
    """A batch of sampled answers, ready for updates.

    Tensors are float32, without gradient, 0 at padding.
    """

    rollout: Rollout
    score_B: Tensor
    kl_B: Tensor
    """KL to the reference per answer, in nats."""
    advantage_BR: Tensor
    critic: Critic | None
    penalty: ReferencePenalty | None
    figures: Mapping[str, Any]


def train_ppo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on sampled answers to each task's prompts. Raises NotFiniteError before a harmful update."""
    config = run.config.ppo
    for part in parts:
        check_values(run.config, part.spec)
    if config.sft_weight and run.config.prompt.analysis == "before":
        raise ConfigError(
            f"ppo.sft_weight={config.sft_weight} teaches the right answers, and there are none with an analysis before "
            "them. Leave it out, or leave out prompt.analysis=before."
        )
    numbers = all_numbers([part.spec for part in parts])
    beta = AdaptiveKL(first_kl(run.config, numbers=numbers), config.kl_target, config.kl_horizon)
    carry: dict[str, Stateful] = {"beta": beta}
    vine = None
    if config.values in ("vine", "vine-labels"):
        generator = torch.Generator().manual_seed(run.config.seed + 2)  # so that the answers stay those without values
        carry["values"], vine = generator_state(generator), Sampling.of(config, generator)
    value_lr = config.value_lr or config.optimizer.lr
    with adapter_loop(run, parts, config, prompt_rows, samples=True, value_lr=value_lr, carry=carry) as loop:
        for step in loop:
            sampling, multi = Sampling.of(config, loop.sampling), loop.multi_task
            batch = collect_batch(step.task, step.rows, config, beta.beta, sampling, vine=vine, common_scale=multi)
            beside = right_answers(step.task, step.rows, batch.rollout, sft_weight(run.config, step.task.spec), config)
            updates = clipped_updates(
                *(loop.policy, loop.optimizer, batch.rollout, batch.advantage_BR, config, loop.order),
                *(batch.critic, batch.penalty, beside),
            )
            reward, kl = float(batch.score_B.mean()), float(batch.kl_B.mean())
            taught = {"sft_rows": len(beside.rows)} if beside else {}
            figures = {"reward": reward, "kl": kl, **updates, **taught, "beta": beta.beta, **batch.figures}
            beta.update(kl, len(step.rows))
            loop.log(step, {**figures, "lr": loop.lr}, batch.rollout)
    return loop.finish()


def collect_batch(
    task: PromptedTask,
    rows: Sequence[PromptRow],
    config: PpoConfig,
    beta: float,
    sampling: Sampling,
    *,
    vine: Sampling | None = None,
    common_scale: bool = False,
) -> PpoBatch:
    """Sample answers to each prompt, score them, and estimate advantages.

    `vine` draws continuations for VinePPO. With `common_scale`, rewards of several tasks are put on one scale
    (`adjudge.rollout.collect.score`). Raises NotFiniteError, and DataError for a row without a gold answer.
    """
    exact, one_pass = uses_exact(task, config), config.is_one_pass(len(rows))
    rollout = sample(task, rows, sampling, samples=config.samples, score_labels=exact, grad=one_pass)
    ref_logp_BR = reference_logp(task.policy, rollout, config.temperature)
    score_B = score(rollout, task.spec, config.reward, common_scale=common_scale)
    kl_B = kl_per_response(rollout.logp_BR, ref_logp_BR, rollout.mask_BR)
    compared = compare(task, rollout, score_B, ref_logp_BR, config, beta, vine=vine, common_scale=common_scale)
    return PpoBatch(rollout, score_B, kl_B, *compared)


def right_answers(
    task: PromptedTask, rows: Sequence[PromptRow], rollout: Rollout, weight: float, config: PpoConfig
) -> RightAnswers | None:
    """Return the right answers that are taught beside the sampled ones; None without a weight."""
    if not weight:
        return None
    taught = rollout.missed if config.sft_rows == "missed" else range(len(rows))
    return RightAnswers({index: taught_row(task, rows[index]) for index in taught}, weight)


METHOD = adapter_method(train_ppo)
