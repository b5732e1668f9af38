"""REINFORCE++: policy gradients of LoRA layers without a critic, with batch-whitened advantages.

One step: sample an answer per prompt, score it, give each token −β(log π − log π_ref) and the last one the score too,
sum what follows each token, whiten these sums over the batch, and learn from them with PPO's clipped loss.

Differs from arXiv 2501.03262:

1. β is a setting (`reinforce.kl`), not the paper's; so are clip range, batch sizes and the optimizer.
2. With several answers per prompt (`samples`), the mean of the prompt's answers is taken off before whitening, as in
   the paper's variant with a baseline. The KL stays in the reward; there it is in the loss.
3. Adapter dropout is off, gradients are clipped, and a batch's updates end early at `stop_kl`, as in PPO here.
4. First comes supervised fine-tuning, whose result is the reference (`warm_start`).
5. A batch whose answers all get the same reward is whitened too: what is left is the noise of the KL, scaled up.

It is PPO with gamma = lam = 1, a fixed β, and a value head that stays 0. Source: arXiv 2501.03262 (REINFORCE++),
section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.advantages import group_relative, per_token, reward_to_go, whiten
from adjudge.rl.kl import kl_per_response, token_rewards
from adjudge.rollout.collect import sample, score
from adjudge.rollout.forward import reference_logp
from adjudge.rollout.prompted import prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.runs.folder import Run
from adjudge.training.guards import check_finite
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import clipped_updates


def train_reinforce(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on sampled answers to each task's prompts. Raises NotFiniteError before a harmful update."""
    config = run.config.reinforce
    with adapter_loop(run, parts, config, prompt_rows, samples=True) as loop:
        for step in loop:
            sampling = Sampling.of(config, loop.sampling)
            one_pass = config.is_one_pass(len(step.rows))
            rollout = sample(step.task, step.rows, sampling, samples=config.samples, grad=one_pass)
            score_B = score(rollout, step.task.spec, config.reward, common_scale=loop.multi_task)
            ref_logp_BR = reference_logp(loop.policy, rollout, config.temperature)
            reward_BR = token_rewards(score_B, rollout.logp_BR, ref_logp_BR, rollout.mask_BR, config.kl)
            check_finite("the reward", reward_BR)
            if config.samples == 1:
                advantage_BR = reward_to_go(reward_BR, rollout.mask_BR)
            else:
                centred_B = group_relative(reward_BR.sum(1), config.samples, scale=False)
                advantage_BR = per_token(centred_B, rollout.mask_BR)
            advantage_BR = whiten(advantage_BR, rollout.mask_BR)
            updates = clipped_updates(loop.policy, loop.optimizer, rollout, advantage_BR, config, loop.order)
            kl = float(kl_per_response(rollout.logp_BR, ref_logp_BR, rollout.mask_BR).mean())
            loop.log(step, {"reward": float(score_B.mean()), "kl": kl, **updates, "lr": loop.lr}, rollout)
    return loop.finish()


METHOD = adapter_method(train_reinforce)
