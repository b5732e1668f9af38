"""The methods by name, one line per method.

Listing them imports no torch; a method is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from adjudge.config import Config, RewardConfig, value_of
from adjudge.config.methods import MethodSettings
from adjudge.errors import ConfigError, nearest
from adjudge.methods.api_limits import check_api, check_api_metrics
from adjudge.models.chat_api import is_api
from adjudge.runs.names import MULTI

if TYPE_CHECKING:
    from adjudge.methods.base import Method
    from adjudge.rewards.function import RewardFunction
    from adjudge.runs.reward_model import RewardModel
    from adjudge.tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class Entry:
    """Facts about a method, available without importing it."""

    name: str
    summary: str
    source: str
    """The paper it is from."""
    module: str
    settings: tuple[str, ...]
    """Groups of `Config` it reads, besides ``data``, ``evaluation`` and ``runtime``; ``calibration`` if it trains."""
    trains: bool = True
    rows: Literal["none", "demonstrations", "all"] = "all"
    """The rows it learns from: none, the demonstrations in its prompt, or all training rows."""
    model: str = "model"
    """The setting that names its model; "" for a method without one."""
    trains_adapter: bool = True
    """True if it trains LoRA layers: it can then start from a run (``init``) and learn several tasks at once."""
    analysis_before: bool = True
    """True if it allows ``prompt.analysis=before``."""
    numbers: bool = True
    """True if it takes tasks that are answered with a number."""
    rates_labels: bool = False
    """True if its judge rates every label, whatever ``evaluation.decode`` says."""
    takes_api: bool = False
    """True if its model may be one behind an API (``api:NAME``), of which it needs no weights."""
    apart: tuple[tuple[str, str, str], ...] = ()
    """Forms that do not bear its name: setting, value ("" for any that is set), and what it is then."""

    def load(self) -> Method:
        """Import the method (and with it torch)."""
        method: Method = importlib.import_module(self.module).METHOD
        return method


def _adapter(name: str, summary: str, source: str, *, samples: bool = True, **others: Any) -> Entry:
    """Return the entry of an adapter method in ``methods/NAME.py``, which reads the settings group NAME."""
    settings = ("prompt", "answer", "lora", _group(name), "checkpoint", "init", *(("guard",) if samples else ()))
    return Entry(name, summary, source, f"adjudge.methods.{_group(name)}", settings, **others)


def _pairs(name: str, summary: str, source: str, **others: Any) -> Entry:
    """Return the entry of an adapter method that learns which of two label answers is right."""
    return _adapter(name, summary, source, analysis_before=False, numbers=False, **others)


def _prompting(name: str, summary: str, source: str, **others: Any) -> Entry:
    """Return the entry of a method in ``methods/prompting/NAME.py``, which trains nothing."""
    module = f"adjudge.methods.prompting.{_group(name)}"
    settings = ("prompt", "answer", "api")
    return Entry(name, summary, source, module, settings, trains=False, trains_adapter=False, takes_api=True, **others)


def _search(name: str, summary: str, source: str, *, writes: bool = True, **others: Any) -> Entry:
    """Return the entry of a method in ``methods/prompting/NAME.py`` which searches an instruction on training rows."""
    group = _group(name)
    settings = ("prompt", "answer", "api", *(("writer",) if writes else ()), group)
    return Entry(
        name,
        summary,
        source,
        f"adjudge.methods.prompting.{group}",
        settings,
        trains_adapter=False,
        takes_api=True,
        **others,
    )


def _encoder(name: str, summary: str, source: str) -> Entry:
    """Return the entry of an encoder method in ``methods/NAME.py``; its settings name its model."""
    group = _group(name)
    settings = (group, "checkpoint")
    return Entry(
        name, summary, source, f"adjudge.methods.{group}", settings, model=f"{group}.model", trains_adapter=False
    )


def _floor(name: str, summary: str, source: str, model: str = "") -> Entry:
    """Return the entry of a method in ``methods/floors/NAME.py``: features that are not trained, and a regression."""
    group = _group(name)
    module = f"adjudge.methods.floors.{group}"
    return Entry(name, summary, source, module, (group,), model=model, trains_adapter=False)


def _group(name: str) -> str:
    return name.replace("-", "_")


PAPER = "arXiv 2410.11020"

METHODS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        _prompting("zero-shot", "the untrained model, asked", PAPER, rows="none"),
        _prompting(
            "few-shot",
            "the untrained model, shown examples",
            PAPER,
            rows="demonstrations",
            analysis_before=False,
            apart=(
                ("prompt.prior", "content-free", "contextual calibration (arXiv 2102.09690)"),
                ("prompt.prior", "training-rows", "after batch calibration (arXiv 2309.17249), on training rows"),
                ("prompt.demonstration_choice", "nearest", "after KATE (arXiv 2101.06804), with a small encoder"),
            ),
        ),
        _search(
            "bpo",
            "an instruction rewritten from right and wrong answers, and chosen on held-out rows",
            "arXiv 2311.04155",
            apart=(
                ("bpo.rewrites", "", "rewriting by a writer: BPO's trained optimiser (arXiv 2311.04155) is left out"),
                ("bpo.select", "best", "a best-of-n search over rewrites, which is ours, not the paper's"),
            ),
        ),
        _search("gepa", "an instruction evolved by a writer that reflects on wrong answers", "arXiv 2507.19457"),
        _search(
            "gepa-edits",
            "GEPA's search with scripted edits, without a large model",
            "arXiv 2507.19457",
            writes=False,
            apart=(("gepa_edits.calls", "", "GEPA's search with scripted edits, not GEPA: no model reflects"),),
        ),
        _adapter(
            "sft",
            "supervised fine-tuning on the right answers",
            PAPER,
            samples=False,
            analysis_before=False,
            apart=(("sft.minor_beta", "", "MinorSFT (arXiv 2408.10642)"),),
        ),
        _adapter(
            "ppo",
            "proximal policy optimisation on rewards for sampled answers",
            "arXiv 1707.06347",
            apart=(
                ("ppo.values", "vine", "VinePPO (arXiv 2410.01679)"),
                ("ppo.values", "vine-labels", "VinePPO with exact values of labels, which are ours, not the paper's"),
            ),
        ),
        _adapter("reinforce", "REINFORCE on rewards for sampled answers, without a critic", "arXiv 2501.03262"),
        _adapter("rloo", "REINFORCE with the prompt's other answers as the baseline", "arXiv 2402.14740"),
        _adapter("grpo", "rewards relative to the prompt's other answers", "arXiv 2402.03300"),
        _adapter(
            "critique-grpo",
            "GRPO with own answers that were refined after a critique",
            "arXiv 2506.03106",
            numbers=False,
            apart=(
                ("critique_grpo.critique", "gold", "grpo+gold: the critique holds the right answer"),
                ("critique_grpo.critique", "quote", "Critique-GRPO with critiques by a template of ours"),
                ("critique_grpo.kept", "0", "Dr. GRPO (arXiv 2503.20783), without critiques"),
                ("prompt.analysis", "False", "Critique-GRPO on labels without an analysis, which is ours"),
                ("prompt.analysis", "True", "Critique-GRPO on labels without an analysis before them, which is ours"),
            ),
        ),
        _adapter(
            "exact",
            "the exact expected reward over the labels, nothing sampled",
            "arXiv 1706.05374",
            analysis_before=False,
        ),
        _pairs(
            "dpo",
            "pairs of a right and a wrong answer, against a fixed reference",
            "arXiv 2305.18290",
            apart=(("dpo.loss", "minor-dpo", "a reconstruction of MinorDPO (arXiv 2408.09834)"),),
        ),
        _pairs("tdpo", "DPO with the KL to the reference at each token", "arXiv 2404.11999"),
        _pairs(
            "spin",
            "the right answers against the model's own of an iteration ago",
            "arXiv 2401.01335",
            apart=(("spin.answers", "labels", "an exact form over the labels, which is ours, not the paper's"),),
        ),
        _pairs(
            "sppo",
            "log-ratios moved to the win rates of the model's own answers",
            "arXiv 2405.00675",
            apart=(("sppo.answers", "labels", "an exact form over the labels, which is ours, not the paper's"),),
        ),
        _adapter(
            "swie",
            "SFT with what some layers read of the instruction added to later tokens",
            "arXiv 2308.12674",
            samples=False,
            analysis_before=False,
            apart=(("swie.strength", "0.0", "SFT"),),
        ),
        _adapter(
            "reward-model",
            "a reward for each answer, learned from pairs; judges by the highest",
            "arXiv 2405.19763",
            numbers=False,
            rates_labels=True,
            apart=(("reward_model.pairs", "rationale", "pairs of analyses by a rule which is ours, not the paper's"),),
        ),
        _floor("tfidf", "logistic regression on words: a floor, in seconds", "scikit-learn"),
        _floor(
            "linear",
            "logistic regression on a frozen encoder's vectors: a floor, in seconds",
            "arXiv 1908.10084",
            model="linear.model",
        ),
        _encoder("encoder", "a BERT-like encoder with a fine-tuned head, the baseline to beat", "arXiv 1810.04805"),
    )
}

ASKED = "zero-shot"
"""The method which asks a model as it is."""

COMPARED = ("zero-shot", "few-shot", "tfidf", "linear", "sft", "ppo", "encoder")
"""Methods which `adjudge compare` runs by default."""


def adapter_names() -> list[str]:
    """Return the methods which train an adapter. They can start from a run, and learn several tasks."""
    return [entry.name for entry in METHODS.values() if entry.trains_adapter]


def known_names() -> list[str]:
    """Return every name users may type."""
    return [*METHODS, *(f"{MULTI}{name}" for name in adapter_names())]


def get_entry(name: str) -> Entry:
    """Return the entry of a method. Raises ConfigError, which suggests the nearest name."""
    if name not in METHODS:
        raise _unknown(name)
    return METHODS[name]


def _unknown(name: str) -> ConfigError:
    return ConfigError(f"There is no method '{name}'.{nearest(name, known_names())}")


def parse_name(name: str) -> tuple[Entry, bool]:
    """Return the entry of a typed name, and whether it means one adapter on several tasks.

    Raises ConfigError for an unknown name.
    """
    if name not in known_names():
        raise _unknown(name)
    return METHODS[name.removeprefix(MULTI)], name.startswith(MULTI)


def entry_for(name: str, tasks: int) -> Entry:
    """Return the entry of a typed name, for a run over this number of tasks.

    Raises ConfigError for an unknown name, for ``multi-`` with one task, and for a method that takes only one.
    """
    entry, multi = parse_name(name)
    if multi and tasks < 2:
        raise ConfigError(f"{name} trains on several tasks: name them with --task NAME,NAME, or use {entry.name}.")
    if tasks > 1 and not entry.trains_adapter:
        raise ConfigError(
            f"{name} takes one task; those that train on several at once are: {', '.join(adapter_names())}. "
            "`adjudge compare` takes several."
        )
    return entry


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names as typed, each once. Raises ConfigError for an unknown one, or when there is none."""
    distinct = tuple(dict.fromkeys(names))
    for name in distinct:
        parse_name(name)
    if not distinct:
        raise ConfigError(f"No method is named. There is: {', '.join(METHODS)}.")
    return distinct


