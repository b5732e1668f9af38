"""The settings of each method: one small class per method, and one field in `MethodSettings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adjudge.config.base import Settings
from adjudge.config.comparing import GiveConfig, PrpConfig
from adjudge.config.groups import EmbeddingConfig, OptimizerConfig
from adjudge.config.loops import LoopConfig
from adjudge.config.policy_gradient import (
    CritiqueGrpoConfig,
    ExactConfig,
    GrpoConfig,
    PpoConfig,
    ReinforceConfig,
    RlooConfig,
)
from adjudge.config.preference import DpoConfig, SpinConfig, SppoConfig, TdpoConfig
from adjudge.config.prompting import BpoConfig, GepaConfig, GepaEditsConfig, IipConfig


class TemporalEnsemblingConfig(Settings):
    """For labels that may be wrong: learn from own predictions, averaged over time (arXiv 2202.04538)."""

    every: int | None = Field(
        None, ge=1, description="steps between two predictions of all training rows; unset: no ensembling; paper: 100"
    )
    momentum: float = Field(
        0.8, ge=0, lt=1, description="share of the earlier predictions in the mean, at each new prediction"
    )
    threshold: float = Field(
        0.8, ge=0, lt=1, description="a row is learned from while its label's mean probability is above; 0: always"
    )
    kl: float = Field(10.0, ge=0, description="weight of KL(mean prediction || prediction), once it has risen")
    ramp: int = Field(10, ge=1, description="predictions over which this weight rises")


class SftConfig(LoopConfig):
    """Supervised fine-tuning on prompt and answer."""

    epochs: int = Field(2, ge=1, description="passes over the training rows")
    micro_batch_size: int | None = Field(None, ge=1, description="rows in one pass; gradients accumulate to a batch")
    loss: Literal["answer", "sequence"] = Field(
        "answer", description="tokens that count: the answer's, or prompt and answer"
    )
    class_weight: Literal["balanced"] | None = Field(
        None, description="balanced: a row's loss counts training rows / (labels * training rows of its label) times"
    )
    minor_beta: float | None = Field(
        None,
        ge=0,
        description="MinorSFT (arXiv 2408.10642): a row counts less once its answer is likelier than before training; "
        "0: SFT; unset: SFT, with its deviation measured in every tenth step only",
    )
    label_smoothing: float = Field(
        0.0, ge=0, lt=1, description="share of a row's target that all labels get alike, for labels that may be wrong"
    )
    temporal_ensembling: TemporalEnsemblingConfig = TemporalEnsemblingConfig()
    optimizer: OptimizerConfig = OptimizerConfig(lr=3e-4)


class SwieConfig(EmbeddingConfig, LoopConfig):
    """Supervised fine-tuning with instruction embeddings (arXiv 2308.12674)."""

    epochs: int = Field(2, ge=1, description="passes over the training rows")
    micro_batch_size: int | None = Field(None, ge=1, description="rows in one pass; gradients accumulate to a batch")
    class_weight: Literal["balanced"] | None = Field(
        None, description="balanced: a row's loss counts training rows / (labels * training rows of its label) times"
    )
    optimizer: OptimizerConfig = OptimizerConfig(lr=3e-4)

    @property
    def embeddings(self) -> EmbeddingConfig:
        """Return the settings of the embeddings alone."""
        return EmbeddingConfig(**{name: getattr(self, name) for name in EmbeddingConfig.model_fields})


class RewardModelConfig(LoopConfig):
    """A reward model: LoRA layers and a scalar head, learned from pairs of answers (arXiv 2405.19763)."""

    epochs: int = Field(2, ge=1, description="passes over the training rows")
    micro_batch_size: int | None = Field(None, ge=1, description="rows in one pass; gradients accumulate to a batch")
    pairs: Literal["label", "rationale"] = Field(
        "label",
        description="label: the right label against wrong ones; rationale, with prompt.analysis=before: two right "
        "answers, the one whose analysis makes the right label likelier against the other",
    )
    samples: int = Field(4, ge=1, description="answers sampled per row to make pairs of, with prompt.analysis=before")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share of the training rows that are kept from training, to measure its pairs on"
    )
    class_weight: Literal["balanced"] | None = Field(
        "balanced",
        description="balanced: a row's pairs count training rows / (labels * training rows of its label) times, so "
        "that the frequent label earns nothing for being frequent",
    )
    head_lr: float = Field(1e-3, gt=0, description="peak learning rate of the scalar head")
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-4)


class HeadConfig(LoopConfig):
    """LoRA layers and a classification head on the policy, or a regression head for numbers."""

    epochs: int = Field(2, ge=1, description="passes over the training rows")
    micro_batch_size: int | None = Field(None, ge=1, description="rows in one pass; gradients accumulate to a batch")
    class_weight: Literal["balanced"] | None = Field(
        None, description="balanced: a row's loss counts training rows / (labels * training rows of its label) times"
    )
    head_lr: float = Field(1e-3, gt=0, description="peak learning rate of the head")
    optimizer: OptimizerConfig = OptimizerConfig(lr=3e-4)


class AdapterConfig(Settings):
    """A LoRA adapter that was trained elsewhere."""

    folder: str | None = Field(
        None, description="folder with adapter_config.json and adapter_model.safetensors, as peft and trl save them"
    )


class FloorConfig(Settings):
    """What the floors read: logistic regression on features that are not trained."""

    c: float | None = Field(
        None, gt=0, description="inverse of the regularisation; unset: the best on held-out training rows"
    )


class TfidfConfig(FloorConfig):
    """Logistic regression on tf-idf weights of words (ridge regression for numbers)."""

    ngrams: int = Field(2, ge=1, le=5, description="longest run of words that counts as one feature")


class LinearConfig(FloorConfig):
    """Logistic regression on the vectors of a frozen encoder or policy (ridge regression for numbers)."""

    states: Literal["encoder", "policy", "both"] = Field(
        "encoder",
        description="vectors of the encoder linear.model, the policy's state at the end of the row's prompt, "
        "or a regression on each and their mean",
    )
    layer: Annotated[int, Field(ge=1)] | Literal["middle"] | None = Field(
        None,
        description="the layer whose states are the policy's, from 1; middle: three fifths of all layers; "
        "unset: the last one's, from which it answers",
    )
    model: str = Field("minilm-l6", description="encoder id or folder")
    max_tokens: int = Field(256, ge=8, description="longest text; the rest is cut off")


class SetfitConfig(Settings):
    """SetFit (arXiv 2209.11055): an encoder tuned on pairs of texts, and a logistic regression."""

    model: str = Field("minilm-l6", description="encoder id or folder")
    max_tokens: int = Field(256, ge=8, description="longest text; the rest is cut off")
    iterations: int = Field(20, ge=1, description="pairs per row, of one label and again of two labels")
    epochs: int = Field(1, ge=1, description="passes over the pairs")
    batch_size: int = Field(16, ge=1, description="pairs per step")
    max_steps: int | None = Field(None, ge=1, description="most steps, which many rows would exceed; unset: no limit")
    lr: float = Field(2e-5, gt=0, description="peak learning rate of the encoder")


class EncoderConfig(LoopConfig):
    """A fine-tuned encoder with a classification or regression head: the baseline to beat."""

    model: str = Field("minilm-l6", description="encoder id or folder")
    epochs: int = Field(3, ge=1, description="passes over the training rows")
    min_steps: int = Field(100, ge=0, description="fewest steps: a small file gets more passes; 0: epochs alone decide")
    max_tokens: int = Field(256, ge=8, description="longest row; the longer text is shortened first")
    class_weight: Literal["balanced"] | None = Field(
        None, description="balanced: a row's loss counts training rows / (labels * training rows of its label) times"
    )
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-4, weight_decay=0.01)


def own_group(method: str) -> str:
    """Return the group of settings that belongs to one method: ``critique_grpo``."""
    return method.replace("-", "_")


class MethodSettings(Settings):
    """One group of settings per method, under its name (`own_group`)."""

    sft: SftConfig = SftConfig()
    ppo: PpoConfig = PpoConfig()
    reinforce: ReinforceConfig = ReinforceConfig()
    rloo: RlooConfig = RlooConfig()
    grpo: GrpoConfig = GrpoConfig()
    critique_grpo: CritiqueGrpoConfig = CritiqueGrpoConfig()
    exact: ExactConfig = ExactConfig()
    dpo: DpoConfig = DpoConfig()
    tdpo: TdpoConfig = TdpoConfig()
    spin: SpinConfig = SpinConfig()
    sppo: SppoConfig = SppoConfig()
    swie: SwieConfig = SwieConfig()
    reward_model: RewardModelConfig = RewardModelConfig()
    head: HeadConfig = HeadConfig()
    bpo: BpoConfig = BpoConfig()
    gepa: GepaConfig = GepaConfig()
    gepa_edits: GepaEditsConfig = GepaEditsConfig()
    prp: PrpConfig = PrpConfig()
    give: GiveConfig = GiveConfig()
    iip: IipConfig = IipConfig()
    adapter: AdapterConfig = AdapterConfig()
    tfidf: TfidfConfig = TfidfConfig()
    linear: LinearConfig = LinearConfig()
    setfit: SetfitConfig = SetfitConfig()
    encoder: EncoderConfig = EncoderConfig()
