"""The methods by name, and which settings make two runs the same run."""

import subprocess
import sys

import pytest

from adjudge.config import load_config, parse_config, upgrade
from adjudge.errors import ConfigError
from adjudge.experiments.execute import run_settings
from adjudge.methods.base import Method
from adjudge.methods.for_tasks import first_kl
from adjudge.methods.registry import METHODS, check_names, get_entry
from adjudge.methods.settings import check_settings, forms_apart, own_settings, sft_weight
from adjudge.runs.folder import differences
from adjudge.tasks import load_task


def test_the_names_are_a_contract():
    assert list(METHODS) == [
        "zero-shot",
        "few-shot",
        "adapter",
        "nle",
        "bpo",
        "gepa",
        "gepa-edits",
        "give",
        "iip",
        "prp",
        "sft",
        "ppo",
        "reinforce",
        "rloo",
        "grpo",
        "critique-grpo",
        "exact",
        "dpo",
        "tdpo",
        "spin",
        "sppo",
        "swie",
        "reward-model",
        "tfidf",
        "linear",
        "head",
        "setfit",
        "encoder",
    ]


@pytest.mark.parametrize("name", METHODS)
def test_each_entry_leads_to_the_method_of_its_name(name):
    entry = get_entry(name)
    assert entry.name == name
    assert isinstance(entry.load(), Method)
    assert entry.trains == (name not in ("zero-shot", "few-shot", "adapter", "nle", "iip", "give"))


@pytest.mark.parametrize(
    ("wrong", "right"), [("pppo", "ppo"), ("zeroshot", "zero-shot"), ("SFT", "sft"), ("bert", "encoder")]
)
def test_an_unknown_name_gets_the_nearest_or_the_list(wrong, right):
    with pytest.raises(ConfigError) as caught:
        get_entry(wrong)
    assert wrong in str(caught.value)
    assert right in str(caught.value)


def test_each_method_is_taken_once_in_the_order_given():
    assert check_names(["ppo", "sft", "ppo"]) == ("ppo", "sft")
    with pytest.raises(ConfigError):
        check_names([])


def test_the_command_line_starts_without_torch_and_its_kin():
    code = (
        "import sys, adjudge, adjudge.cli.main, adjudge.experiments.compare, adjudge.experiments.predict_file, "
        "adjudge.methods.registry\n"
        "print([m for m in ('torch', 'transformers', 'pandas', 'numpy', 'datasets', 'matplotlib', 'sklearn', 'scipy') "
        "if m in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize(
    ("method", "override", "matters"),
    [
        ("sft", "ppo.clip=0.1", False),
        ("sft", "sft.epochs=9", True),
        ("sft", "lora.r=4", True),
        ("ppo", "sft.epochs=9", False),
        ("ppo", "init=runs/sft", True),
        ("zero-shot", "lora.r=4", False),
        ("zero-shot", "data.train_rows=9", False),
        ("zero-shot", "prompt.style=paper", True),
        ("few-shot", "data.train_rows=9", True),
        ("few-shot", "prompt.prior=content-free", True),
        ("few-shot", "prompt.demonstration_orders=2", True),
        ("few-shot", "prompt.explanations=file", False),
        ("nle", "prompt.explanations=file", True),
        ("nle", "prompt.explanation_control=another", True),
        ("nle", "writer.model=other", True),
        ("nle", "writer.temperature=0.1", False),
        ("iip", "iip.max_tokens=9", True),
        ("iip", "data.train_rows=9", False),
        ("zero-shot", "iip.max_tokens=9", False),
        ("sft", "prompt.prior=content-free", False),
        ("zero-shot", "prompt.demonstration_orders=2", False),
        ("zero-shot", "data.drop_overlap=true", False),
        ("sft", "data.drop_overlap=true", True),
        ("sft", "prompt.analysis=true", True),
        ("zero-shot", "answer.analysis_tokens=9", True),
        ("give", "data.train_rows=9", False),
        ("give", "give.use=paste", True),
        ("give", "prp.anchors=3", False),
        ("prp", "prp.anchors=3", True),
        ("prp", "writer.model=other", False),
        ("encoder", "prompt.style=paper", False),
        ("encoder", "prompt.analysis=true", False),
        ("encoder", "prompt.analysis=before", False),
        ("encoder", "answer.analysis_tokens=9", False),
        ("encoder", "model=other", False),
        ("encoder", "encoder.model=other", True),
        ("encoder", "encoder.epochs=9", True),
        ("encoder", "data.train_rows=9", True),
        ("encoder", "evaluation.decode=labels", False),
        ("sft", "evaluation.decode=labels", True),
    ],
)
def test_only_settings_that_a_method_reads_make_another_run(method, override, matters):
    plain = own_settings(load_config(overrides=[f"method={method}"]))
    changed = own_settings(load_config(overrides=[f"method={method}", override]))
    assert (plain != changed) == matters


