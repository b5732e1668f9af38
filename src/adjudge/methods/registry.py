"""The methods by name, one line per method.

Listing them imports no torch; a method is imported when it is used.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from adjudge.config.methods import own_group
from adjudge.errors import ConfigError, nearest
from adjudge.runs.names import MULTI

if TYPE_CHECKING:
    from adjudge.methods.base import Method


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
    policy_if: tuple[str, tuple[str, ...]] | None = None
    """Setting and values with which it prompts the policy (``model``), in place of a model of its own or beside it."""
    trains_adapter: bool = True
    """True if its LoRA layers can start from a run (``init``) and learn several tasks at once."""
    analysis_before: bool = True
    """True if it allows ``prompt.analysis=before``."""
    numbers: bool = True
    """True if it takes tasks that are answered with a number."""
    lists_answers: bool = False
    """True if it weighs all answers of a label task against each other, so that these must be few."""
    takes_sets: bool = False
    """True if it learns and judges sets of labels (`several`) in its own way, whichever that is."""
    rates_labels: bool = False
    """True if its judge rates every label, whatever ``evaluation.decode`` says."""
    explains: bool = False
    """True if its demonstrations have explanations, as ``prompt.explanations`` says."""
    stepwise: bool = False
    """True if it takes the steps of a task's procedure before each judgement."""
    writes: str = "instructions"
    """What its writer writes, where ``settings`` has one."""
    takes_api: bool = False
    """True if its model may be one behind an API (``api:NAME``), of which it needs no weights."""
    many_questions: bool = False
    """True if it asks its model several questions per row; `Method.outgoing` then says how many."""
    needs: tuple[str, ...] = ()
    """Settings that must be set: without them it has nothing to work with."""
    apart: tuple[tuple[str, str, str], ...] = ()
    """Forms that do not bear its name: setting, value ("" for any that is set), and what it is then."""

    def load(self) -> Method:
        """Import the method (and with it torch)."""
        from adjudge.methods.passes import in_passes

        method: Method = importlib.import_module(self.module).METHOD
        return method if self.takes_sets else in_passes(method)


def _adapter(name: str, summary: str, source: str, *, samples: bool = True, **others: Any) -> Entry:
    """Return the entry of an adapter method in ``methods/NAME.py``, which reads the settings group NAME."""
    settings = ("prompt", "answer", "lora", own_group(name), "checkpoint", "init", *(("guard",) if samples else ()))
    return Entry(name, summary, source, f"adjudge.methods.{own_group(name)}", settings, **others)


def _pairs(name: str, summary: str, source: str, **others: Any) -> Entry:
    """Return the entry of an adapter method that learns which of two label answers is right."""
    return _adapter(name, summary, source, analysis_before=False, numbers=False, lists_answers=True, **others)


def _prompting(name: str, summary: str, source: str, *, groups: tuple[str, ...] = (), **others: Any) -> Entry:
    """Return the entry of a method in ``methods/prompting/NAME.py``, which trains nothing.

    It reads the settings of `groups` too.
    """
    module = f"adjudge.methods.prompting.{own_group(name)}"
    settings = ("prompt", "answer", "api", *groups)
    return Entry(name, summary, source, module, settings, trains=False, trains_adapter=False, takes_api=True, **others)


def _search(name: str, summary: str, source: str, *, helped: bool = True, **others: Any) -> Entry:
    """Return the entry of a method in ``methods/prompting/NAME.py`` which sets something on training rows.

    A writer may be what helps it.
    """
    group = own_group(name)
    settings = ("prompt", "answer", "api", *(("writer",) if helped else ()), group)
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


def _encoder(name: str, summary: str, source: str, *, checkpoints: bool = True, **others: Any) -> Entry:
    """Return the entry of an encoder method in ``methods/NAME.py``; its settings name its model."""
    group = own_group(name)
    settings = (group, *(("checkpoint",) if checkpoints else ()))
    module, model = f"adjudge.methods.{group}", f"{group}.model"
    others = {"lists_answers": True, **others}
    return Entry(name, summary, source, module, settings, model=model, trains_adapter=False, **others)


