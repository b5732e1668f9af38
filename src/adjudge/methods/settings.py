"""What the settings of a run mean to its method: which it reads, what does not fit, what rewards it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adjudge.config import Config, LoopConfig, RewardConfig, keys_of, value_of
from adjudge.config.methods import MethodSettings, own_group
from adjudge.errors import ConfigError
from adjudge.methods.api_limits import check_api, check_api_metrics
from adjudge.methods.for_tasks import begins_taught, with_explanations
from adjudge.methods.registry import METHODS, Entry, adapter_names, get_entry
from adjudge.models.chat_api import is_api
from adjudge.runs.names import MULTI
from adjudge.tasks.passes import asked_task
from adjudge.tasks.sets import MOST_LISTED

if TYPE_CHECKING:
    from adjudge.rewards.function import RewardFunction
    from adjudge.runs.reward_model import RewardModel
    from adjudge.tasks.spec import TaskSpec


def check_settings(config: Config) -> None:
    """Raise ConfigError for settings the method cannot use."""
    entry = get_entry(config.method)
    if is_api(name := model_of(config)):
        check_api(entry.name, name, config, [other.name for other in METHODS.values() if other.takes_api])
    unexplained = entry.explains and config.prompt.explanations == "none"
    if config.prompt.analysis == "before" and (not entry.analysis_before or unexplained):
        use = "teach" if entry.trains else "show"
        explaining = "" if entry.trains else f" Or show explanations: {', '.join(_explaining())}."
        raise ConfigError(
            f"{entry.name} cannot go with prompt.analysis=before: the rows have no analyses to {use}, and judgements "
            f"alone would teach the model to skip analyses. Leave {entry.name} out, or use prompt.analysis=true: the "
            f"analysis then follows the judgement.{explaining}"
        )
    for key in entry.needs:
        if value_of(config, key) is None:
            raise ConfigError(f"{entry.name} needs {key}: {keys_of()[key]}. Add {key}=… to the command.")
    if entry.rows == "demonstrations":
        config = with_explanations(config)
        _check_demonstrations(config)
    if config.init is not None and not entry.trains_adapter:
        raise ConfigError(
            f"{entry.name} cannot start from a run (init): it trains no adapter. "
            f"Those that can are: {', '.join(adapter_names())}."
        )


def sft_weight(config: Config, spec: TaskSpec) -> float:
    """Return the weight of the right answers which PPO teaches beside what it sampled.

    They are taught by default where the reward is for one right label per row alone.
    """
    if config.ppo.sft_weight is not None:
        return config.ppo.sft_weight
    near_counts = spec.is_number or (spec.ordered and config.ppo.reward.distance != "none")
    right_alone = not near_counts and not spec.several and config.ppo.reward.is_plain
    return 1.0 if begins_taught(config) and right_alone else 0.0


def _explaining() -> list[str]:
    return [entry.name for entry in METHODS.values() if entry.explains]


def _check_demonstrations(config: Config) -> None:
    from adjudge.prompts.demonstrations import demonstration_orders

    if config.prompt.explanation_control == "another" and 0 < config.prompt.demonstrations < 2:
        raise ConfigError(
            "prompt.explanation_control=another gives each demonstration another one's explanation, and there is one "
            "alone. Raise prompt.demonstrations."
        )
    if config.prompt.analysis and config.prompt.demonstration_orders > 1:
        raise ConfigError(
            "prompt.demonstration_orders averages the answers to several prompts, and an analysis "
            f"(prompt.analysis={str(config.prompt.analysis).lower()}) is written for one of them. Leave one of the two "
            "settings out."
        )
    if config.prompt.demonstration_choice == "nearest" and config.prompt.prior == "content-free":
        raise ConfigError(
            "prompt.prior=content-free is measured with the demonstrations of all rows, and with "
            "prompt.demonstration_choice=nearest each row has its own. Use prompt.prior=training-rows or "
            "prompt.prior=none."
        )
    demonstration_orders(config.prompt, config.seed)  # as many as there are


def check_tasks(config: Config, specs: Sequence[TaskSpec]) -> None:
    """Raise ConfigError for settings of the method which do not fit the tasks."""
    from adjudge.rewards.checks import check_rewards, need_labels

    entry = get_entry(config.method)
    if is_api(model_of(config)) and not entry.rates_labels:
        check_api_metrics(model_of(config), specs)
    for spec in specs:
        if spec.is_number:
            _check_number(config, entry, spec)
        if spec.several == "words":
            _check_sets(config, entry, spec)
        if spec.several and entry.trains and config.calibration.rows:
            need_labels(spec, "calibration.rows")
    specs = [asked_task(spec) for spec in specs]
    weighted = [name for name in entry.settings if getattr(getattr(config, name), "class_weight", None) is not None]
    by_label = [f"{name}.class_weight" for name in weighted]
    if entry.trains and config.data.sampling != "all":
        by_label.append(f"data.sampling={config.data.sampling}")
    if entry.trains and config.calibration.rows:
        by_label.append("calibration.rows")
    if entry.rows != "none" and config.data.shots is not None:
        by_label.append("data.shots")
    for setting in by_label:
        for spec in specs:
            need_labels(spec, setting)
    reward = reward_settings(config)
    if reward is not None:
        check_rewards(reward, specs)


def _check_number(config: Config, entry: Entry, spec: TaskSpec) -> None:
    """Raise ConfigError where a method or a way to answer does not go with numbers."""
    from adjudge.prompts.answers import every_answer

    if entry.model == "model" and config.evaluation.decode == "mean":
        every_answer(spec)
    if entry.numbers:
        return
    if not entry.trains:
        raise ConfigError(f"{spec.name} is answered with a number, and {entry.name} judges labels. Use another method.")
    others = [other.name for other in METHODS.values() if other.trains_adapter and other.numbers]
    raise ConfigError(
        f"{spec.name} is answered with a number, and {entry.name} learns from answers that are right or wrong: "
        f"between numbers near is good. Use another method, such as {', '.join(others)}."
    )


def _check_sets(config: Config, entry: Entry, spec: TaskSpec) -> None:
    """Raise ConfigError where a method or way to answer lists all sets of labels and they are too many.

    So it does where the pieces of a long text would be joined: what is known of them is a share per label, not per set.
    """
    if config.evaluation.long_texts != "cut":
        raise ConfigError(
            f"{spec.name}: evaluation.long_texts={config.evaluation.long_texts} joins the pieces of a row that has one "
            "label. Ask label by label (several: passes in the task, --kind passes), or leave it at cut."
        )
    if spec.lists_all:
        return
    by_label = config.evaluation.weighs_labels and entry.model == "model"
    if not (entry.lists_answers or by_label):
        return
    what = f"{entry.name} weighs" if entry.lists_answers else f"evaluation.decode={config.evaluation.decode} weighs"
    reading = [other.name for other in METHODS.values() if other.trains_adapter and not other.lists_answers][:3]
    raise ConfigError(
        f"{spec.name}: {what} every set of its {len(spec.names)} labels, which are 2^{len(spec.names)}; up to "
        f"{MOST_LISTED} labels can be weighed so. Ask label by label (several: passes in the task, --kind passes), or "
        f"take a method that reads answers, such as {', '.join(reading)}, with evaluation.decode=greedy."
    )


def model_of(config: Config) -> str:
    """Return the model of the run's method; "" for a method without one."""
    key = model_key(config)
    return str(value_of(config, key)) if key else ""


