"""The experiments: which tasks, which arms, how many rows and seeds. Nothing here was chosen on the rows reported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

COSTS = {"Negative": {"Positive": -1.0}, "Positive": {"Negative": -5.0}}
"""A "Negative" for a positive row costs five times a "Positive" for a negative one. Right answers cost nothing."""

COST_REWARDS: dict[str, Any] = {
    "right": 0.0,
    "wrong": -5.0,
    "unreadable": -5.0,
    "costs": COSTS,
}


@dataclass(frozen=True, slots=True)
class Arm:
    """A method with its settings. `decision` is what is done with its answers (see `report.decided`)."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    decision: str = "answer"
    of: str = ""
    """Another arm whose runs it takes, when only the decision differs."""
    generated: str = ""
    """The file of generated rows that it learns from (`tables.GENERATED`), in place of the table's own rows."""
    recipe_of: Mapping[str, str] = field(default_factory=dict)
    """By task, the recipe that it takes its method's own settings from."""
    first: tuple[str, Arm] | None = None
    """A setting, and the arm whose run of the same rows and seed it names: that run comes first."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One experiment. Every arm sees the same rows, prompts and row visits per seed.

    A name in `tasks` without a slash is a table of `tables.TABLES`; ``cut:TASK`` is a task whose rows to judge are
    cut from its training rows, to choose settings on.
    """

    what: str
    tasks: tuple[str, ...]
    arms: tuple[Arm, ...]
    rows: int
    seeds: int = 3
    eval_rows: int = 1000
    against: tuple[str, ...] = ("sft",)
    """Arms that the others are tested against."""
    measure: str = "primary"
    """The figure: the task's primary metric, or the mean ``cost`` of an answer."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of all arms."""


SFT = Arm("sft", "sft")
METHODS = ("ppo", "exact", "rloo", "grpo", "reinforce")
EIGHT = (
    *("vader/tweets", "vader/news", "vader/products"),
    *("glue/sst2", "glue/qnli", "glue/mrpc", "glue/cola", "glue/rte"),
)
SMALL = ("vader/tweets", "vader/products", "glue/sst2", "glue/mrpc")
"""Tasks of two labels from which files of 200 rows are cut."""
PARAPHRASES = {f"glue/{task}": f"{task}-prompts.yaml" for task in ("sst2", "rte", "stsb")}
"""Recipes with five instructions for a task."""


def _methods(*names: str, **settings: Any) -> tuple[Arm, ...]:
    return tuple(
        Arm(
            name,
            name,
            {f"{name.replace('-', '_')}.{key.replace('__', '.')}": value for key, value in settings.items()},
        )
        for name in names
    )


def _passes(method: str, *numbers: int) -> tuple[Arm, ...]:
    """Return the method with these numbers of passes over its rows, and no fewest number of steps."""
    return tuple(
        Arm(f"{method}, {number} passes", method, {f"{method}.epochs": number, f"{method}.min_steps": 0})
        for number in numbers
    )


def _ppo(name: str, **settings: Any) -> Arm:
    return Arm(f"ppo, {name}", "ppo", {f"ppo.{key.replace('__', '.')}": value for key, value in settings.items()})


def _rewarded(name: str, method: str, **rewards: Any) -> Arm:
    return Arm(name, method, {f"{method}.reward.{key}": value for key, value in rewards.items()})