def check_settings(config: Config) -> None:
    """Raise ConfigError for settings the method cannot use."""
    entry = get_entry(config.method)
    if is_api(name := model_of(config)):
        check_api(entry.name, name, config, [other.name for other in METHODS.values() if other.takes_api])
    if config.prompt.analysis == "before" and not entry.analysis_before:
        use = "teach" if entry.trains else "show"
        raise ConfigError(
            f"{entry.name} cannot go with prompt.analysis=before: the rows have no analyses to {use}, and judgements "
            f"alone would teach the model to skip analyses. Leave {entry.name} out, or use prompt.analysis=true: the "
            "analysis then follows the judgement."
        )
    if entry.rows == "demonstrations":
        _check_demonstrations(config)
    if config.init is not None and not entry.trains_adapter:
        raise ConfigError(
            f"{entry.name} cannot start from a run (init): it trains no adapter. "
            f"Those that can are: {', '.join(adapter_names())}."
        )


def _check_demonstrations(config: Config) -> None:
    from adjudge.prompts.demonstrations import demonstration_orders

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
    if is_api(model_of(config)):
        check_api_metrics(model_of(config), specs)
    for spec in specs:
        if spec.is_number and not entry.numbers:
            others = [other.name for other in METHODS.values() if other.trains_adapter and other.numbers]
            raise ConfigError(
                f"{spec.name} is answered with a number, and {entry.name} learns from answers that are right or wrong: "
                f"between numbers near is good. Use another method, such as {', '.join(others)}."
            )
    weighted = [name for name in entry.settings if getattr(getattr(config, name), "class_weight", None) is not None]
    by_label = [f"{name}.class_weight" for name in weighted]
    if entry.trains and config.data.sampling != "all":
        by_label.append(f"data.sampling={config.data.sampling}")
    if entry.trains and config.calibration.rows:
        by_label.append("calibration.rows")
    for setting in by_label:
        for spec in specs:
            need_labels(spec, setting)
    reward = reward_settings(config)
    if reward is not None:
        check_rewards(reward, specs)


