"""Groups of settings that several methods share."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from adjudge.config.base import Settings, split_names
from adjudge.config.machine import RuntimeConfig, TrackingConfig

_MIXTURE = re.compile(r"proportional|equal|temperature=[1-9]\d*(\.\d+)?|rows=[1-9]\d*(,[1-9]\d*)+")


class DataConfig(Settings):
    """Which rows: where they lie and how many are used."""

    data_dir: str | None = Field(None, description="folder with GLUE or SuperGLUE in the official download layout")
    train_rows: int | None = Field(
        None, ge=1, description="training rows drawn by the seed, of a mixture's tasks together; all when unset"
    )
    shots: int | None = Field(
        None, ge=1, description="few rows: this many training rows of each label, drawn by the seed, per task"
    )
    mixture: str | None = Field(
        None,
        description="several tasks: proportional, equal, temperature=T, or rows=A,B (of each task); "
        "unset: proportional, in a comparison equal",
    )
    eval_rows: int | None = Field(
        None, ge=1, description="rows judged, drawn once for all seeds and methods; all when unset"
    )
    split: str = Field("dev", description="the split that is judged")
    folds: int | None = Field(
        None, ge=2, description="cross-validation: folds of the rows, each judged by a run that learns from the others"
    )
    fold: int | None = Field(None, ge=1, description="the fold that this run judges, from 1; `compare` sets it")
    hold_out: int | None = Field(
        None,
        ge=1,
        description="judge this many training rows, kept from training, in place of the split: to choose settings on",
    )
    sampling: Literal["all", "balanced"] = Field(
        "all",
        description="training rows of an epoch: all, each once; balanced: as many, every label equally often "
        "(rows of rare labels repeat, rows of frequent ones are drawn anew)",
    )
    bad_rows: Literal["error", "drop"] = Field(
        "error",
        description="rows of your own table that cannot be read: error stops at the first; "
        "drop lists them and goes on without them",
    )
    slices: tuple[str, ...] = Field(
        (),
        description="columns of the rows, such as topic, whose values are also scored apart; "
        "several columns with commas, several values in a cell with |",
    )
    drop_overlap: bool = Field(False, description="drop the training rows whose texts are in the judged split too")

    @field_validator("slices", mode="before")
    @classmethod
    def _listed(cls, slices: Any) -> Any:
        return split_names(slices)

    @field_validator("mixture")
    @classmethod
    def _known(cls, mixture: str | None) -> str | None:
        if mixture is not None and not _MIXTURE.fullmatch(mixture):
            raise ValueError("write proportional, equal, temperature=T with a T from 1, or rows=A,B")
        return mixture

    @field_validator("shots")
    @classmethod
    def _in_place_of_a_number(cls, shots: int | None, info: ValidationInfo) -> int | None:
        if shots is not None and info.data.get("train_rows") is not None:
            raise ValueError("it counts rows of each label, so data.train_rows (--train-rows) cannot go with it")
        return shots

    @field_validator("folds")
    @classmethod
    def _alone(cls, folds: int | None, info: ValidationInfo) -> int | None:
        if folds is not None and info.data.get("eval_rows") is not None:
            raise ValueError("folds judge every row once, so data.eval_rows (--eval-rows) cannot go with them")
        if folds is not None and info.data.get("split", "dev") != "dev":
            raise ValueError("folds are made of the training rows, so data.split (--split) cannot go with them")
        return folds

    @field_validator("hold_out")
    @classmethod
    def _in_place_of_the_split(cls, rows: int | None, info: ValidationInfo) -> int | None:
        others = ("folds", "--folds"), ("eval_rows", "--eval-rows")
        given = [f"data.{name} ({option})" for name, option in others if info.data.get(name) is not None]
        given += ["data.split (--split)"] if info.data.get("split", "dev") != "dev" else []
        if rows is not None and given:
            raise ValueError(f"held-out training rows are judged, so {given[0]} cannot go with it")
        return rows

    @field_validator("fold")
    @classmethod
    def _among_folds(cls, fold: int | None, info: ValidationInfo) -> int | None:
        if fold is not None and "folds" in info.data and not fold <= (info.data["folds"] or 0):
            of = info.data["folds"]
            raise ValueError(f"there are {of} folds: give one of 1 to {of}" if of else "give data.folds=K too")
        return fold


class PromptConfig(Settings):
    """How a row becomes a prompt."""

    style: Literal["chat", "paper"] = Field("chat", description="the model's chat template, or the paper's plain form")
    analysis: Literal[False, True, "before"] = Field(
        False, description="true: the model explains its judgement afterwards; before: it writes an analysis first"
    )
    demonstrations: int = Field(5, ge=0, description="worked examples in a few-shot prompt")
    demonstration_choice: Literal["balanced", "random", "nearest", "first"] = Field(
        "balanced", description="balanced over labels, random, the nearest to each judged row, or the first rows"
    )
    demonstration_tokens: int = Field(
        96, ge=8, description="longest input of a demonstration; its longest field is shortened"
    )
    demonstration_orders: int = Field(
        1, ge=1, description="orders of the demonstrations; a row is asked with each, and label probabilities averaged"
    )
    prior: Literal["none", "content-free", "training-rows"] = Field(
        "training-rows",
        description="few-shot divides label probabilities by: nothing, their mean over inputs without content, or "
        "their mean over training rows",
    )
    prior_rows: int = Field(
        32, ge=1, description="most training rows of prompt.prior=training-rows; their gold answers are not read"
    )
    explanations: Literal["none", "file", "zero-shot", "few-shot"] | None = Field(
        None,
        description="explanations of the demonstrations: none, of the file's own examples (file), or written by a "
        "model, without or after these; unset: few-shot, and zero-shot for a task without such examples",
    )
    explanations_file: str | None = Field(
        None, description="YAML file of explained examples; unset: those that come with adjudge for the task"
    )
    explanations_sha256: str | None = Field(None, description="hash of that file; a run records it")
    explanation_control: Literal["none", "another", "empty"] = Field(
        "none", description="control: each demonstration has another one's explanation (another), or none in its place"
    )
    max_tokens: int = Field(1024, ge=16, description="longest prompt; the longest field is shortened to fit")
    truncation: Literal["end", "start", "middle"] = Field(
        "end",
        description="where a text that is too long is cut: its end, its start, or its middle, between both ends",
    )
    template_options: dict[str, bool | int | float | str] = Field(
        {}, description="options of the model's chat template, such as {enable_thinking: false}"
    )
    date: datetime.date | None = Field(
        None, description="date for a chat template that writes one; unset: the day on which the run started (UTC)"
    )


class AnswerConfig(Settings):
    """Where an answer ends. What training teaches and evaluation reads are the same thing."""

    stop: Literal["line", "tag"] = Field(
        "line", description="line: closing tag, line end, end of turn or token limit; tag: only </Judgement> ends it"
    )
    max_tokens: int | None = Field(None, ge=1, description="longest answer; unset: the longest label and its end")
    min_tokens: int | None = Field(
        None, ge=1, description="sampling limit drawn from min..max per response; unset: always max"
    )
    analysis_tokens: int = Field(96, ge=1, description="longest analysis, where prompt.analysis asks for one")


class LoraConfig(Settings):
    """The trained layers. Biases stay: the reference is the same network with the adapters off."""

    r: int = Field(16, ge=1, description="rank")
    alpha: float = Field(32, gt=0, description="scale: alpha / sqrt(r) when rank-stabilised, else alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="adapter dropout while SFT trains; PPO always runs without")
    rank_stabilised: bool = Field(True, description="scale by sqrt(r) (arXiv 2312.03732)")
    targets: tuple[str, ...] | None = Field(
        None, description="module names; unset: all linear layers of a known family"
    )


class EmbeddingConfig(Settings):
    """Instruction embeddings, added at some layers to the tokens after the instruction (arXiv 2308.12674)."""

    strength: float = Field(1.0, ge=0, description="how much is added, alpha; 0: nothing, which is SFT")
    layers: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, min_length=1, description="layers, counted from 0, before which it is added; unset: the middle third"
    )
    weights: Literal["sin", "linear"] = Field(
        "sin",
        description="weight of the i-th token of the input (of n) or of the answer: sin(pi i / n), or i / n",
    )
    pool: Literal["max", "mean", "last"] = Field(
        "max", description="how the instruction's tokens become one vector: their largest, their mean, or the last"
    )
    width: int = Field(32, ge=1, le=2**16, description="inner width of the layers that read the instruction")


class OptimizerConfig(Settings):
    """One optimizer with one schedule."""

    name: Literal["adamw", "adafactor"] = Field("adamw", description="adamw, or adafactor with a fixed step")
    lr: float = Field(3e-4, ge=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    warmup_share: float = Field(
        0.1,
        ge=0,
        lt=1,
        description="share of the updates with a rising rate, at least 6 (half of fewer than 12); 0: none",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="after the warm-up: linear or cosine down to zero, or constant"
    )
    max_grad_norm: float | None = Field(1.0, gt=0, description="gradients are scaled down to this norm; unset: never")


class EvaluationConfig(Settings):
    """How answers are obtained and how sure the figures are."""

    decode: Literal["greedy", "labels", "mean"] = Field(
        "greedy",
        description="read a generated answer; labels: take the likeliest label, and read numbers; mean: the same, and "
        "a number is the mean of all that can be answered, weighed by their probabilities (arXiv 2403.04182)",
    )
    long_texts: Literal["cut", "mean", "max"] = Field(
        "cut",
        description="rows that are too long for prompt.max_tokens: cut, or judged in pieces; the label is then the "
        "likeliest by their mean probabilities (mean) or by those of the surest piece (max), and a number their mean",
    )
    batch_size: int = Field(32, ge=1, description="rows judged in one pass")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples and permutations")

    @property
    def weighs_labels(self) -> bool:
        """True if a label task is answered with its likeliest label."""
        return self.decode != "greedy"


class CalibrationConfig(Settings):
    """How the probabilities of a trained judge are made believable."""

    rows: int = Field(
        0,
        ge=0,
        description="training rows per task that are kept from training, to fit the temperature of its probabilities: "
        "rows that data.train_rows leaves over, else some of the training rows; 0: no calibration",
    )


class CheckpointConfig(Settings):
    """What a run that is training leaves behind, so that it can be taken up again."""

    every_s: float | None = Field(120.0, gt=0, description="seconds between two checkpoints; unset: not by time")
    every_steps: int | None = Field(None, ge=1, description="steps between two checkpoints; unset: not by steps")
    keep: int = Field(2, ge=1, description="newest checkpoints that are kept until the run is complete")
    validate_every: int | None = Field(
        None, ge=1, description="steps between two judgings of held-out training rows; unset: never"
    )
    validation_rows: int = Field(
        64, ge=2, description="training rows per task that are held out, taken from `data.train_rows`"
    )
    use: Literal["last", "best"] = Field(
        "last", description="weights the run ends with: the last, or the best of these judgings"
    )


class GuardConfig(Settings):
    """What PPO warns of, or stops at."""

    max_kl: float | None = Field(
        10.0, gt=0, description="largest mean KL to the reference of a batch, nats per answer; unset: any"
    )
    one_label_share: float = Field(0.95, gt=0, lt=1, description="largest share of one label in the last 128 answers")
    unreadable_share: float = Field(0.5, ge=0, lt=1, description="largest share of unreadable answers in the last 128")
    right_fall: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="with a learned reward: largest fall of the share of right answers, from its best, while that "
        "reward is higher than then; over 128 answers",
    )
    stop_on: tuple[Literal["kl", "one_label", "unreadable", "score"], ...] = Field(
        (),
        description="causes that stop the run, with a checkpoint, instead of a warning: kl, one_label, unreadable, "
        "score (see right_fall)",
    )


class SharedSettings(Settings):
    """What every method may read: what to run, and the groups above."""

    method: str = Field("ppo", description="name of the method")
    task: str = Field("vader/movies", description="name or file of the task; several with commas")
    model: str = Field(
        "smollm2-135m",
        description="causal language model: bundled name, folder, id on the hub, or api:NAME behind an API",
    )
    seed: int = Field(0, ge=0, description="seed of everything random")
    preset: Literal["default", "paper"] = Field(
        "default", description="our settings, or the constants of arXiv 2410.11020"
    )
    init: str | None = Field(None, description="run folder to start from; its adapter is then the reference too")
    data: DataConfig = DataConfig()
    prompt: PromptConfig = PromptConfig()
    answer: AnswerConfig = AnswerConfig()
    lora: LoraConfig = LoraConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    calibration: CalibrationConfig = CalibrationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    tracking: TrackingConfig = TrackingConfig()
