"""What settings left to a run's tasks become, and which of them a method with explanations reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import Config, PolicyGradientConfig, PromptConfig, WarmStartConfig, WriterConfig
from adjudge.errors import ConfigError, nearest
from adjudge.methods.registry import get_entry
from adjudge.system.files import sha256_of

if TYPE_CHECKING:
    from adjudge.tasks.spec import TaskSpec
    from adjudge.types import Example

_EXPLAINING = ("explanations", "explanations_file", "explanations_sha256", "explanation_control")
"""Settings of `PromptConfig` that only a method with explanations reads."""


def settled(config: Config, specs: Sequence[TaskSpec]) -> Config:
    """Return the settings with what is left to the tasks decided.

    Raises ConfigError for a file that is not there, and for a task without steps where the method needs them.
    """
    entry, numbers = get_entry(config.method), all_numbers(specs)
    warmed = [name for name in entry.settings if isinstance(getattr(config, name), WarmStartConfig)]
    config = config.model_copy(update={name: getattr(config, name).decided(numbers=numbers) for name in warmed})
    config = _with_balance(config, specs)
    if entry.stepwise:
        return _with_steps(config, specs[0])
    return _explained(config, specs) if entry.explains else config


def decided(config: Config, specs: Sequence[TaskSpec]) -> Config:
    """Return the `settled` settings with PPO's first KL coefficient, which depends on them."""
    config = settled(config, specs)
    beta = first_kl(config, numbers=all_numbers(specs))
    return config.model_copy(update={"ppo": config.ppo.model_copy(update={"kl_init": beta})})


def all_numbers(specs: Sequence[TaskSpec]) -> bool:
    """Return whether every task is answered with a number."""
    return all(spec.is_number for spec in specs)


def first_kl(config: Config, *, numbers: bool = False) -> float:
    """Return PPO's first KL coefficient: a strong one where the reference already answers as taught.

    The untrained model has to be left behind, and an analysis has many tokens, each with a KL of its own. Where all
    answers are `numbers`, a short warm start teaches their form, and what they say has to be learned from rewards.
    """
    if config.ppo.kl_init is not None:
        return config.ppo.kl_init
    return 1.0 if begins_taught(config) and not numbers else 0.05


def begins_taught(config: Config) -> bool:
    """Return whether PPO begins where answers have been taught: after a warm start, or from a run."""
    return (config.init is not None or config.ppo.warm_start != 0) and config.prompt.analysis != "before"


def check_lines(lines: str | None, spec: TaskSpec) -> None:
    """Raise ConfigError when there is no field with this name, whose lines were to be the steps."""
    if lines is not None and lines not in spec.fields:
        raise ConfigError(f"iip.lines={lines}: {spec.name} has no such field.{nearest(lines, spec.fields)}")


def steps_before(config: Config, row: Example) -> int:
    """Return how many calls of at most `longest_step` tokens a row takes before its judgement."""
    if not get_entry(config.method).stepwise:
        return 0
    if config.iip.lines is None:
        return len(config.iip.steps or ())
    return sum(bool(line.strip()) for line in row.fields[config.iip.lines].splitlines())


def longest_step(config: Config) -> int:
    """Return the most tokens of an answer to a step."""
    return config.iip.max_tokens


def _with_balance(config: Config, specs: Sequence[TaskSpec]) -> Config:
    """Record that the rewards of numbers are balanced where it is unset: earlier runs left it unset, and did not."""
    if not any(spec.is_number for spec in specs) or any(spec.several for spec in specs):
        return config
    for name in get_entry(config.method).settings:
        group = getattr(config, name)
        if isinstance(group, PolicyGradientConfig) and group.reward.balance is None:
            reward = group.reward.model_copy(update={"balance": group.reward.is_plain})
            config = config.model_copy(update={name: group.model_copy(update={"reward": reward})})
    return config


def _with_steps(config: Config, spec: TaskSpec) -> Config:
    steps = config.iip
    check_lines(steps.lines, spec)
    if steps.lines is not None and steps.steps is not None:
        raise ConfigError("iip.lines and iip.steps both say what the steps are. Give one of them.")
    if steps.lines is None and steps.steps is None:
        if spec.procedure is None:
            raise ConfigError(
                f"{spec.name} has no procedure, so there are no steps to take. Give questions, as in "
                "iip.steps='[\"What is praised?\", \"What is criticised?\"]', or a 'procedure' in the task file, or "
                f"leave {config.method} out."
            )
        procedure = spec.procedure
        changes = {"lines": procedure.lines} if procedure.lines is not None else {"steps": procedure.steps}
        steps = steps.model_copy(update=changes)
    return config.model_copy(update={"iip": steps})


def _explained(config: Config, specs: Sequence[TaskSpec]) -> Config:
    from adjudge.prompts.explanations import has_examples

    prompt, update = config.prompt, dict[str, Any]()
    if prompt.explanations_file is not None:
        path = Path(prompt.explanations_file).expanduser().absolute()
        if not path.is_file():
            raise ConfigError(f"{path}: there is no such file (prompt.explanations_file).")
        digest = sha256_of(path)
        if prompt.explanations_sha256 not in (None, digest):
            raise ConfigError(
                f"{path} is not the file that the run was made with (prompt.explanations_sha256). Put that file back, "
                "or begin another run without prompt.explanations_sha256."
            )
        update |= {"explanations_file": str(path), "explanations_sha256": digest}
    if prompt.explanations is None:
        known = all(has_examples(spec, prompt) for spec in specs)
        update["explanations"] = "few-shot" if known else "zero-shot"
    return config.model_copy(update={"prompt": prompt.model_copy(update=update)})


def with_explanations(config: Config) -> Config:
    """Return the settings without those on explanations that the method does not read.

    With explanations an analysis stands before every answer, there is one order of the demonstrations, and of the
    writer only the model is read: explanations are written greedily, as long as an analysis. Raises ConfigError for an
    analysis after the answer.
    """
    prompt, plain = config.prompt, PromptConfig()
    unread: dict[str, Any] = {}
    writer = config.writer
    if not get_entry(config.method).explains:
        unread = {name: getattr(plain, name) for name in _EXPLAINING}
    elif prompt.explanations == "none":
        unread = {name: getattr(plain, name) for name in _EXPLAINING[1:]}
        writer = WriterConfig()
    else:
        if prompt.analysis is True:
            raise ConfigError(
                f"{config.method} shows explanations before the answers, and prompt.analysis=true asks for one after. "
                f"Leave {config.method} out, or prompt.analysis."
            )
        unread = {"analysis": "before", "demonstration_orders": 1}
        if prompt.explanations == "zero-shot":
            unread |= {name: getattr(plain, name) for name in _EXPLAINING[1:3]}
        writer = WriterConfig(model=None if prompt.explanations == "file" else writer.model)
    return config.model_copy(update={"prompt": prompt.model_copy(update=unread), "writer": writer})