@pytest.mark.parametrize(
    ("method", "override", "named"),
    [
        ("spin", "spin.answers=labels", ["spin.answers=labels"]),
        ("spin", "spin.answers=sampled", []),
        ("spin", "sppo.answers=labels", []),
        ("dpo", "dpo.loss=minor-dpo", ["dpo.loss=minor-dpo"]),
        ("sft", "sft.minor_beta=0.5", ["sft.minor_beta=0.5"]),
        ("sft", "sft.epochs=3", []),
        ("swie", "swie.strength=0", ["swie.strength=0.0"]),
        ("swie", "swie.strength=1", []),
        ("prp", "prp.wins=agreed", []),
        ("prp", "prp.wins=probability", ["prp.wins=probability"]),
        ("give", "give.use=paste", ["give.use=paste"]),
        ("few-shot", "prompt.prior=none", []),
        ("few-shot", "prompt.prior=training-rows", ["prompt.prior=training-rows"]),
        ("nle", "prompt.explanations=none", ["prompt.explanations=none", "prompt.prior=training-rows"]),
        ("nle", "prompt.explanation_control=empty", ["prompt.explanation_control=empty", "prompt.prior=training-rows"]),
        ("sft", "prompt.prior=training-rows", []),
        ("ppo", "ppo.clip=0.1", []),
        ("ppo", "ppo.values=vine", ["ppo.values=vine"]),
        ("grpo", "ppo.values=vine", []),
        ("critique-grpo", "prompt.analysis=before", []),
        ("critique-grpo", "prompt.analysis=false", ["prompt.analysis=False"]),
        ("critique-grpo", "critique_grpo.critique=gold", ["critique_grpo.critique=gold", "prompt.analysis=False"]),
    ],
)
def test_forms_that_are_not_what_the_name_says_are_told_apart(method, override, named):
    config = load_config(overrides=[f"method={method}", override])
    assert [form["setting"] for form in forms_apart(config)] == named


def test_the_encoder_run_is_named_after_the_encoder():
    config = own_settings(load_config(overrides=["method=encoder", "encoder.model=some/bert"]))
    assert config.model == config.encoder.model == "some/bert"


def test_own_settings_of_own_settings_are_the_same():
    for name in METHODS:
        once = own_settings(load_config(preset="paper", overrides=[f"method={name}"]))
        assert own_settings(once) == once


@pytest.mark.parametrize(("method", "reason"), [("sft", "no analyses to teach"), ("few-shot", "no analyses to show")])
def test_rows_hold_no_analyses_to_learn_from(method, reason):
    with pytest.raises(
        ConfigError, match=f"{method} cannot go with prompt.analysis=before.*{reason}.*prompt.analysis=true"
    ):
        check_settings(load_config(overrides=[f"method={method}", "prompt.analysis=before"]))
    for analysis in ("true", "false"):
        check_settings(load_config(overrides=[f"method={method}", f"prompt.analysis={analysis}"]))


@pytest.mark.parametrize("method", ["zero-shot", "ppo", "encoder"])
def test_what_needs_no_analyses_may_have_them_first(method):
    check_settings(load_config(overrides=[f"method={method}", "prompt.analysis=before"]))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ((), 1.0),
        (("ppo.warm_start=0",), 0.05),
        (("ppo.warm_start=0", "init=runs/sft"), 1.0),
        (("prompt.analysis=before",), 0.05),
        (("ppo.kl_init=0",), 0.0),
        (("ppo.warm_start=0", "ppo.kl_init=0.3"), 0.3),
    ],
)
def test_the_pull_to_the_reference_is_strong_where_it_was_taught(overrides, expected):
    assert first_kl(load_config(overrides=list(overrides))) == expected