def model_key(config: Config) -> str:
    """Return the setting that names the model of the run's method; "" for a method without one."""
    entry = get_entry(config.method)
    return "model" if _prompts_policy(entry, config) else entry.model


def base_model(config: Config) -> str | None:
    """Return the model that a trained judge stands on; None where its own weights are a whole model, or it has none."""
    key = model_key(config)
    return None if key in ("", "encoder.model", "setfit.model") else str(value_of(config, key))


def _prompts_policy(entry: Entry, config: Config) -> bool:
    return entry.policy_if is not None and value_of(config, entry.policy_if[0]) in entry.policy_if[1]


def api_models(config: Config) -> list[str]:
    """Return the models behind an API that the run's method may ask: its own and its writer's."""
    names = [model_of(config), config.writer.model if "writer" in get_entry(config.method).settings else None]
    return [name for name in names if name is not None and is_api(name)]


def weighs_labels(config: Config) -> bool:
    """Return whether label words' probabilities are weighed, so the answer is the likeliest of them."""
    prompt = config.prompt
    if is_api(model_of(config)):
        return False
    weighed = prompt.prior != "none" or prompt.demonstration_orders > 1
    return weighed and get_entry(config.method).rows == "demonstrations"


def answers_likeliest(config: Config) -> bool:
    """Return whether a label task is answered with the likeliest label.

    Its probabilities then cost nothing more.
    """
    entry = get_entry(config.method)
    return config.evaluation.weighs_labels or entry.model != "model" or entry.rates_labels


def rewarded_names() -> list[str]:
    """Return the methods which learn from rewards."""
    return [entry.name for entry in METHODS.values() if _reward_key(entry) is not None]


def reward_settings(config: Config) -> RewardConfig | None:
    """Return the reward's settings of the run's method; None for a method which learns from no rewards."""
    key = _reward_key(get_entry(config.method))
    reward: RewardConfig | None = None if key is None else value_of(config, key)
    return reward


def function_settings(names: Sequence[str] | str) -> dict[str, Any]:
    """Return the settings which give these reward functions to every method with rewards, by key."""
    keys = dict.fromkeys(_reward_key(METHODS[name]) for name in rewarded_names())
    return {f"{key}.functions": names for key in keys}


def refuse_functions(method: str) -> ConfigError:
    """Return the error for reward functions given to a method which learns from no rewards."""
    return ConfigError(
        f"Reward functions are for methods that learn from rewards ({', '.join(rewarded_names())}), not for {method}."
    )