def model_of(config: Config) -> str:
    """Return the model of the run's method; "" for a method without one."""
    key = get_entry(config.method).model
    return str(value_of(config, key)) if key else ""


def api_models(config: Config) -> list[str]:
    """Return the models behind an API that the run's method may ask: its own, and the one that writes for it."""
    names = [model_of(config), config.writer.model if "writer" in get_entry(config.method).settings else None]
    return [name for name in names if name is not None and is_api(name)]


def weighs_labels(config: Config) -> bool:
    """Return whether the probabilities of label words are weighed, so that the answer is the likeliest of them."""
    prompt = config.prompt
    if is_api(model_of(config)):
        return False
    weighed = prompt.prior != "none" or prompt.demonstration_orders > 1
    return weighed and get_entry(config.method).rows == "demonstrations"


def answers_likeliest(config: Config) -> bool:
    """Return whether a label task is answered with the likeliest label, so that its probabilities cost nothing more."""
    entry = get_entry(config.method)
    return config.evaluation.decode == "labels" or entry.model != "model" or entry.rates_labels


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
    """Return the reward model which the run's method learns from, or None without one. Raises RunError, ConfigError."""
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


def unread_groups(method: str) -> list[str]:
    """Return the groups of settings that a method never reads."""
    return [name for name in _READ_BY_SOME if name not in get_entry(method).settings]


