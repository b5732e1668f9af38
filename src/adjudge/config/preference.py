"""The settings of the methods that learn from pairs of answers, or from their own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from adjudge.config.loops import WarmStartConfig


class PreferenceConfig(WarmStartConfig):
    """What the methods read which learn from pairs: the right answer against a wrong one."""

    beta: float = Field(
        1.0,
        gt=0,
        description="how much a nat of log-ratio to the reference counts; the papers' 0.1 hardly saturates on labels",
    )


_PAIRS = (
    "the right answer against the reference's likeliest wrong label, against an answer sampled from the reference, or "
    "against each wrong label"
)


class DpoConfig(PreferenceConfig):
    """Direct preference optimisation on pairs of answers (arXiv 2305.18290)."""

    loss: Literal["dpo", "minor-dpo"] = Field(
        "dpo",
        description="minor-dpo: a wrong answer is pushed down only while it is likelier than under the reference "
        "(after arXiv 2408.09834)",
    )
    pairs: Literal["hardest", "sampled", "all"] = Field("hardest", description=_PAIRS)
    sft_weight: float = Field(0.0, ge=0, description="weight of the right answer's negative log-likelihood in the loss")


class TdpoConfig(PreferenceConfig):
    """Token-level DPO: DPO with the KL to the reference at each token (arXiv 2404.11999)."""

    variant: Literal["tdpo1", "tdpo2"] = Field(
        "tdpo2", description="tdpo1: both answers' KLs with gradient; tdpo2: the wrong answer's only, weighted by alpha"
    )
    alpha: float = Field(0.5, ge=0, description="weight of the KLs in tdpo2; 0: DPO")
    pairs: Literal["hardest", "sampled", "all"] = Field("hardest", description=_PAIRS)


class SpinConfig(PreferenceConfig):
    """Self-play: the right answer against the model's own of an iteration ago (arXiv 2401.01335)."""

    iterations: int = Field(
        2, ge=1, description="times the policy becomes the reference and the opponent, at equal numbers of steps"
    )
    answers: Literal["sampled", "labels"] = Field(
        "sampled",
        description="the opponent's answers: one sampled per prompt, or every label by its probability (ours)",
    )
    mix_previous: bool = Field(
        True, description="with sampled answers: learn from those of the iteration before as well"
    )


class SppoConfig(WarmStartConfig):
    """Self-play preference optimisation: regress log-ratios on win rates (arXiv 2405.00675)."""

    eta: float = Field(
        2.0, gt=0, description="nats by which an answer that always wins is to become likelier than one that never does"
    )
    iterations: int = Field(
        3, ge=1, description="times the policy becomes the reference and the opponent, at equal numbers of steps"
    )
    answers: Literal["sampled", "labels"] = Field(
        "sampled",
        description="the best and the worst of some sampled answers, or every label by its probability (ours)",
    )
    samples: int = Field(5, ge=2, description="sampled answers per prompt, of which the best and the worst are taught")
    log_z: Literal["half", "exact"] = Field(
        "half", description="the normaliser's logarithm: eta / 2, as in the paper, or exact (answers=labels only)"
    )
