"""The baselines of PPO: what an answer's reward is compared with, by ``ppo.values``.

Shapes: ``B`` answers, ``R`` response tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from adjudge.config import Config, PpoConfig
from adjudge.errors import ConfigError
from adjudge.rl.advantages import gae, reward_to_go, step_advantages, whiten
from adjudge.rl.kl import token_rewards
from adjudge.rollout.collect import Rollout, can_score_labels, exact_values
from adjudge.rollout.prompted import PromptedTask
from adjudge.rollout.sampler import Sampling
from adjudge.rollout.vine import Vine
from adjudge.tasks.spec import TaskSpec
from adjudge.training.guards import check_finite
from adjudge.training.updates import Critic, ReferencePenalty


class Compared(NamedTuple):
    """The advantages of a batch, and what its losses have besides them."""

    advantage_BR: Tensor
    critic: Critic | None = None
    penalty: ReferencePenalty | None = None
    """The KL to the reference, where it is no part of the rewards."""
    figures: Mapping[str, Any] = {}


def check_values(config: Config, spec: TaskSpec) -> None:
    """Raise ConfigError where a task does not have what ``ppo.values`` needs."""
    values, analysed, kind = config.ppo.values, config.prompt.analysis == "before", config.ppo.reward.kind
    reasons = {
        "needs labels, and it is answered with a number. Use ppo.values=auto": (
            values in ("exact", "vine-labels") and spec.is_number
        ),
        f"lists every answer, and {len(spec.names)} labels have too many sets. Use ppo.values=auto": (
            values in ("exact", "vine-labels") and not (spec.is_number or spec.lists_all)
        ),
        "needs labels, and an analysis comes before the answer. Use ppo.values=auto": values == "exact" and analysed,
        "goes on from inside an analysis, and none comes before the answer. Use prompt.analysis=before, or "
        "ppo.values=auto": values in ("vine", "vine-labels") and not analysed,
        f"knows what each label earns, and ppo.reward.kind={kind} rates analyses. Use ppo.values=vine": (
            values == "vine-labels" and kind != "match"
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ConfigError(f"{spec.name}: ppo.values={values} {reason}.")


def uses_exact(task: PromptedTask, config: PpoConfig) -> bool:
    """Return whether the exact expected reward over the labels is the baseline."""
    return config.values in ("auto", "exact") and can_score_labels(task)


def compare(
    task: PromptedTask,
    rollout: Rollout,
    score_B: Tensor,
    ref_logp_BR: Tensor,
    config: PpoConfig,
    beta: float,
    *,
    vine: Sampling | None = None,
    common_scale: bool = False,
) -> Compared:
    """Return the advantages of a batch. `vine` draws continuations. Raises NotFiniteError, RewardError."""
    mask_BR = rollout.mask_BR
    if vine is not None:
        labels = config.values == "vine-labels"
        vine_values = Vine(task, config.vine, config.reward, vine, labels, common_scale).step_values(rollout)
        advantage_BR = step_advantages(score_B, vine_values.value_BS, vine_values.steps_B, vine_values.step_BR, mask_BR)
        penalty = ReferencePenalty(ref_logp_BR, beta, mask_BR.float())
        return Compared(_scaled(advantage_BR, mask_BR, config), penalty=penalty, figures=vine_values.figures)
    reward_BR = token_rewards(score_B, rollout.logp_BR, ref_logp_BR, mask_BR, beta)
    check_finite("the reward", reward_BR)
    if uses_exact(task, config):
        value_B = exact_values(rollout, task.spec, config.reward, common_scale=common_scale)
        return Compared((reward_to_go(reward_BR, mask_BR) - value_B[:, None]) * mask_BR)
    advantage_BR, return_BR = gae(reward_BR, rollout.value_BR, mask_BR, config.gamma, config.lam)
    critic = Critic(return_BR, config.value_clip, config.value_coef)
    return Compared(_scaled(advantage_BR, mask_BR, config), critic)


def _scaled(advantage_BR: Tensor, mask_BR: Tensor, config: PpoConfig) -> Tensor:
    return whiten(advantage_BR, mask_BR) if config.whiten_advantages else advantage_BR