def own_settings(config: Config, tasks: int = 1) -> Config:
    """Return a run's settings, with groups its method never reads reset to their defaults.

    Two runs are the same run when these are equal: changing ``ppo.clip`` must not make a finished SFT run stale. Where
    a method's settings name its model, `model` is that name. Where label words are weighed, the answer is the likeliest
    of them (``evaluation.decode=labels``).
    """
    entry = get_entry(config.method)
    plain = Config()
    update: dict[str, Any] = {name: getattr(plain, name) for name in unread_groups(config.method)}
    model = model_of(config)
    if entry.model != "model":
        update |= {"model": model, "preset": plain.preset}  # no preset changes it
        update["evaluation"] = config.evaluation.model_copy(update={"decode": plain.evaluation.decode})
    if entry.rows != "demonstrations" or is_api(model):
        update["prompt"] = update.get("prompt", config.prompt).model_copy(update=_WITHOUT_DEMONSTRATIONS)
    if not api_models(config):
        update["api"] = plain.api
    if weighs_labels(config):
        update["evaluation"] = config.evaluation.model_copy(update={"decode": "labels"})
    unread: dict[str, Any] = {} if tasks > 1 else {"mixture": None}
    if entry.rows == "none":
        unread |= {"train_rows": None, "drop_overlap": plain.data.drop_overlap}
    if not entry.trains:
        unread["sampling"] = plain.data.sampling
        update["calibration"] = plain.calibration
    update["data"] = config.data.model_copy(update=unread)
    if config.runtime.trust_remote_code != model:  # code of another method's model
        update["runtime"] = config.runtime.model_copy(update={"trust_remote_code": None})
    return config.model_copy(update=update)
