"""Every setting of a run, as one frozen tree: defaults, presets, a YAML file, then ``key=value`` overrides.

The default preset is ours; ``--preset paper`` gives the constants of arXiv 2410.11020 (presets/paper.yaml).
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from adjudge.errors import ConfigError, nearest

PRESETS = ("default", "paper")

_MIXTURE = re.compile(r"proportional|equal|temperature=[1-9]\d*(\.\d+)?")


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, coerce_numbers_to_str=True)


class DataConfig(_Settings):
    """Which rows: where they lie and how many are used."""

    data_dir: str | None = Field(None, description="folder with GLUE in the official download layout")
    train_rows: int | None = Field(
        None, ge=1, description="training rows drawn by the seed, of a mixture's tasks together; all when unset"
    )
    mixture: str | None = Field(
        None, description="several tasks: proportional (unset), equal or temperature=T; a comparison's unset is equal"
    )
    eval_rows: int | None = Field(None, ge=1, description="rows judged, drawn once for all seeds and methods; all when unset")
    split: str = Field("dev", description="the split that is judged")
    drop_overlap: bool = Field(False, description="leave out the training rows whose texts are in the judged split too")

    @field_validator("mixture")
    @classmethod
    def _known(cls, mixture: str | None) -> str | None:
        if mixture is not None and not _MIXTURE.fullmatch(mixture):
            raise ValueError("write proportional, equal, or temperature=T with a T from 1")
        return mixture


class PromptConfig(_Settings):
    """How a row becomes a prompt."""

    style: Literal["chat", "paper"] = Field("chat", description="the model's chat template, or the reference's plain form")
    analysis: Literal[False, True, "before"] = Field(
        False, description="true: the model explains its judgement afterwards; before: it writes an analysis first"
    )
    demonstrations: int = Field(5, ge=0, description="worked examples in a few-shot prompt")
    demonstration_choice: Literal["balanced", "first"] = Field("balanced", description="balanced over labels, or the first rows")
    demonstration_tokens: int = Field(96, ge=8, description="longest input of a demonstration; its longest field is shortened")
    max_tokens: int = Field(1024, ge=16, description="longest prompt; the longest field is shortened to fit")


class AnswerConfig(_Settings):
    """Where an answer ends. What training teaches and evaluation reads are the same thing."""

    stop: Literal["line", "tag"] = Field(
        "line", description="line: closing tag, line end, end of turn or token limit; tag: only </Judgement> ends it"
    )
    max_tokens: int | None = Field(None, ge=1, description="longest answer; unset: the longest label and its end")
    min_tokens: int | None = Field(None, ge=1, description="sampling limit drawn from min..max per response; unset: always max")
    analysis_tokens: int = Field(96, ge=1, description="longest analysis, where prompt.analysis asks for one")


class LoraConfig(_Settings):
    """The trained layers. Biases are never trained: the reference is the same network with the adapters off."""

    r: int = Field(16, ge=1, description="rank")
    alpha: float = Field(32, gt=0, description="scale: alpha / sqrt(r) when rank-stabilised, else alpha / r")
    dropout: float = Field(0.0, ge=0, lt=1, description="adapter dropout while SFT trains; PPO always runs without")
    rank_stabilised: bool = Field(True, description="scale by sqrt(r) (arXiv 2312.03732)")
    targets: tuple[str, ...] | None = Field(None, description="module names; unset: all linear layers of a known family")


class OptimizerConfig(_Settings):
    """One optimizer with one schedule."""

    name: Literal["adamw", "adafactor"] = "adamw"
    lr: float = Field(3e-4, ge=0, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0)
    warmup_share: float = Field(
        0.1, ge=0, lt=1, description="share of the updates with a rising rate, at least 6 (half of fewer than 12); 0: none"
    )
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="after the warm-up, down to zero or constant")
    max_grad_norm: float | None = Field(1.0, gt=0, description="gradients are scaled down to this norm; unset: never")


class SftConfig(_Settings):
    """Supervised fine-tuning on prompt and answer."""

    epochs: int = Field(2, ge=1)
    batch_size: int = Field(16, ge=1)
    micro_batch_size: int | None = Field(None, ge=1, description="rows in one pass; gradients accumulate to a batch")
    loss: Literal["answer", "sequence"] = Field("answer", description="tokens that count: the answer's, or prompt and answer")
    optimizer: OptimizerConfig = OptimizerConfig(lr=3e-4)


class RewardConfig(_Settings):
    """The score of a judgement, given once at its end."""

    right: float = 1.0
    wrong: float = -1.0
    unreadable: float = Field(-3.0, description="label tasks; number tasks pay -range/2 for an unreadable answer")


class PpoConfig(_Settings):
    """Proximal policy optimisation at token level (arXiv 1707.06347, 1909.08593, 2410.11020)."""

    init: str | None = Field(None, description="run folder of an SFT run to start from; its adapter is then the reference too")
    epochs: int = Field(1, ge=1, description="times the training rows are gone through")
    batch_size: int = Field(16, ge=1, description="prompts sampled per step")
    mini_batch_size: int = Field(16, ge=1, description="prompts per update")
    micro_batch_size: int | None = Field(None, ge=1, description="prompts in one pass; gradients accumulate")
    update_epochs: int = Field(2, ge=1, description="times a batch of rollouts is learned from")
    gamma: float = Field(1.0, ge=0, le=1, description="discount")
    lam: float = Field(0.95, ge=0, le=1, description="lambda of generalised advantage estimation")
    clip: float = Field(0.2, gt=0, description="clip range of the policy ratio")
    value_clip: float = Field(0.2, gt=0, description="clip range of the value")
    value_coef: float = Field(0.1, ge=0, description="weight of the value loss")
    whiten_advantages: bool = True
    kl_init: float = Field(0.05, ge=0, description="first KL coefficient, beta")
    kl_target: float | None = Field(6.0, gt=0, description="KL per response in nats that beta steers to; unset: beta is fixed")
    kl_horizon: int = Field(10_000, ge=1, description="prompts over which beta adapts")
    stop_kl: float | None = Field(
        0.1, gt=0, description="ends a batch's update at this KL from the sampling policy, nats per token"
    )
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0, description="0: no limit")
    top_p: float = Field(1.0, gt=0, le=1)
    reward: RewardConfig = RewardConfig()
    value_lr: float | None = Field(1e-3, gt=0, description="learning rate of the value head; unset: the policy's")
    optimizer: OptimizerConfig = OptimizerConfig(lr=1e-4)


class EncoderConfig(_Settings):
    """A fine-tuned encoder with a classification or regression head: the baseline to beat."""

    model: str = Field("minilm-l6", description="encoder id or folder")
    epochs: int = Field(3, ge=1)
    batch_size: int = Field(16, ge=1)
    max_tokens: int = Field(256, ge=8)
    optimizer: OptimizerConfig = OptimizerConfig(lr=5e-5, weight_decay=0.01)


class EvaluationConfig(_Settings):
    """How answers are obtained and how sure the figures are."""

    decode: Literal["greedy", "labels"] = Field("greedy", description="read a generated answer, or take the likeliest label")
    batch_size: int = Field(32, ge=1)
    resamples: int = Field(2000, ge=100, description="bootstrap resamples and permutations")


class CheckpointConfig(_Settings):
    """What a run that is training leaves behind, so that it can be taken up again."""

    every_s: float | None = Field(120.0, gt=0, description="seconds between two checkpoints; unset: not by time")
    every_steps: int | None = Field(None, ge=1, description="steps between two checkpoints; unset: not by steps")
    keep: int = Field(2, ge=1, description="newest checkpoints that are kept until the run is complete")
    validate_every: int | None = Field(None, ge=1, description="steps between two judgings of held-out training rows; unset: never")
    validation_rows: int = Field(
        64, ge=2, description="training rows of each task that are held out for it, out of `data.train_rows`"
    )
    use: Literal["last", "best"] = Field("last", description="the weights a run ends with; best: of the best of these judgings")


class GuardConfig(_Settings):
    """What PPO warns of, or stops at."""

    max_kl: float | None = Field(
        10.0, gt=0, description="mean KL to the reference of a batch's answers, nats per answer; unset: any"
    )
    one_label_share: float = Field(0.95, gt=0, lt=1, description="share of one label in the last 128 answers")
    unreadable_share: float = Field(0.5, ge=0, lt=1, description="share of unreadable ones in the last 128 answers")
    stop_on: tuple[Literal["kl", "one_label", "unreadable"], ...] = Field(
        (), description="what stops the run, with a checkpoint, instead of a warning"
    )


class RuntimeConfig(_Settings):
    """The machine."""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="auto: the fastest here")
    quantization: Literal["none", "8bit", "4bit"] = Field("none", description="precision of the fixed weights (needs bitsandbytes)")
    checkpoint_activations: bool = Field(
        False, description="compute activations again in the backward pass: less memory, more time"
    )
    threads: int | None = Field(None, ge=1, description="CPU threads; unset: all cores")
    trust_remote_code: str | None = Field(
        None, description="the very model, as it is named, whose own Python code may run; unset: none"
    )

    @field_validator("trust_remote_code", mode="before")
    @classmethod
    def _by_name(cls, trusted: Any) -> Any:
        if trusted is False:  # as runs wrote it before it was a name
            return None
        if trusted is True:
            raise ValueError("write the name of the model whose code may run, not true")
        return trusted


class Config(_Settings):
    """One run."""

    method: str = "ppo"
    task: str = "vader/movies"
    model: str = "smollm2-135m"
    seed: int = Field(0, ge=0)
    preset: Literal["default", "paper"] = "default"
    data: DataConfig = DataConfig()
    prompt: PromptConfig = PromptConfig()
    answer: AnswerConfig = AnswerConfig()
    lora: LoraConfig = LoraConfig()
    sft: SftConfig = SftConfig()
    ppo: PpoConfig = PpoConfig()
    encoder: EncoderConfig = EncoderConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    guard: GuardConfig = GuardConfig()
    runtime: RuntimeConfig = RuntimeConfig()


def load_config(
    *,
    preset: str = "default",
    file: str | Path | None = None,
    overrides: Iterable[str] = (),
    values: Mapping[str, Any] | None = None,
) -> Config:
    """Build a configuration: preset, then the YAML `file`, then `overrides` (``"ppo.clip=0.1"``), then `values`.

    `values` maps dotted keys to values (the command line's own options); None means "not given".
    A `preset` named in the file or in an override is used when the caller leaves `preset` at its default.
    Raises ConfigError, which names the unknown key and the nearest right one, or the value that does not fit.
    """
    from_file = _read_yaml(Path(file)) if file else {}
    _check_keys(from_file, where=f"{file}: ")
    given = [parse_override(override) for override in overrides]
    given += [(key, value) for key, value in (values or {}).items() if value is not None]
    if preset == "default":
        preset = str(dict(given).get("preset", from_file.get("preset", preset)))
    if preset not in PRESETS:
        raise ConfigError(f"There is no preset '{preset}'.{nearest(preset, PRESETS)}")
    tree: dict[str, Any] = {}
    if preset != "default":
        text = resources.files("adjudge.presets").joinpath(f"{preset}.yaml").read_text(encoding="utf-8")
        _merge(tree, yaml.safe_load(text))
    _merge(tree, from_file)
    for key, value in given:
        _put(tree, key, value)
    tree["preset"] = preset
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Check a nested mapping, whole or in part, against the tree of settings. Raises ConfigError.

    What is left out keeps the default *of its place*: ``encoder.optimizer`` has another rate than ``ppo.optimizer``, and
    naming one key of either must not bring in the defaults of the bare class.
    """
    whole = Config().model_dump()
    _merge(whole, tree)
    try:
        config = Config.model_validate(whole)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item) for item in error.errors())) from None
    trusted = config.runtime.trust_remote_code
    if trusted not in (None, config.model, config.encoder.model):
        raise ConfigError(
            f"runtime.trust_remote_code names '{trusted}', but the model is {config.model} and the encoder {config.encoder.model}: "
            "write the very name of the one whose code may run."
        )
    return config


