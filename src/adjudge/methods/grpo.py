"""GRPO and two variants: advantages relative to the other answers to the same prompt.

One step: sample several answers per prompt, score them, take each group's mean from its scores, and learn from the
batch with PPO's clipped loss and a KL to the reference in the loss.

The variants differ in scale and mean:

- ``grpo`` (arXiv 2402.03300) divides by the group's standard deviation, and takes the mean per answer, then over
  answers.
- ``dr-grpo`` (arXiv 2503.20783) does neither: it divides by a constant length (the longest answer).
- ``dapo`` (arXiv 2503.14476) scales as ``grpo``, takes the mean over all tokens, drops groups of equal scores, and
  clips at 1.28 above.

Differs from the papers:

1. The standard deviation is the population's.
2. ``dapo`` does not sample on until the batch is full, and has no penalty for long answers.
3. The means are over the whole batch's answers. Mini-batches smaller than the batch only approximate them.
4. Batch sizes and the optimizer are ours, and the first steps are supervised (`warm_start`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adjudge.config import GrpoConfig
from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.advantages import group_relative, per_token, tied
from adjudge.rl.kl import kl_per_response
from adjudge.rollout.collect import sample, score
from adjudge.rollout.forward import reference_logp
from adjudge.rollout.prompted import prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import ReferencePenalty, clipped_updates

KL = {"grpo": 0.04, "dr-grpo": 0.0, "dapo": 0.0}
CLIP_HIGH = 0.28


def train_grpo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on several sampled answers to each prompt. Raises NotFiniteError before a harmful update."""
    config = run.config.grpo
    kl = KL[config.variant] if config.kl is None else config.kl
    if config.variant == "dapo" and config.clip_high is None:
        config = config.model_copy(update={"clip_high": CLIP_HIGH})
    with adapter_loop(run, parts, config, prompt_rows, samples=True) as loop:
        for step in loop:
            one_pass = config.is_one_pass(len(step.rows))
            sampling = Sampling.of(config, loop.sampling)
            rollout = sample(step.task, step.rows, sampling, samples=config.samples, grad=one_pass)
            score_B = score(rollout, step.task.spec, config.reward, common_scale=loop.multi_task)
            ref_logp_BR = reference_logp(loop.policy, rollout, config.temperature)
            advantage_B = group_relative(score_B, config.samples, scale=config.variant != "dr-grpo")
            weight_BR = token_weights(rollout.mask_BR, score_B, step.task.sampled_tokens, config)
            updates = clipped_updates(
                *(loop.policy, loop.optimizer, rollout, per_token(advantage_B, rollout.mask_BR) * weight_BR),
                *(config, loop.order),
                penalty=ReferencePenalty(ref_logp_BR, kl, weight_BR) if kl else None,
                by_answers=True,
            )
            figures = {
                "reward": float(score_B.mean()),
                "kl": float(kl_per_response(rollout.logp_BR, ref_logp_BR, rollout.mask_BR).mean()),
                "tied": float(tied(score_B, config.samples).float().mean()),
            }
            loop.log(step, {**figures, **updates, "lr": loop.lr}, rollout)
    return loop.finish()


def token_weights(mask_BR: Tensor, score_B: Tensor, longest: int, config: GrpoConfig) -> Tensor:
    """Return the weights with which a mean over all tokens becomes the variant's mean, float32 ``[B, R]``.

    `longest` is the constant length of ``dr-grpo``.
    """
    tokens, length_B = mask_BR.sum(), mask_BR.sum(1)
    if config.variant == "grpo":
        weight_B = tokens / (len(mask_BR) * length_B)
    elif config.variant == "dr-grpo":
        weight_B = torch.full((len(mask_BR),), float(tokens) / (len(mask_BR) * longest))
    else:
        kept_B = ~tied(score_B, config.samples)
        weight_B = kept_B * tokens / (length_B * kept_B).sum().clamp(min=1)
    return per_token(weight_B, mask_BR)


METHOD = adapter_method(train_grpo)