def load_reward_functions(config: Config, specs: Sequence[TaskSpec]) -> list[RewardFunction]:
    """Load the reward functions which the run's method learns from. Raises ConfigError."""
    from adjudge.rewards.checks import load_functions

    reward = reward_settings(config)
    return [] if reward is None else load_functions(reward, specs)


def load_reward_model(config: Config, specs: Sequence[TaskSpec]) -> RewardModel | None:
    """Return the reward model that the run's method learns from, or None without one.

    Raises RunError as `reward_model_at` does, and ConfigError for one that rates analyses in the place of labels.
    """
    reward = reward_settings(config)
    if reward is None or reward.kind == "match" or reward.model is None:
        return None
    from adjudge.runs.reward_model import reward_model_at

    model = reward_model_at(Path(reward.model), config, specs)
    if reward.kind == "learned" and model.kind != "label":
        raise ConfigError(
            f"reward.model: {reward.model} rates analyses, and no label: it would pay wrong answers too. "
            "Use reward.kind=mixed, which adds it to right and wrong."
        )
    return model


def _reward_key(entry: Entry) -> str | None:
    groups = [name for name in entry.settings if hasattr(getattr(Config(), name), "reward")]
    return f"{groups[0]}.reward" if groups else None


_READ_BY_SOME = (
    *("prompt", "answer", "lora", "checkpoint", "guard", "init", "api", "writer"),
    *MethodSettings.model_fields,
)
"""Settings read by some methods only."""

_WITHOUT_DEMONSTRATIONS = {"demonstration_orders": 1, "prior": "none", "prior_rows": 32}
"""Settings of `PromptConfig` that only a method with demonstrations reads, and what the others record."""


def forms_apart(config: Config) -> list[dict[str, str]]:
    """Return each setting with which the run's method is another than its name says, and what it is then."""
    forms = []
    for key, value, what in get_entry(config.method.removeprefix(MULTI)).apart:
        now = value_of(config, key)
        if str(now) == value or (not value and now is not None):
            forms.append({"setting": f"{key}={now}", "is": what})
    return forms


def for_sets(config: Config, specs: Sequence[TaskSpec]) -> Config:
    """Return the settings of a run on tasks with sets of labels in words.

    Their answers are read and not weighed.
    """
    if not any(spec.several == "words" for spec in specs):
        return config
    return config.model_copy(update={"prompt": config.prompt.model_copy(update=_WITHOUT_DEMONSTRATIONS)})


def unread_groups(config: Config) -> list[str]:
    """Return the groups of settings that the run's method never reads."""
    entry = get_entry(config.method)
    read = {*entry.settings, *(("prompt", "answer") if _prompts_policy(entry, config) else ())}
    return [name for name in _READ_BY_SOME if name not in read]


def own_settings(config: Config, tasks: int = 1) -> Config:
    """Return a run's settings, with groups its method never reads reset to their defaults.

    Two runs are the same run when these are equal: changing ``ppo.clip`` must not make a finished SFT run stale. Where
    a method's settings name its model, `model` is that name. Where label words are weighed, the answer is the likeliest
    of them (``evaluation.decode=labels``).
    """
    entry = get_entry(config.method)
    config, plain = with_explanations(config), Config()
    update: dict[str, Any] = {name: getattr(plain, name) for name in unread_groups(config)}
    model = model_of(config)
    if entry.model != "model":
        update["model"] = model
        if model_key(config) != "model":
            update["preset"] = plain.preset  # no preset changes it
        unread_judging = {"decode": plain.evaluation.decode, "long_texts": plain.evaluation.long_texts}
        update["evaluation"] = config.evaluation.model_copy(update=unread_judging)
    elif is_api(model):  # its texts are never cut
        update["evaluation"] = config.evaluation.model_copy(update={"long_texts": plain.evaluation.long_texts})
    if entry.rows != "demonstrations" or is_api(model):
        update["prompt"] = update.get("prompt", config.prompt).model_copy(update=_WITHOUT_DEMONSTRATIONS)
    if not api_models(config):
        update["api"] = plain.api
    if weighs_labels(config) and not config.evaluation.weighs_labels:
        update["evaluation"] = config.evaluation.model_copy(update={"decode": "labels"})
    unread: dict[str, Any] = {} if tasks > 1 else {"mixture": None}
    if entry.rows == "none":
        unread |= {"train_rows": None, "shots": None, "drop_overlap": plain.data.drop_overlap}
    if not any(isinstance(getattr(plain, name), LoopConfig) for name in entry.settings):
        unread["sampling"] = plain.data.sampling
    if not entry.trains:
        update["calibration"] = plain.calibration
    update["data"] = config.data.model_copy(update=unread)
    own = getattr(config, own_group(entry.name), None)
    if config.runtime.trust_remote_code not in (model, getattr(own, "encoder", None)):  # another method's code
        update["runtime"] = config.runtime.model_copy(update={"trust_remote_code": None})
    return config.model_copy(update=update)