def _floor(name: str, summary: str, source: str, model: str = "", **others: Any) -> Entry:
    """Return the entry of a method in ``methods/floors/NAME.py``: a regression on untrained features."""
    group = own_group(name)
    module = f"adjudge.methods.floors.{group}"
    others = {"takes_sets": True, **others}
    return Entry(name, summary, source, module, (group,), model=model, trains_adapter=False, **others)


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
        Entry(
            "adapter",
            "a LoRA adapter that peft or trl trained elsewhere, asked",
            "arXiv 2106.09685",
            "adjudge.methods.prompting.adapter",
            ("prompt", "answer", "adapter"),
            trains=False,
            trains_adapter=False,
            rows="none",
            needs=("adapter.folder",),
        ),
        _prompting(
            "nle",
            "few-shot with an explanation of each example, and one of its own before each answer",
            "arXiv 2311.07556",
            groups=("writer",),
            rows="demonstrations",
            explains=True,
            writes="explanations",
            apart=(
                ("prompt.explanations", "none", "few-shot, without explanations"),
                ("prompt.explanation_control", "another", "a control: every explanation is that of another example"),
                ("prompt.explanation_control", "empty", "a control: the place of an explanation is left empty"),
                ("prompt.prior", "content-free", "contextual calibration (arXiv 2102.09690)"),
                ("prompt.prior", "training-rows", "after batch calibration (arXiv 2309.17249), on training rows"),
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
            helped=False,
            apart=(("gepa_edits.calls", "", "GEPA's search with scripted edits, not GEPA: no model reflects"),),
        ),
        _prompting(
            "give",
            "the untrained model answers from a graph of facts, whose gaps it fills",
            "arXiv 2410.08475",
            groups=("give",),
            rows="none",
            numbers=False,
            many_questions=True,
            needs=("give.triples",),
            apart=(
                (
                    "give.use",
                    "progressive",
                    "after GIVE: entities are matched by name, relations chosen from the graph",
                ),
                ("give.use", "paste", "a control for GIVE: triples that name an entity are pasted, nothing is asked"),
            ),
        ),
        _prompting(
            "iip",
            "a program given line by line, or questions answered one by one, before each judgement",
            "arXiv 2410.06667",
            groups=("iip",),
            rows="none",
            stepwise=True,
            apart=(
                ("iip.lines", "", "a reconstruction of IIP (arXiv 2410.06667), whose prompts are not published"),
                ("iip.steps", "", "stepwise prompting by a procedure, which is ours, not IIP"),
            ),
        ),
        _search(
            "prp",
            "pairwise ranking: the untrained model compares candidates, or rows with anchors",
            "arXiv 2306.17563",
            helped=False,
            rates_labels=True,
            many_questions=True,
            apart=(
                ("prp.wins", "probability", "comparisons by mean probability, which is ours, not the paper's"),
                ("prp.orders", "random", "one order per pair, drawn at random, where the paper asks both"),
            ),
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
            lists_answers=True,
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
            lists_answers=True,
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
            "logistic regression on a frozen model's vectors: a floor, in seconds",
            "arXiv 1908.10084",
            model="linear.model",
            policy_if=("linear.states", ("policy", "both")),
            apart=(
                ("linear.states", "policy", "a linear probe of the policy's states (arXiv 1610.01644)"),
                ("linear.states", "both", "the mean of a linear probe and a regression on the encoder's vectors"),
            ),
        ),
        _adapter(
            "head",
            "LoRA layers and a classification head in place of written answers",
            "arXiv 2106.09685",
            samples=False,
            trains_adapter=False,
            analysis_before=False,
            lists_answers=True,
            rates_labels=True,
        ),
        _encoder(
            "setfit",
            "an encoder tuned on pairs of texts, and a logistic regression: for few rows",
            "arXiv 2209.11055",
            checkpoints=False,
            numbers=False,
        ),
        _encoder("encoder", "a BERT-like encoder with a fine-tuned head, the baseline to beat", "arXiv 1810.04805"),
    )
}

ASKED = "zero-shot"
"""The method which asks a model as it is."""

GIVEN = "adapter"
"""The method which asks a model with an adapter that was trained elsewhere."""

AUDITING = "linear"
"""The method which `adjudge audit` judges rows with by default."""

AUDITING_SETTINGS = {"linear.states": "both", "linear.layer": "middle"}
"""Its settings there."""

COMPARED = ("zero-shot", "few-shot", "tfidf", "linear", "sft", "ppo", "encoder")
"""Methods which `adjudge compare` runs by default."""


def adapter_names() -> list[str]:
    """Return the methods whose adapter can start from a run, and learn several tasks."""
    return [entry.name for entry in METHODS.values() if entry.trains_adapter]


def known_names() -> list[str]:
    """Return every name users may type."""
    return [*METHODS, *(f"{MULTI}{name}" for name in adapter_names())]


def get_entry(name: str) -> Entry:
    """Return the entry of a method. Raises ConfigError, which suggests the nearest name."""
    if name not in METHODS:
        raise _unknown(name)
    return METHODS[name]


_SETTINGS_OF = {
    "vineppo": "ppo.values=vine with ppo",
    "vine": "ppo.values=vine with ppo",
    "minor-sft": "sft.minor_beta=1 with sft",
    "tdpo2": "tdpo.variant=tdpo2 with tdpo",
    "dr-grpo": "grpo.variant=dr-grpo with grpo",
    "dapo": "grpo.variant=dapo with grpo",
    "rllr": "a run of reward-model, and reward.model=RUN with a method that samples",
}
"""Published methods that are a setting of another one here."""


def _unknown(name: str) -> ConfigError:
    if name in _SETTINGS_OF:
        return ConfigError(f"'{name}' is no name of a method here. It is {_SETTINGS_OF[name]}.")
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
