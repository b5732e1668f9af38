"""The settings of each method: one small class per method, and one field in `MethodSettings`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from adjudge.config.comparing import GiveConfig, PrpConfig
from adjudge.config.groups import EmbeddingConfig, OptimizerConfig, Settings
from adjudge.config.rewards import RewardConfig


class LoopConfig(Settings):
    """What the outer loop of every training method reads."""

    epochs: int = Field(1, ge=1, description="passes over the training rows")
    min_steps: int = Field(50, ge=0, description="fewest steps: a small file gets more passes; 0: epochs alone decide")
    batch_size: int = Field(16, ge=1, description="rows per step")
    optimizer: OptimizerConfig = OptimizerConfig()

    def passes(self, steps: int) -> int:
        """Return the passes over rows that make this number of steps per pass."""
        return max(self.epochs, -(-self.min_steps // max(1, steps)))


class WarmStartConfig(LoopConfig):
    """What every method reads which first fine-tunes on the right answers, and then learns in its own way."""

    epochs: int = Field(2, ge=1, description="passes over the training rows, the warm start's included")
    warm_start: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of the steps that first fine-tune on the right answers, which makes the reference; "
        "0: none; runs with init or prompt.analysis=before have none",
    )
    warm_start_limit: float = Field(
        0.75,
        ge=0,
        lt=1,
        description="share of the steps up to which the warm start goes on where its answers are not yet better than "
        "one answer for all rows; 0: it never does",
    )
    warm_start_lr: float = Field(3e-4, ge=0, description="peak learning rate of the warm start")
    micro_batch_size: int | None = Field(None, ge=1, description="prompts in one pass; gradients accumulate")
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-4)


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


class TemporalEnsemblingConfig(Settings):
    """For labels that may be wrong: learn from the run's own predictions, averaged over time (arXiv 2202.04538)."""

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
        "them, or with an analysis before the judgement",
    )
    kl_target: float | None = Field(
        6.0, gt=0, description="KL per response in nats that beta steers to; unset: beta is fixed"
    )
    kl_horizon: int = Field(10_000, ge=1, description="prompts over which beta adapts")
    sft_weight: float = Field(
        0.0,
        ge=0,
        description="weight of the right answers' negative log-likelihood in each update (PPO-ptx); not with "
        "an analysis",
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
    """GRPO whose groups are joined by refinements: answers after a critique of an own one (arXiv 2506.03106)."""

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


class PromptSearchConfig(Settings):
    """What the methods read which search an instruction: they choose it on held-out training rows."""

    validation_rows: int = Field(
        48, ge=1, description="training rows that candidates are compared on, at most half of them; the rest is shown"
    )
    score: Literal["auto", "probability", "right"] = Field(
        "auto",
        description="score of a judged row: the right label's probability, or 1 for a right answer and 0 for another; "
        "auto: the first where the model gives probabilities. Numbers: 1 - error / range. Unreadable: 0",
    )


class BpoConfig(PromptSearchConfig):
    """The instruction rewritten from right and wrong answers, after BPO (arXiv 2311.04155)."""

    rewrites: int = Field(4, ge=0, description="rewritten instructions that the writer draws; 0: none, as zero-shot")
    pairs: int = Field(4, ge=1, description="wrong answers that the writer is shown, each beside the right one")
    select: Literal["best", "first"] = Field(
        "best",
        description="best: the highest score on held-out training rows, the original among them; first: the first "
        "rewrite that can be used, unscored",
    )
    texts: tuple[str, ...] = Field((), description="rewritten instructions of your own; given: no model writes any")


class GepaConfig(PromptSearchConfig):
    """Reflective prompt evolution (arXiv 2507.19457)."""

    calls: int = Field(600, ge=1, description="rows that may be judged in the search; ends within one step after it")
    minibatch: int = Field(3, ge=1, description="training rows that a new instruction is written from and tried on")


class GepaEditsConfig(GepaConfig):
    """GEPA's search with scripted edits in place of reflection."""


class AdapterConfig(Settings):
    """A LoRA adapter that was trained elsewhere."""

    folder: str | None = Field(
        None, description="folder with adapter_config.json and adapter_model.safetensors, as peft and trl save them"
    )


class IipConfig(Settings):
    """Steps before each judgement: a program's lines, or questions (arXiv 2410.06667)."""

    lines: str | None = Field(None, description="field of a row that is given line by line; unset: the task's")
    steps: tuple[str, ...] | None = Field(
        None, description="questions that are answered before the judgement, one by one; unset: the task's procedure"
    )
    max_tokens: int = Field(32, ge=1, description="longest answer to a step")


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