@pytest.mark.parametrize("method", ["sft", "tfidf", "encoder", "ppo", "grpo", "dpo"])
def test_a_run_from_before_numbers_had_a_default_of_their_own_goes_on(method):
    """Such runs recorded the warm start of every method."""
    now = run_settings(load_config(overrides=[f"method={method}"]), [load_task("glue/sst2")])
    before = now.model_dump(mode="json")
    for name, group in before.items():
        if "warm_start_limit" in (group or ()):
            before[name] |= {"warm_start": 0.5, "warm_start_limit": 0.75}
    assert differences(parse_config(upgrade(before)), now) == []


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo", "reinforce", "exact"])
def test_numbers_have_a_short_warm_start_and_a_weak_pull(method):
    """Next tokens teach a number's form, and its distance teaches the number."""

    def begun(tasks, *overrides):
        config = run_settings(load_config(overrides=[f"method={method}", *overrides]), [*map(load_task, tasks)])
        settings = getattr(config, method)
        return settings.warm_start, settings.warm_start_limit

    assert begun(["glue/stsb"]) == (0.2, 0.0) and begun(["glue/stsb", "vader/movies-rating"]) == (0.2, 0.0)
    assert begun(["glue/sst2"]) == begun(["glue/stsb", "glue/sst2"]) == (0.5, 0.75)
    assert begun(["glue/stsb"], f"{method}.warm_start=0.5", f"{method}.warm_start_limit=0.6") == (0.5, 0.6)
    assert first_kl(load_config(), numbers=True) == 0.05


@pytest.mark.parametrize("method", ["ppo", "grpo", "rloo", "reinforce", "exact", "critique-grpo"])
def test_a_run_records_that_its_numbers_are_balanced(method):
    """Runs from before left it unset, and were not, so that they do not go on with other rewards."""
    group = method.replace("-", "_")

    def balance(tasks, *overrides):
        config = run_settings(load_config(overrides=[f"method={method}", *overrides]), [*map(load_task, tasks)])
        return getattr(config, group).reward.balance

    if method != "critique-grpo":
        assert balance(["glue/stsb"]) is True and balance(["glue/sst2", "glue/stsb"]) is True
        assert balance(["glue/stsb"], f"{group}.reward.metric=pearson") is False
        assert balance(["glue/stsb"], f"{group}.reward.balance=false") is False
    assert balance(["glue/sst2"]) is None


def test_numbers_have_a_first_kl_of_their_own():
    assert first_kl(load_config(), numbers=True) == 0.05
    assert first_kl(load_config(overrides=["ppo.kl_init=1"]), numbers=True) == 1.0


@pytest.mark.parametrize(
    ("task", "overrides", "expected"),
    [
        ("glue/sst2", (), 1.0),
        ("glue/stsb", (), 0.0),
        ("glue/sst2", ("ppo.warm_start=0",), 0.0),
        ("glue/sst2", ("ppo.warm_start=0", "init=runs/sft"), 1.0),
        ("glue/sst2", ("prompt.analysis=before",), 0.0),
        ("glue/sst2", ("ppo.reward.functions=my.py:f",), 0.0),
        ("glue/sst2", ("ppo.reward.metric=f1",), 0.0),
        ("glue/sst2", ("ppo.reward.functions=my.py:f", "ppo.sft_weight=0.3"), 0.3),
        ("glue/sst2", ("ppo.sft_weight=0",), 0.0),
        ("glue/sst2", ("preset=paper", "init=runs/sft"), 0.0),
    ],
)
def test_right_answers_are_taught_beside_where_nothing_else_is_wanted(task, overrides, expected):
    assert sft_weight(load_config(overrides=list(overrides)), load_task(task)) == expected


@pytest.mark.parametrize(("distance", "expected"), [("auto", 0.0), ("linear", 0.0), ("none", 1.0)])
def test_of_labels_in_an_order_right_answers_are_taught_where_near_ones_earn_nothing(distance, expected):
    spec = load_task("glue/sst2").model_copy(update={"ordered": True})
    assert sft_weight(load_config(overrides=[f"ppo.reward.distance={distance}"]), spec) == expected
