"""What `adjudge tune` searches: for each method, which of its settings, and between which values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adjudge.config import Config, LoopConfig, keys_of, value_of
from adjudge.config.methods import own_group
from adjudge.errors import ConfigError, nearest


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers between two bounds, drawn evenly on a logarithmic scale."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values."""

    values: tuple[Any, ...]


Space = Mapping[str, Range | Choices]
"""What is searched, by the setting's key."""

FACTORS = {"optimizer.lr": 4.0, "kl_init": 10.0, "beta": 10.0}
"""Settings that are searched from a ``1/factor`` to a ``factor`` of their default, where a method has them."""
PASSES = (0.5, 1, 2, 4)
"""Passes over the rows that are searched, as multiples of the default's."""
CHOICES = {"warm_start": (0.25, 0.5, 0.75)}
"""Settings with some values to choose from, where a method has them and does not switch them off."""
PROMPTS = {
    "few-shot": {
        "prompt.demonstrations": Choices((2, 5, 10)),
        "prompt.demonstration_choice": Choices(("balanced", "nearest")),
    }
}
"""Settings of the prompt that one method alone reads."""


def default_space(method: str, config: Config, train_rows: int) -> Space:
    """Return what is searched for a method unless the user says otherwise.

    It is empty where the method has nothing to choose. `config` is `decided`. `train_rows` are the rows it learns from:
    they decide how many passes the default settings make.
    """
    space: dict[str, Range | Choices] = dict(PROMPTS.get(method, {}))
    group = own_group(method)
    settings = getattr(config, group, None)
    if not isinstance(settings, LoopConfig):
        return space
    for name, factor in FACTORS.items():
        key = f"{group}.{name}"
        default = _value(config, key)
        if default:
            space[key] = Range(default / factor, default * factor)
    passes = default_passes(settings, train_rows)
    space[f"{group}.epochs"] = Choices(tuple(sorted({max(1, round(passes * factor)) for factor in PASSES})))
    for name, values in CHOICES.items():
        if default := _value(config, f"{group}.{name}"):
            space[f"{group}.{name}"] = Choices(tuple(sorted({*values, default})))
    return space


def default_values(method: str, config: Config, space: Space, train_rows: int) -> dict[str, Any]:
    """Return the value of each searched setting that stands for the settings as they are."""
    values = {key: value_of(config, key) for key in space}
    group = own_group(method)
    if f"{group}.epochs" in space:
        values[f"{group}.epochs"] = default_passes(getattr(config, group), train_rows)
    return values


def fixed_values(method: str, space: Space) -> dict[str, Any]:
    """Return settings of every trial: the fewest steps must not overrule the passes that are searched."""
    group = own_group(method)
    return {f"{group}.min_steps": 0} if f"{group}.epochs" in space else {}


def default_passes(settings: LoopConfig, train_rows: int) -> int:
    """Return the passes over the rows that the settings make."""
    return settings.passes(-(-train_rows // settings.batch_size))


def given_space(key: str, values: str | Sequence[Any]) -> Range | Choices:
    """Return what is searched for a setting: between two numbers, ``"1e-5..1e-3"``, or among some values.

    Raises ConfigError for an unknown setting, and for bounds that are no range.
    """
    if key not in keys_of():
        raise ConfigError(f"search: there is no setting '{key}'.{nearest(key, keys_of())}")
    if not isinstance(values, str):
        if not values:
            raise ConfigError(f"search of {key}: name at least one value.")
        return Choices(tuple(values))
    low, _, high = values.partition("..")
    try:
        bounds = Range(float(low), float(high))
    except ValueError:
        raise ConfigError(
            f"search of {key}: '{values}' is not between two numbers, as in 1e-5..1e-3, nor a list of values."
        ) from None
    if not 0 < bounds.low < bounds.high < float("inf"):
        raise ConfigError(
            f"search of {key}: '{values}' does not go from a number above 0 to a larger one; the scale is logarithmic. "
            "Name values for others, such as 0 and 0.1."
        )
    return bounds


def chosen_space(methods: Mapping[str, Space], given: Mapping[str, Range | Choices]) -> dict[str, Space]:
    """Return the spaces of some methods with the user's `given` settings in place of the default ones.

    Raises ConfigError for a setting that none of the methods has to itself.
    """
    chosen: dict[str, Space] = dict(methods)
    for key, values in given.items():
        owners = [method for method in methods if key in methods[method] or key.startswith(f"{own_group(method)}.")]
        if not owners:
            groups = ", ".join(f"{own_group(method)}.*" for method in methods)
            raise ConfigError(
                f"search of {key}: it is no setting of {', '.join(methods)} alone, so what is found could not be "
                f"compared with other methods. Search settings of {groups}."
            )
        for method in owners:
            chosen[method] = {**chosen[method], key: values}
    return chosen


def _value(config: Config, key: str) -> float | None:
    """Return a number among the settings, None where there is no such setting, or it is unset."""
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part, None)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
