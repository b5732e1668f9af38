"""Check the settings of the reward against the tasks, before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.config import RewardConfig
from adjudge.errors import ConfigError, nearest
from adjudge.rewards.function import RewardFunction, check_columns, load_function
from adjudge.rewards.metric import check_metric
from adjudge.tasks.spec import TaskSpec


def check_rewards(config: RewardConfig, specs: Sequence[TaskSpec]) -> None:
    """Raise ConfigError for weights of unknown labels, or a metric which a task does not have."""
    _check_kind(config, specs)
    weights, functions = config.function_weights, config.functions
    if weights is not None and len(weights) != len(functions):
        raise ConfigError(
            f"reward.function_weights has {len(weights)} numbers for {len(functions)} reward functions: write one each."
        )
    named = {"reward.weights": [*(config.weights or {})], "reward.costs": [*(config.costs or {})]}
    named["reward.costs"] += [answer for answers in (config.costs or {}).values() for answer in answers]
    for setting, labels in named.items():
        _check_labels(setting, labels, specs)
    for spec in specs:
        if config.balance and spec.several:
            need_labels(spec, "reward.balance")
        if config.distance in ("linear", "quadratic") and not spec.ordered:
            raise ConfigError(
                f"reward.distance={config.distance} is for labels in an order, which those of {spec.name} have not. "
                "Give your own table --kind ordered, a task file 'ordered: true', or leave it unset: numbers pay by "
                "their distance anyway."
            )
        check_metric(config, spec)


def load_functions(config: RewardConfig, specs: Sequence[TaskSpec]) -> list[RewardFunction]:
    """Load the functions named in the settings, which runs their files. Raises ConfigError."""
    functions = [load_function(name) for name in config.functions]
    check_functions(functions, specs)
    return functions


def check_functions(functions: Sequence[RewardFunction], specs: Sequence[TaskSpec]) -> None:
    """Raise ConfigError when a function wants a column which a task does not have."""
    for function in functions:
        for spec in specs:
            check_columns(function, spec)


def need_labels(spec: TaskSpec, setting: str) -> None:
    """Raise ConfigError for a task of numbers or of sets of labels."""
    if spec.several:
        raise ConfigError(
            f"{setting} is for one label per row, but {spec.name} is answered with sets of labels. Leave it unset."
        )
    if spec.is_number:
        raise ConfigError(f"{setting} is for labels, but {spec.name} is answered with a number. Leave it unset.")


def _check_kind(config: RewardConfig, specs: Sequence[TaskSpec]) -> None:
    """Raise ConfigError where `kind` and the other settings do not go together."""
    if config.kind == "match":
        if config.model is not None:
            raise ConfigError(
                f"reward.model={config.model} is not read with reward.kind=match: set reward.kind=learned, or mixed."
            )
        return
    if config.model is None:
        raise ConfigError(
            f"reward.kind={config.kind} needs reward.model=RUN, the folder of a finished reward model: "
            "adjudge train reward-model makes one."
        )
    unread = {"match_weight": config.match_weight, "costs": config.costs} if config.kind == "learned" else {}
    for name, value in unread.items():
        if value is not None:
            raise ConfigError(
                f"reward.{name} weighs right and wrong, which reward.kind=learned does not read: use mixed."
            )
    for spec in specs:
        need_labels(spec, f"reward.kind={config.kind}")


def _check_labels(setting: str, labels: Sequence[str], specs: Sequence[TaskSpec]) -> None:
    """Raise ConfigError for a label which no task has."""
    if labels and all(spec.is_number for spec in specs):
        need_labels(specs[0], setting)
    words = dict.fromkeys(word for spec in specs for word in spec.words)
    for label in labels:
        if label not in words:
            raise ConfigError(
                f"{setting}: {', '.join(spec.name for spec in specs)} has no label '{label}'.{nearest(label, words)}"
            )