PLANS: dict[str, Plan] = {
    "tasks": Plan("plain label tasks: the default PPO beside SFT", EIGHT, (SFT, *_methods("ppo")), rows=400, seeds=2),
    "glue": Plan(
        "GLUE's tasks: SFT, PPO and the encoder, 4,000 rows of each",
        ("glue/sst2", "glue/mrpc", "glue/cola", "glue/rte", "glue/qnli", "glue/qqp", "glue/mnli", "glue/stsb"),
        (SFT, *_methods("ppo", "encoder")),
        rows=4000,
        seeds=1,
    ),
    "candidates": Plan(
        "settings of PPO, one at a time, judged on rows cut from the training rows",
        tuple(f"cut:{task}" for task in EIGHT),
        (
            SFT,
            *_methods("ppo", "exact", "rloo"),
            Arm("exact, arcsin", "exact", {"exact.transform": "arcsin"}),
            _ppo("not balanced", reward__balance=False),
            _ppo("warm start 0.75", warm_start=0.75),
            _ppo("3 passes, warm start 0.67", epochs=3, warm_start=0.67),
            _ppo("one update", update_epochs=1),
            _ppo("lr 3e-5", optimizer__lr=3e-5),
            _ppo("kl 0.05", kl_init=0.05),
            _ppo("kl 0.3", kl_init=0.3),
            _ppo("sft weight 0", sft_weight=0.0),
            _ppo("sft weight 4", sft_weight=4.0),
            _ppo("sft weight 1", sft_weight=1.0, sft_rows="all"),
            _ppo("lr 3e-4", optimizer__lr=3e-4),
            _ppo("kl 0.3, lr 3e-4", kl_init=0.3, optimizer__lr=3e-4),
            Arm("ppo, balanced batches", "ppo", {"data.sampling": "balanced"}),
        ),
        rows=400,
        seeds=1,
        eval_rows=400,
    ),
    "number-candidates": Plan(
        "settings for numbers, one at a time, judged on rows cut from the training rows",
        ("cut:glue/stsb", "cut:vader/movies-rating"),
        (
            SFT,
            *_methods("ppo"),
            _ppo("not balanced", reward__balance=False),
            _ppo("kl 0.15", kl_init=0.15),
            _ppo("no warm start", warm_start=0.0),
            _ppo("warm start of half", warm_start=0.5),
            _ppo("16 samples", samples=16),
            _ppo("lr 3e-4", optimizer__lr=3e-4),
            *_methods("grpo", "rloo", "exact"),
            *(
                replace(arm, name=f"{arm.name}, not balanced")
                for arm in _methods("grpo", "rloo", "exact", reward__balance=False)
            ),
        ),
        rows=1000,
        seeds=1,
    ),
    "encoder": Plan(
        "the encoder's steps and rate on small files, judged on rows cut from the training rows",
        ("cut:vader/tweets", "cut:vader/products", "cut:glue/sst2", "cut:glue/mrpc"),
        (
            Arm("linear", "linear"),
            *(
                Arm(f"{steps} steps, {lr:g}", "encoder", {"encoder.min_steps": steps, "encoder.optimizer.lr": lr})
                for steps in (50, 100, 200, 400)
                for lr in (5e-5, 1e-4, 2e-4)
            ),
        ),
        rows=200,
        seeds=1,
        eval_rows=400,
        against=("linear",),
    ),
    "floors": Plan(
        "the encoder beside logistic regression on its frozen vectors, default settings",
        SMALL,
        (Arm("linear", "linear"), Arm("tfidf", "tfidf"), Arm("encoder", "encoder")),
        rows=200,
        against=("linear",),
    ),
    "rivals": Plan(
        "the cheap rivals beside SFT: two classes, and a table of four",
        ("glue/sst2", "sources"),
        (SFT, *_methods("head", "setfit", "linear", "tfidf")),
        rows=400,
    ),
    "budgets": Plan(
        "how long a small file is trained: the default against other numbers of passes",
        SMALL,
        (
            Arm("encoder", "encoder"),
            *_passes("encoder", 4, 8, 16, 32),
            Arm("sft", "sft"),
            *_passes("sft", 2, 8, 16),
            Arm("ppo", "ppo"),
            *_passes("ppo", 2, 8),
        ),
        rows=200,
    ),
    "sst2": Plan("every method on SST-2", ("glue/sst2",), (SFT, *_methods(*METHODS)), rows=1000),
    "untrained": Plan(
        "every method from the untrained model, without a warm start",
        ("glue/sst2",),
        (SFT, *_methods(*METHODS, warm_start=0.0)),
        rows=600,
    ),
    "own-file": Plan("a table of two classes, 800 rows", ("reviews",), (SFT, *_methods("ppo", "exact")), rows=800),
    "numbers": Plan(
        "numbers: the distance as reward against next-token loss",
        ("glue/stsb", "vader/movies-rating"),
        (SFT, *_methods("ppo", "exact", "rloo", "grpo")),
        rows=1000,
    ),
    "pairs": Plan(
        "learning from pairs and from the model's own answers, beside SFT, PPO, exact and GRPO",
        ("glue/sst2", "vader/movies"),
        (
            SFT,
            *_methods("ppo", "exact", "grpo", "dpo"),
            Arm("tdpo2", "tdpo", {"tdpo.variant": "tdpo2"}),
            *_methods("spin", "sppo"),
            Arm("spin, exact over labels", "spin", {"spin.answers": "labels"}),
            Arm("sppo, exact over labels", "sppo", {"sppo.answers": "labels"}),
            Arm("minor-sft", "sft", {"sft.minor_beta": 1.0}),
            Arm(
                "rllr, label-sensitive",
                "ppo",
                {"ppo.reward.kind": "learned"},
                first=("ppo.reward.model", Arm("reward-model", "reward-model")),
            ),
        ),
        rows=400,
    ),
    "instruction": Plan(
        "instruction embeddings on long and on short inputs, beside SFT with as many trained weights",
        ("superglue/boolq", "vader/movies"),
        (
            SFT,
            Arm("sft, rank 17", "sft", {"lora.r": 17}),
            *_methods("swie"),
            Arm("swie, linear", "swie", {"swie.weights": "linear"}),
        ),
        rows=300,
    ),
    "noisy": Plan(
        "noisy labels: 20 % and 40 % of the training labels flipped",
        ("noisy-20", "noisy-40"),
        (
            SFT,
            *_methods("ppo", "exact", "rloo"),
            _ppo("warm start of half", warm_start_limit=0.0),
            _ppo("kl 0.05, warm start of half, samples alone", kl_init=0.05, warm_start_limit=0.0, sft_weight=0.0),
        ),
        rows=800,
    ),
    "generate": Plan(
        "no labels: SFT on generated rows against the untrained model and against real rows",
        ("reviews",),
        (
            SFT,
            Arm("zero-shot", "zero-shot"),
            Arm("sft, generated", "sft", generated="top"),
            Arm("sft, generated, at random", "sft", generated="random"),
            Arm(
                "sft, generated, smoothed",
                "sft",
                {"sft.label_smoothing": 0.15, "sft.temporal_ensembling.every": 10},
                generated="top",
            ),
        ),
        rows=200,
        against=("zero-shot", "sft"),
    ),
    "skewed": Plan(
        "skewed labels, 90 : 10, scored by macro F1",
        ("skewed",),
        (
            SFT,
            Arm("sft, class weights", "sft", {"sft.class_weight": "balanced"}),
            Arm("sft, prior taken out", "sft", decision="prior", of="sft"),
            *_methods("ppo", "exact"),
            _ppo("not balanced", reward__balance=False),
            _rewarded("ppo, macro F1 as reward", "ppo", metric="macro_f1"),
        ),
        rows=800,
        against=("sft", "sft, class weights"),
        settings={"evaluation.decode": "labels"},
    ),
    "costs": Plan(
        'costs: a wrong "Negative" costs five times a wrong "Positive"',
        ("reviews",),
        (
            SFT,
            Arm("sft, least expected cost", "sft", decision="cost", of="sft"),
            Arm("sft, best threshold on these rows", "sft", decision="oracle", of="sft"),
            _rewarded("ppo, costs as reward", "ppo", **COST_REWARDS),
            _rewarded("exact, costs as reward", "exact", **COST_REWARDS),
        ),
        rows=800,
        against=("sft", "sft, least expected cost"),
        measure="cost",
        settings={"evaluation.decode": "labels"},
    ),
    "credit": Plan(
        "an analysis before the judgement: VinePPO and Critique-GRPO beside PPO and GRPO, at equal sampled tokens",
        ("glue/sst2", "vader/movies", "glue/mnli"),
        (
            # About equal numbers of sampled tokens; the report shows how many they were.
            _ppo("critic", samples=8),
            *_methods("grpo", samples=8),
            _ppo("vine", values="vine", samples=2, vine__rollouts=3, vine__steps=2),
            _ppo("vine, exact over labels", values="vine-labels", samples=2, vine__rollouts=3, vine__steps=2),
            *_methods("critique-grpo", samples=5),
            Arm("grpo+gold", "critique-grpo", {"critique_grpo.samples": 5, "critique_grpo.critique": "gold"}),
        ),
        rows=400,
        eval_rows=400,
        against=("ppo, critic", "grpo"),
        settings={"prompt.analysis": "before", "answer.analysis_tokens": 32},
    ),
    "prompting": Plan(
        "is it worth training: prompting at its best beside SFT and PPO",
        ("glue/sst2", "glue/rte", "glue/stsb"),
        (
            SFT,
            *_methods("ppo", "zero-shot"),
            Arm(
                "few-shot, first rows and no prior",
                "few-shot",
                {"prompt.demonstration_choice": "first", "prompt.prior": "none"},
            ),
            *_methods("few-shot", "nle", "prp", "gepa-edits"),
            Arm("bpo, five paraphrases", "bpo", recipe_of=PARAPHRASES),
            Arm("iip, stepwise", "iip"),
        ),
        rows=400,
        seeds=1,
        eval_rows=200,
        against=("zero-shot", "sft"),
    ),
    "analysis": Plan(
        "an analysis before the judgement",
        ("vader/movies",),
        (
            SFT,
            *_methods("ppo"),
            Arm(
                "ppo, analysis before",
                "ppo",
                {"prompt.analysis": "before", "answer.analysis_tokens": 24},
            ),
        ),
        rows=400,
        eval_rows=400,
    ),
}
"""All experiments by name."""
