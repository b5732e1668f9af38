"""The methods by name, one line per method.

Listing them imports no torch; a method is imported when it is used.
"""

from __future__ import annotations

from collections.abc import Iterable

from adjudge.errors import ConfigError, nearest
from adjudge.methods.entry import (
    Entry,
    adapter_entry,
    encoder_entry,
    floor_entry,
    pairs_entry,
    prompting_entry,
    search_entry,
)
from adjudge.runs.names import MULTI

PAPER = "arXiv 2410.11020"

METHODS: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        prompting_entry("zero-shot", "the untrained model, asked", PAPER, rows="none"),
        prompting_entry(
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
        prompting_entry(
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
        search_entry(
            "bpo",
            "an instruction rewritten from right and wrong answers, and chosen on held-out rows",
            "arXiv 2311.04155",
            apart=(
                ("bpo.rewrites", "", "rewriting by a writer: BPO's trained optimiser (arXiv 2311.04155) is left out"),
                ("bpo.select", "best", "a best-of-n search over rewrites, which is ours, not the paper's"),
            ),
        ),
        search_entry("gepa", "an instruction evolved by a writer that reflects on wrong answers", "arXiv 2507.19457"),
        search_entry(
            "gepa-edits",
            "GEPA's search with scripted edits, without a large model",
            "arXiv 2507.19457",
            helped=False,
            apart=(("gepa_edits.calls", "", "GEPA's search with scripted edits, not GEPA: no model reflects"),),
        ),
        prompting_entry(
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
        prompting_entry(
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
        search_entry(
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
        adapter_entry(
            "sft",
            "supervised fine-tuning on the right answers",
            PAPER,
            samples=False,
            analysis_before=False,
            apart=(("sft.minor_beta", "", "MinorSFT (arXiv 2408.10642)"),),
        ),
        adapter_entry(
            "ppo",
            "proximal policy optimisation on rewards for sampled answers",
            "arXiv 1707.06347",
            apart=(
                ("ppo.values", "vine", "VinePPO (arXiv 2410.01679)"),
                ("ppo.values", "vine-labels", "VinePPO with exact values of labels, which are ours, not the paper's"),
            ),
        ),
        adapter_entry("reinforce", "REINFORCE on rewards for sampled answers, without a critic", "arXiv 2501.03262"),
        adapter_entry("rloo", "REINFORCE with the prompt's other answers as the baseline", "arXiv 2402.14740"),
        adapter_entry("grpo", "rewards relative to the prompt's other answers", "arXiv 2402.03300"),
        adapter_entry(
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
        adapter_entry(
            "exact",
            "the exact expected reward over the labels, nothing sampled",
            "arXiv 1706.05374",
            analysis_before=False,
            lists_answers=True,
        ),
        pairs_entry(
            "dpo",
            "pairs of a right and a wrong answer, against a fixed reference",
            "arXiv 2305.18290",
            apart=(("dpo.loss", "minor-dpo", "a reconstruction of MinorDPO (arXiv 2408.09834)"),),
        ),
        pairs_entry("tdpo", "DPO with the KL to the reference at each token", "arXiv 2404.11999"),
        pairs_entry(
            "spin",
            "the right answers against the model's own of an iteration ago",
            "arXiv 2401.01335",
            apart=(("spin.answers", "labels", "an exact form over the labels, which is ours, not the paper's"),),
        ),
        pairs_entry(
            "sppo",
            "log-ratios moved to the win rates of the model's own answers",
            "arXiv 2405.00675",
            apart=(("sppo.answers", "labels", "an exact form over the labels, which is ours, not the paper's"),),
        ),
        adapter_entry(
            "swie",
            "SFT with what some layers read of the instruction added to later tokens",
            "arXiv 2308.12674",
            samples=False,
            analysis_before=False,
            apart=(("swie.strength", "0.0", "SFT"),),
        ),
        adapter_entry(
            "reward-model",
            "a reward for each answer, learned from pairs; judges by the highest",
            "arXiv 2405.19763",
            numbers=False,
            rates_labels=True,
            apart=(("reward_model.pairs", "rationale", "pairs of analyses by a rule which is ours, not the paper's"),),
        ),
        floor_entry("tfidf", "logistic regression on words: a floor, in seconds", "scikit-learn"),
        floor_entry(
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
        adapter_entry(
            "head",
            "LoRA layers and a classification head in place of written answers",
            "arXiv 2106.09685",
            samples=False,
            trains_adapter=False,
            analysis_before=False,
            lists_answers=True,
            rates_labels=True,
        ),
        encoder_entry(
            "setfit",
            "an encoder tuned on pairs of texts, and a logistic regression: for few rows",
            "arXiv 2209.11055",
            checkpoints=False,
            numbers=False,
        ),
        encoder_entry(
            "encoder", "a BERT-like encoder with a fine-tuned head, the baseline to beat", "arXiv 1810.04805"
        ),
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
