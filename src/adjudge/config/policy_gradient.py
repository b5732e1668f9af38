"""The settings of the methods that learn from rewards."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adjudge.config.base import Settings
from adjudge.config.loops import WarmStartConfig
from adjudge.config.rewards import RewardConfig


class PolicyGradientConfig(WarmStartConfig):
    """What every method reads which samples answers and learns from their rewards."""

    samples: int = Field(1, ge=1, description="answers per prompt, all from one pass over it")
    batch_size: int = Field(16, ge=1, description="prompts sampled per step")
    mini_batch_size: int = Field(16, ge=1, description="prompts per update")
    update_epochs: int = Field(2, ge=1, description="times a batch of rollouts is learned from")
    clip: float = Field(0.2, gt=0, description="clip range of the policy ratio")
    clip_high: float | None = Field(None, gt=0, description="clip range above 1 (unset: clip)")
    stop_kl: float | None = Field(
        0.1, gt=0, description="ends a batch's update at this KL from the sampling policy, nats per token"
    )
    temperature: float = Field(1.0, gt=0, description="temperature of sampling, and of the policy that is trained")
    top_k: int = Field(0, ge=0, description="sample from this many likeliest tokens; 0: no limit")
    top_p: float = Field(
        1.0, gt=0, le=1, description="sample from the likeliest tokens of this total probability; 1: no limit"
    )
    reward: RewardConfig = RewardConfig()

    def is_one_pass(self, rows: int) -> bool:
        """True if all rows of a batch go through the model at once in an update."""
        return rows <= min(self.mini_batch_size, self.micro_batch_size or rows)


class VineConfig(Settings):
    """Values from continuations (arXiv 2410.01679), where ``ppo.values`` asks for them."""

    rollouts: int = Field(4, ge=1, description="continuations from each state; their mean reward is its value")
    steps: int = Field(
        3, ge=0, description="most places inside an analysis from which values are estimated; 0: at its beginning alone"
    )
    split: Literal["sentences", "tokens"] = Field(
        "sentences", description="where these places are: at ends of sentences, or at equal distances (ours)"
    )


class PpoConfig(PolicyGradientConfig):
    """Proximal policy optimisation at token level (arXiv 1707.06347, 1909.08593, 2410.11020)."""

    samples: int = Field(4, ge=1, description="answers per prompt, all from one pass over it")
    values: Literal["auto", "critic", "exact", "vine", "vine-labels"] = Field(
        "auto",
        description="baseline: a learned critic; the exact expected reward over the labels; vine: the mean reward of "
        "continuations from inside an analysis; vine-labels: these with the exact expected reward after their analyses "
        "(ours); auto: exact where the answer is one of the labels, without an analysis, else critic",
    )
    vine: VineConfig = VineConfig()
    gamma: float = Field(1.0, ge=0, le=1, description="discount of later rewards")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    value_clip: float = Field(0.2, gt=0, description="clip range of the value")
    value_coef: float = Field(0.1, ge=0, description="weight of the value loss")
    value_lr: float | None = Field(1e-3, gt=0, description="learning rate of the value head; unset: the policy's")
    whiten_advantages: bool = Field(
        True, description="shift and scale the advantages of a batch to mean 0 and variance 1; never with exact values"
    )
    kl_init: float | None = Field(
        None,
        ge=0,
        description="first KL coefficient, beta; unset: 1 after a warm start or from a run (init), else 0.05: without "
        "them, with an analysis before the judgement, or where the answers are numbers",
    )
    kl_target: float | None = Field(
        6.0, gt=0, description="KL per response in nats that beta steers to; unset: beta is fixed"
    )
    kl_horizon: int = Field(10_000, ge=1, description="prompts over which beta adapts")
    sft_weight: float | None = Field(
        None,
        ge=0,
        description="weight of the right answers' negative log-likelihood in each update (PPO-ptx); unset: 1 after a "
        "warm start or from a run (init), where the answer is one label and pays for being right alone, else 0; not "
        "with an analysis",
    )
    sft_rows: Literal["missed", "all"] = Field(
        "missed",
        description="whose right answers these are: of the rows without a right one among their samples, or of all",
    )


class ReinforceConfig(PolicyGradientConfig):
    """REINFORCE with advantages whitened over the whole batch, without a critic (arXiv 2501.03262)."""

    update_epochs: int = Field(1, ge=1, description="times a batch of rollouts is learned from")
    kl: float = Field(0.05, ge=0, description="weight of the KL to the reference in each token's reward")


class RlooConfig(PolicyGradientConfig):
    """REINFORCE with the mean of a prompt's other answers as the baseline (arXiv 2402.14740)."""

    samples: int = Field(4, ge=2, description="answers per prompt, all from one pass over it")
    update_epochs: int = Field(1, ge=1, description="times a batch of rollouts is learned from")
    kl: float = Field(0.05, ge=0, description="weight of the KL to the reference in each answer's reward")


class GrpoConfig(PolicyGradientConfig):
    """Advantages relative to the prompt's other answers (arXiv 2402.03300), and two variants."""

    variant: Literal["grpo", "dr-grpo", "dapo"] = Field(
        "grpo",
        description="grpo: scaled by each group's deviation, mean per answer; dr-grpo: neither (arXiv 2503.20783); "
        "dapo: mean over tokens, groups of equal rewards dropped (arXiv 2503.14476)",
    )
    samples: int = Field(8, ge=2, description="answers per prompt, all from one pass over it")
    update_epochs: int = Field(1, ge=1, description="times a batch of rollouts is learned from")
    kl: float | None = Field(
        None, ge=0, description="weight of the KL to the reference in the loss; unset: 0.04 for grpo, else 0"
    )


class CritiqueGrpoConfig(PolicyGradientConfig):
    """GRPO with refinements in its groups: answers after a critique of an own one (arXiv 2506.03106)."""

    samples: int = Field(7, ge=2, description="answers per prompt")
    update_epochs: int = Field(1, ge=1, description="times a batch of rollouts is learned from")
    critique: Literal["simple", "quote", "gold"] = Field(
        "simple",
        description="what an answer is told: correct or incorrect; the same with the answer quoted (ours); the same "
        "with the right answer (grpo+gold)",
    )
    kept: int = Field(
        1, ge=0, description="refinements per prompt that join its group, right ones first; 0: none are sampled"
    )
    shaping: float = Field(0.1, gt=0, description="probability of a refinement's token at which it teaches most")
    kl: float = Field(0.0, ge=0, description="weight of the KL to the reference in the loss")


class ExactConfig(PolicyGradientConfig):
    """The exact policy gradient: the expected reward over all labels (arXiv 1706.05374)."""

    transform: Literal["p", "arcsin", "log"] = Field(
        "p", description="what is raised: the expected reward, or arcsin of the root or log of the labels' probability"
    )
    kl: float = Field(
        0.05, ge=0, description="weight of the exact KL to the reference, over the labels; 0 saves its pass"
    )
