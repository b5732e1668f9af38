"""Proximal policy optimisation of LoRA layers on a reward for right answers, token by token.

One step: sample an answer per prompt, score it, give each token −β(log π − log π_ref) and the last one the score too,
estimate advantages (GAE), learn from the batch a few times with the clipped losses, and steer β.

Differs from arXiv 2410.11020 (``--preset paper`` gives its constants):

1. An answer stops where it ends, not after 12 to 32 tokens.
2. Adapter dropout is off in every pass: with it the ratio of the first update would not be 1.
3. Log-probabilities and values are kept from sampling, and the first update goes backward through that pass.
4. An analysis before the judgement is sampled and gets credit; one after it is not sampled.
5. Gradients are clipped, and the updates of a batch end early when the policy has moved far (`stop_kl`).
6. The default optimizer is AdamW at a rate for LoRA, with a warm-up and a decay.

Source: arXiv 1707.06347 (PPO), 1506.02438 (GAE), 1909.08593 (KL to a reference, adaptive β), 2410.11020 (rewards).
"""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.methods.base import Trained
from adjudge.methods.loop import adapter_loop, adapter_method
from adjudge.rl.advantages import gae, whiten
from adjudge.rl.kl import AdaptiveKL, kl_per_response, token_rewards
from adjudge.rollout.collect import sample, score
from adjudge.rollout.forward import reference_logp
from adjudge.rollout.prompted import prompt_rows
from adjudge.rollout.sampler import Sampling
from adjudge.runs.folder import Run
from adjudge.training.guards import check_finite
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import Critic, clipped_updates


def train_ppo(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Train on sampled answers to each task's prompts. Raises NotFiniteError before a harmful update."""
    config = run.config.ppo
    beta = AdaptiveKL(config.kl_init, config.kl_target, config.kl_horizon)
    value_lr = config.value_lr or config.optimizer.lr
    loop = adapter_loop(run, parts, config, prompt_rows, samples=True, value_lr=value_lr, carry={"beta": beta})
    with loop:
        for step in loop:
            sampling = Sampling.of(config, loop.sampling)
            rollout = sample(step.task, step.rows, sampling, grad=config.is_one_pass(len(step.rows)))
            score_B = score(rollout, step.task.spec, config.reward, common_scale=loop.multi_task)
            ref_logp_BR = reference_logp(loop.policy, rollout, config.temperature)
            reward_BR = token_rewards(score_B, rollout.logp_BR, ref_logp_BR, rollout.mask_BR, beta.beta)
            check_finite("the reward", reward_BR)
            advantage_BR, return_BR = gae(reward_BR, rollout.value_BR, rollout.mask_BR, config.gamma, config.lam)
            if config.whiten_advantages:
                advantage_BR = whiten(advantage_BR, rollout.mask_BR)
            critic = Critic(return_BR, config.value_clip, config.value_coef)
            updates = clipped_updates(loop.policy, loop.optimizer, rollout, advantage_BR, config, loop.order, critic)
            kl = float(kl_per_response(rollout.logp_BR, ref_logp_BR, rollout.mask_BR).mean())
            figures = {"reward": float(score_B.mean()), "kl": kl, **updates, "beta": beta.beta, "lr": loop.lr}
            beta.update(kl, len(step.rows))
            loop.log(step, figures, rollout)
    return loop.finish()


METHOD = adapter_method(train_ppo)
