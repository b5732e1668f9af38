"""RLOO: REINFORCE with leave-one-out baselines.

One step: sample several answers per prompt, give each its score − β(log π − log π_ref), take from it the mean of the
prompt's other answers, and learn from the batch with this advantage for the whole answer.

Differs from arXiv 2402.14740:

1. PPO's clipped loss bounds the updates. In the only one of a batch (`update_epochs` 1) the ratio is 1, so it is
   REINFORCE's.
2. The loss is a mean over tokens. With answers of one length this is the paper's mean over answers, up to a constant.
3. β, batch sizes and the optimizer are ours, and the first steps are supervised (`warm_start`).
"""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.advantages import leave_one_out, per_token
from adjudge.rl.kl import kl_per_response
from adjudge.rollout.collect import sample, score
from adjudge.rollout.forward import reference_logp
from adjudge.rollout.prompted import prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.runs.folder import Run
from adjudge.training.guards import check_finite
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import clipped_updates


def train_rloo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on several sampled answers to each prompt. Raises NotFiniteError before a harmful update."""
    config = run.config.rloo
    with adapter_loop(run, parts, config, prompt_rows, samples=True) as loop:
        for step in loop:
            one_pass = config.is_one_pass(len(step.rows))
            sampling = Sampling.of(config, loop.sampling)
            rollout = sample(step.task, step.rows, sampling, samples=config.samples, grad=one_pass)
            score_B = score(rollout, step.task.spec, config.reward, common_scale=loop.multi_task)
            ref_logp_BR = reference_logp(loop.policy, rollout, config.temperature)
            kl_B = kl_per_response(rollout.logp_BR, ref_logp_BR, rollout.mask_BR)
            reward_B = score_B - config.kl * kl_B
            check_finite("the reward", reward_B)
            advantage_BR = per_token(leave_one_out(reward_B, config.samples), rollout.mask_BR)
            updates = clipped_updates(loop.policy, loop.optimizer, rollout, advantage_BR, config, loop.order)
            figures = {"reward": float(score_B.mean()), "kl": float(kl_B.mean()), **updates, "lr": loop.lr}
            loop.log(step, figures, rollout)
    return loop.finish()


METHOD = adapter_method(train_rloo)