_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def parse_override(text: str) -> tuple[str, Any]:
    """Split ``"ppo.clip=0.1"`` into key and value; the value is read as YAML. Raises ConfigError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"'{text}' is no setting: write key=value, for example ppo.optimizer.lr=1e-4.")
    try:
        parsed = yaml.safe_load(value) if value.strip() else None
    except yaml.YAMLError:
        raise ConfigError(f"The value in '{text}' is not valid YAML.") from None
    if isinstance(parsed, str) and _EXPONENT.fullmatch(parsed):  # YAML 1.1 reads 1e-4 as text
        parsed = float(parsed)
    return key, parsed


def keys_of(model: type[BaseModel] = Config, prefix: str = "") -> dict[str, str]:
    """Every dotted key with its description, in the order of the tree."""
    found: dict[str, str] = {}
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= keys_of(kind, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = field.description or ""
    return found


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted key. Raises AttributeError when there is no such key."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: a configuration is a mapping of settings, not a {type(tree).__name__}.")
    return tree


def _merge(onto: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(onto.get(key), dict):
            _merge(onto[key], value)
        elif value is None and isinstance(onto.get(key), dict):
            continue  # "ppo:" with nothing below it changes nothing
        else:
            onto[str(key)] = copy.deepcopy(value)


def _check_keys(tree: Mapping[str, Any], *, where: str = "", prefix: str = "") -> None:
    """Refuse a key that is no setting, by its whole dotted name: the nearest right one is then found across groups."""
    known = keys_of()
    for name, value in tree.items():
        dotted = f"{prefix}{name}"
        if dotted in known:
            continue
        if isinstance(value, Mapping) and value:
            _check_keys(value, where=where, prefix=f"{dotted}.")
        elif not any(key.startswith(f"{dotted}.") for key in known):
            raise ConfigError(f"{where}'{dotted}' is no setting.{_nearest_key(dotted)}")


def _nearest_key(wrong: str) -> str:
    """The nearest setting; the last part alone counts too, so that ``lr`` finds ``sft.optimizer.lr`` and its like."""
    keys = list(keys_of())
    same_end = [key for key in keys if key.rpartition(".")[2] == wrong.rpartition(".")[2]]
    close = difflib.get_close_matches(wrong, keys, n=1, cutoff=0.6)
    if close:
        return f" Did you mean '{close[0]}'?"
    if same_end:
        return f" Did you mean one of: {', '.join(same_end)}?"
    return " `adjudge settings` lists every one."


def _put(tree: dict[str, Any], dotted: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        _check_keys({dotted: value})
    *parents, last = dotted.split(".")
    for parent in parents:
        below = tree.setdefault(parent, {})
        if not isinstance(below, dict):
            raise ConfigError(f"'{dotted}' cannot be set: '{parent}' was given as a single value.")
        tree = below
    tree[last] = value


def _explain(item: Any) -> str:
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"'{key}' is no setting.{_nearest_key(key)}"
    if item["type"] == "model_type":
        return f"'{key}' is a group of settings, not one: write {key}.NAME=value."
    return f"'{key}' = {item['input']!r}: {item['msg']}."
