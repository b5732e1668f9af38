"""The methods by name. Names and summaries are here so that listing them imports no torch; each method loads when asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adjudge.config import Config, value_of
from adjudge.errors import ConfigError, nearest

if TYPE_CHECKING:
    from adjudge.methods.base import Method


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a method lives, what it needs, and which groups of settings it reads."""

    name: str
    summary: str
    source: str
    """The paper it is from."""
    trains: bool
    rows: Literal["none", "demonstrations", "all"]
    """What it learns from: no training rows, the demonstrations in its prompt, or every training row given."""
    settings: tuple[str, ...]
    """Groups of `Config` it reads, beside ``data``, ``evaluation`` and ``runtime``."""
    model: str
    """The setting that names its model; empty when it needs none."""
    module: str
    attribute: str
    mixes: bool = False
    """Whether it can train one adapter on several tasks; the method is then called ``multi-NAME``."""
    trains_adapter: bool = False
    """Whether it trains LoRA layers."""
    starts: bool = False
    """Whether it can start from the adapter of a finished run (``init``)."""

    def load(self) -> Method:
        """Import the method (and with it torch)."""
        from adjudge.methods.base import Method

        method = getattr(importlib.import_module(self.module), self.attribute)
        if not isinstance(method, Method):
            raise TypeError(f"{self.module}.{self.attribute} is no Method")
        return method


PAPER = "arXiv 2410.11020"

METHODS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "zero-shot",
            "the untrained model, asked",
            PAPER,
            trains=False,
            rows="none",
            settings=("prompt", "answer"),
            model="model",
            module="adjudge.methods.prompting",
            attribute="ZERO_SHOT",
        ),
        Entry(
            "few-shot",
            "the untrained model, shown worked examples and asked",
            PAPER,
            trains=False,
            rows="demonstrations",
            settings=("prompt", "answer"),
            model="model",
            module="adjudge.methods.prompting",
            attribute="FEW_SHOT",
        ),
        Entry(
            "sft",
            "LoRA layers trained on the right answers (supervised fine-tuning)",
            PAPER,
            trains=True,
            rows="all",
            settings=("prompt", "answer", "lora", "sft", "checkpoint"),
            model="model",
            module="adjudge.methods.sft",
            attribute="SFT",
            mixes=True,
            trains_adapter=True,
        ),
        Entry(
            "ppo",
            "LoRA layers trained on rewards for sampled answers (proximal policy optimisation)",
            "arXiv 1707.06347",
            trains=True,
            rows="all",
            settings=("prompt", "answer", "lora", "ppo", "checkpoint", "guard"),
            model="model",
            module="adjudge.methods.ppo",
            attribute="PPO",
            mixes=True,
            trains_adapter=True,
            starts=True,
        ),
        Entry(
            "encoder",
            "a BERT-like encoder with a fine-tuned head, the baseline to beat",
            "arXiv 1810.04805",
            trains=True,
            rows="all",
            settings=("encoder", "checkpoint"),
            model="encoder.model",
            module="adjudge.methods.encoder",
            attribute="ENCODER",
        ),
    )
}

COMPARED = ("zero-shot", "few-shot", "sft", "ppo", "encoder")
"""Methods which `adjudge compare` runs unless others are named."""


MULTI = "multi-"
"""Begins the name of a method that trains one adapter on several tasks: ``multi-sft`` is ``sft`` on a mixture of their rows."""


def is_multi(name: str) -> bool:
    """Whether a method of this name is trained on several tasks at once."""
    return name.startswith(MULTI)


def multi_name(name: str) -> str:
    """What a method is called when it is trained on several tasks. Raises ConfigError for one that cannot be."""
    if not get_entry(name).mixes:
        able = ", ".join(entry.name for entry in METHODS.values() if entry.mixes)
        raise ConfigError(
            f"{name} takes one task; those that train on several at once are: {able}. `adjudge compare` takes several."
        )
    return name if is_multi(name) else f"{MULTI}{name}"


def get_entry(name: str) -> Entry:
    """The entry of a method, without importing it; that of ``sft`` for ``multi-sft``. Raises ConfigError that names the nearest."""
    plain = name.removeprefix(MULTI)
    if plain not in METHODS or (is_multi(name) and not METHODS[plain].mixes):
        known = [*METHODS, *(f"{MULTI}{entry.name}" for entry in METHODS.values() if entry.mixes)]
        raise ConfigError(f"There is no method '{name}'.{nearest(name, known)}")
    return METHODS[plain]


def get_method(name: str) -> Method:
    """The method of this name. Raises ConfigError that names the nearest."""
    return get_entry(name).load()


def check_methods(names: Iterable[str]) -> tuple[str, ...]:
    """The names in their order, each once. Raises ConfigError for one that does not exist, or when there is none."""
    found = tuple(dict.fromkeys(names))
    for name in found:
        get_entry(name)
    if not found:
        raise ConfigError(f"No method is named. There is: {', '.join(METHODS)}.")
    return found


def check_settings(config: Config) -> None:
    """Raise ConfigError for settings that the method cannot follow."""
    if config.prompt.analysis == "before" and get_entry(config.method).name in ("few-shot", "sft"):
        use = "show" if config.method == "few-shot" else "teach"
        raise ConfigError(
            f"{config.method} cannot go with prompt.analysis=before: the rows have no analyses to {use}, and judgements alone would tell "
            f"the model to leave them out. Leave {config.method} out, or take prompt.analysis=true: the analysis then follows the judgement."
        )


_GROUPS = ("prompt", "answer", "lora", "sft", "ppo", "encoder", "checkpoint", "guard")


def own_settings(config: Config) -> Config:
    """The configuration with every group that its method never reads put back to the default.

    Two runs are the same run when these are equal: changing ``ppo.clip`` must not make a finished SFT run stale. For the
    encoder, `model` names the encoder.
    """
    entry = get_entry(config.method)
    plain = Config()
    update: dict[str, Any] = {group: getattr(plain, group) for group in _GROUPS if group not in entry.settings}
    if "encoder" in entry.settings:
        update |= {"model": config.encoder.model, "preset": plain.preset}  # no preset changes the encoder
        update["evaluation"] = config.evaluation.model_copy(update={"decode": plain.evaluation.decode})
    unread: dict[str, Any] = {} if is_multi(config.method) else {"mixture": None}
    if entry.rows == "none":
        unread |= {"train_rows": None, "drop_overlap": plain.data.drop_overlap}
    update["data"] = config.data.model_copy(update=unread)
    if entry.model and config.runtime.trust_remote_code != value_of(config, entry.model):
        update["runtime"] = config.runtime.model_copy(
            update={"trust_remote_code": None}
        )  # it is another method's model
    return config.model_copy(update=update)
