"""What a model behind an API cannot do: it gives answers, neither weights nor label probabilities.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.models.chat_api import api_name

if TYPE_CHECKING:
    from adjudge.tasks.spec import TaskSpec


def check_api(method: str, model: str, config: Config, able: Sequence[str]) -> None:
    """Raise ConfigError where a method or a setting cannot go with a model behind an API.

    `able` are the methods that can.
    """
    api_name(model)
    if method not in able:
        raise ConfigError(
            f"{method} needs the weights of its model, and {model} is behind an API, which gives only answers. "
            f"Methods that take one: {', '.join(able)}. Give {method} a model on this machine, in a command of its own."
        )
    if config.evaluation.weighs_labels:
        raise ConfigError(
            f"--decode {config.evaluation.decode} needs the probability of every answer, which {model} does not give. "
            "Use --decode greedy: its answers are read."
        )
    if config.prompt.demonstration_orders > 1:
        raise ConfigError(
            f"prompt.demonstration_orders averages label probabilities, which {model} does not give. Leave it out."
        )
    if config.calibration.rows:
        raise ConfigError(f"calibration.rows fits label probabilities, which {model} does not give. Leave it out.")


def check_api_metrics(model: str, specs: Sequence[TaskSpec]) -> None:
    """Raise ConfigError for a task that is scored by label probabilities."""
    from adjudge.tasks.scoring.metrics import needs_probabilities

    for spec in specs:
        if needs_probabilities(spec):
            raise ConfigError(
                f"{spec.name} is scored by label probabilities ({spec.primary}), which {model} does not give. "
                "Use another task, or a model on this machine."
            )
