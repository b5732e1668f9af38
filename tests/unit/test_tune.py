"""The search of settings: trials, what is searched, what is kept, and the comparison that takes it."""

import json

import pytest
import yaml
from fake_method import by_first_word, install, reviews, write_reviews
from typer.testing import CliRunner

import adjudge
from adjudge.cli.main import app
from adjudge.cli.tune import parse_search, seconds
from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, ModelError, RunError
from adjudge.experiments.execute import execute
from adjudge.experiments.tune import tune, tuned_settings
from adjudge.methods.for_tasks import decided
from adjudge.methods.search_space import Choices, Range, default_space
from adjudge.report.tuned import tuned_lines
from adjudge.runs.folder import Run
from adjudge.tasks import load_split, load_task

LR = "sft.optimizer.lr"


@pytest.fixture(autouse=True)
def methods(monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    install(monkeypatch, "encoder", lambda example: "good")
    install(monkeypatch, "tfidf", lambda example: "good")


@pytest.fixture
def spec(tmp_path):
    return reviews(tmp_path, 400)


class Trials:
    """Runs no trial: answers what `value` makes of its settings, and keeps these."""

    def __init__(self, value, stop_at=None):
        self.value, self.stop_at, self.configs = value, stop_at, []

    def __call__(self, config, tasks, folder, *, resume):
        assert resume
        if len(self.configs) == self.stop_at:
            raise KeyboardInterrupt
        self.configs.append(config)
        value = self.value(config)
        if isinstance(value, Exception):
            raise value
        return {
            "primary": "accuracy",
            "metrics": {"accuracy": {"value": value}},
            "seconds": {"train": 6, "evaluate": 4},
        }

    def rates(self):
        return [config.sft.optimizer.lr for config in self.configs if config.method == "sft"]


def settings(*overrides):
    return load_config(overrides=["evaluation.resamples=100", *overrides])


def near(rate):
    """The nearer to a rate, the better."""
    return lambda config: 1 - abs(config.sft.optimizer.lr - rate)


def search(spec, out, value=None, methods=("sft",), stop_at=None, overrides=(), **options):
    runner = Trials(value or near(5e-4), stop_at)
    return tune(settings(*overrides), spec, methods, out, runner=runner, **options), runner


def cli(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_first_trial_is_the_default_and_the_best_is_kept(spec, tmp_path):
    tuned, ran = search(spec, tmp_path / "t", trials=5)
    assert ran.rates()[0] == 3e-4 and ran.configs[0].sft.epochs == 4, "214 rows: 50 steps are four passes"
    assert all(3e-4 / 4 <= rate <= 3e-4 * 4 for rate in ran.rates()) and len(set(ran.rates())) == 5
    assert all(config.sft.min_steps == 0 for config in ran.configs)
    best = min(ran.rates(), key=lambda rate: abs(rate - 5e-4))
    found = tuned["methods"]["sft"]
    assert found["settings"][LR] == best and found["best"] == pytest.approx(1 - abs(best - 5e-4))
    assert (found["trials"], found["failed"], found["default"]) == (5, 0, pytest.approx(1 - 2e-4))
    assert json.loads((tmp_path / "t/tuned.json").read_text()) == tuned
    assert load_config(file=tmp_path / "t/sft.yaml").sft.optimizer.lr == best
    assert "| sft    |      5 |" in (tmp_path / "t/tuned.md").read_text()


def test_trials_learn_and_are_judged_on_training_rows_alone(spec, tmp_path):
    tuned = tune(settings(), spec, ["sft"], tmp_path / "t", trials=1, runner=execute)
    dev = {row.fields["text"] for row in load_split(spec, "dev")}
    run = Run.open(tmp_path / "t/sft/trial-000")
    judged = {each.fields["text"] for each in run.predictions("dev")}
    assert len(judged) == tuned["hold_out"] == 106 and not judged & dev, "a third of 320 rows"
    assert tuned["train_rows"] == 320 - 106
    assert run.scores()["hold_out"] == 106


def test_methods_take_turns_and_have_as_many_trials_when_the_time_is_over(spec, tmp_path, capsys):
    tuned, ran = search(spec, tmp_path / "t", methods=("sft", "encoder"), trials=9, budget_s=45)
    assert [config.method for config in ran.configs] == ["sft", "encoder"] * 3, "10 seconds each"
    assert [tuned["methods"][name]["trials"] for name in ("sft", "encoder")] == [3, 3]
    assert "the time is over after 3 of 9 trials per method" in capsys.readouterr().err


def test_a_stopped_search_goes_on_with_the_same_trials(spec, tmp_path):
    whole, all_ran = search(spec, tmp_path / "whole", trials=5)
    with pytest.raises(KeyboardInterrupt, match="stopped"):
        search(spec, tmp_path / "stopped", trials=5, stop_at=3)
    again, ran = search(spec, tmp_path / "stopped", trials=5)
    assert ran.rates() == all_ran.rates()[3:]
    assert again["methods"] == whole["methods"]
    more, ran = search(spec, tmp_path / "stopped", trials=6)
    assert len(ran.configs) == 1 and more["methods"]["sft"]["trials"] == 6


def test_trials_that_fail_or_have_no_value_count_and_are_never_best(spec, tmp_path, capsys):
    values = iter([0.5, RunError("no memory"), None, 0.4])
    tuned, _ = search(spec, tmp_path / "t", value=lambda config: next(values), trials=4)
    found = tuned["methods"]["sft"]
    assert (found["trials"], found["failed"], found["best"], found["run"]) == (4, 2, 0.5, "sft/trial-000")
    assert "sft, trial 2 of 4 failed: no memory" in capsys.readouterr().err
    values = iter([DataError("no")])
    tuned, _ = search(spec, tmp_path / "none", value=lambda config: next(values), trials=1)
    assert tuned["methods"]["sft"]["settings"] == {}


def test_own_ranges_take_the_place_of_the_default_ones(spec, tmp_path):
    given = {LR: Range(1e-5, 2e-5), "sft.batch_size": Choices((4, 8))}
    _, ran = search(spec, tmp_path / "t", trials=4, search=given)
    assert all(1e-5 <= rate <= 2e-5 for rate in ran.rates()), "also the first: the default is not among them"
    assert {config.sft.batch_size for config in ran.configs} == {4, 8}
    with pytest.raises(RunError, match="holds a search of sft with other settings, rows or ranges"):
        search(spec, tmp_path / "t", trials=4)


def test_a_method_with_nothing_to_search_is_named(spec, tmp_path, capsys):
    tuned, ran = search(spec, tmp_path / "t", methods=("tfidf", "sft"), trials=1)
    assert "tfidf has no settings to search; it is compared as it is." in capsys.readouterr().err
    assert tuned["methods"]["tfidf"] == {"trials": 0, "failed": 0, "settings": {}} and len(ran.configs) == 1
    with pytest.raises(ConfigError, match="there is nothing to search"):
        search(spec, tmp_path / "u", methods=("tfidf",))


@pytest.mark.parametrize(
    ("methods", "options", "message"),
    [
        (("multi-sft",), {}, "settings are searched on one task. Tune sft."),
        (("sft",), {"trials": 0}, "--trials 0: at least one is needed"),
        (("sft",), {"search": {"lora.r": Choices((8, 16))}}, "lora.r: it is no setting of sft alone"),
        (("sft",), {"overrides": ["data.hold_out=300"]}, "would judge 300 of its training rows and leave 20"),
    ],
)
def test_what_cannot_be_searched_is_refused(spec, tmp_path, methods, options, message):
    with pytest.raises((ConfigError, DataError), match=message):
        search(spec, tmp_path / "t", methods=methods, **options)
    assert not (tmp_path / "t").exists()


def test_the_default_space_of_each_kind_of_method():
    config = load_config()
    assert set(default_space("sft", config, 1000)) == {LR, "sft.epochs"}
    ppo = default_space("ppo", decided(load_config(overrides=["method=ppo"]), [load_task("glue/sst2")]), 1600)
    assert set(ppo) == {"ppo.optimizer.lr", "ppo.epochs", "ppo.warm_start", "ppo.kl_init"}
    assert ppo["ppo.epochs"] == Choices((1, 2, 4, 8)) and ppo["ppo.warm_start"] == Choices((0.25, 0.5, 0.75))
    assert set(default_space("few-shot", config, 100)) == {"prompt.demonstrations", "prompt.demonstration_choice"}
    assert default_space("zero-shot", config, 100) == default_space("linear", config, 100) == {}


def test_a_comparison_takes_the_best_settings_and_says_so(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("adjudge.experiments.compare.CellProcesses", _InThisProcess)
    search(spec, tmp_path / "t", methods=("sft", "tfidf"), trials=3)
    best, _ = tuned_settings(tmp_path / "t", ["sft"], [spec])
    own = ("--data", tmp_path / "reviews.csv", "--text", "text", "--label", "label", "evaluation.resamples=100")
    again = cli("compare", *own, "--methods", "sft,tfidf", "--tuned", tmp_path / "t", "--out", tmp_path / "c")
    assert again.exit_code == 0, again.output
    config = yaml.safe_load((tmp_path / "c/reviews/sft/seed-0/config.yaml").read_text())
    assert config["sft"]["optimizer"]["lr"] == best[LR] and config["data"]["hold_out"] is None
    sentence = "settings of sft were searched, 3 trials each, on 106 held-out training rows of reviews"
    assert sentence in " ".join(again.stdout.split()) and sentence in (tmp_path / "c/table.md").read_text()
    refused = cli("compare", *own, "--methods", "sft,encoder", "--tuned", tmp_path / "t", "--out", tmp_path / "d")
    assert "has no settings for encoder: tuned methods are compared with tuned ones" in " ".join(refused.output.split())
    refused = cli("compare", *own, "--methods", "sft", "--tuned", tmp_path, "--out", tmp_path / "d")
    assert "holds no search" in refused.output


def test_unequal_trials_and_another_task_are_pointed_out(spec, tmp_path, capsys):
    search(spec, tmp_path / "t", methods=("sft", "encoder"), trials=2)
    file = tmp_path / "t/tuned.json"
    tuned = json.loads(file.read_text())
    tuned["methods"]["encoder"]["trials"] = 5
    file.write_text(json.dumps(tuned))
    tuned_settings(tmp_path / "t", ["sft", "encoder"], [spec.model_copy(update={"name": "songs"})])
    error = " ".join(capsys.readouterr().err.split())
    assert "different numbers of trials: sft 2, encoder 5" in error
    assert "settings were searched on reviews" in error


def test_the_command_ends_with_the_one_that_judges_fairly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "reviews.csv", 400)
    own = ("--data", "reviews.csv", "--text", "text", "--label", "label")
    monkeypatch.setattr("adjudge.experiments.tune.CellProcesses", _InThisProcess)
    result = cli("tune", "sft", *own, "--trials", 2, "--budget", "1h", "evaluation.resamples=100")
    assert result.exit_code == 0, result.output
    last = result.stdout.strip().splitlines()[-1]
    assert last.startswith("  adjudge compare --methods sft --tuned runs/tune-reviews --data reviews.csv")


def test_from_python_a_search_is_made_goes_on_and_is_taken_by_a_comparison(spec, tmp_path, monkeypatch):
    for verb in ("tune", "compare"):
        monkeypatch.setattr(f"adjudge.experiments.{verb}.CellProcesses", _InThisProcess)
    own = {"data": tmp_path / "reviews.csv", "text": "text", "label": "label", "evaluation__resamples": 100}
    space = {LR: "1e-5..2e-5", "sft.batch_size": [4, 8]}
    options = {**own, "search": space, "hold_out": 50, "out": tmp_path / "t"}
    for trials in (2, 3):
        search = adjudge.tune("sft", **options, trials=trials)
        assert search.tuned["methods"]["sft"]["trials"] == trials
    best = search.settings("sft")
    assert 1e-5 <= best[LR] <= 2e-5 and best["sft.batch_size"] in (4, 8) and search.tuned["hold_out"] == 50
    comparison = adjudge.compare(
        methods=["sft"], **own, tuned=search, out=tmp_path / "c", sft__batch_size=2, runtime__threads=1
    )
    config = comparison.best().config
    assert config.sft.optimizer.lr == best[LR] and config.data.hold_out is None
    assert config.sft.batch_size == 2, "what is given is kept"
    with pytest.raises(RunError, match="has no settings for ppo, only for sft"):
        search.settings("ppo")
    with pytest.raises(RunError, match="holds no search"):
        adjudge.compare(methods=["sft"], **own, tuned=tmp_path, out=tmp_path / "d")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"sft.optimizer.rate": [1]}, "there is no setting 'sft.optimizer.rate'"),
        ({LR: "1e-3..1e-5"}, "does not go from a number above 0 to a larger one"),
        ({LR: "1e-3"}, "is not between two numbers"),
        ({LR: []}, "name at least one value"),
    ],
)
def test_from_python_a_search_of_nothing_is_refused(spec, tmp_path, space, message):
    with pytest.raises(ConfigError, match=message):
        adjudge.tune("sft", spec, search=space, out=tmp_path / "t")
    with pytest.raises(ConfigError, match="tune takes one task"):
        adjudge.tune("sft", [spec, spec.model_copy(update={"name": "second"})], out=tmp_path / "t")
    assert not (tmp_path / "t").exists()


class _InThisProcess:
    def __enter__(self):
        return execute

    def __exit__(self, *_):
        return None


def test_times_and_ranges_are_read():
    assert [seconds(text) for text in ("2h", "90m", "1h30m", "20s", "0.5h")] == [7200, 5400, 5400, 20, 1800]
    for wrong in ("2", "h", "2 hours", "1h-3m", ""):
        with pytest.raises(ConfigError, match="is no time"):
            seconds(wrong)
    assert parse_search(f"{LR}=1e-5..1e-3") == (LR, Range(1e-5, 1e-3))
    assert parse_search("sft.epochs=1,2, 4") == ("sft.epochs", Choices((1, 2, 4)))
    assert parse_search("sft.class_weight=null,balanced") == ("sft.class_weight", Choices((None, "balanced")))
    for wrong in ("sft.optimizer.lr", f"{LR}=", f"{LR}=2..1", f"{LR}=0..1", f"{LR}=a..b", "sft.optimizer.learning=1,2"):
        with pytest.raises(ConfigError, match="search"):
            parse_search(wrong)


def test_a_method_whose_trials_all_failed_is_not_compared_as_tuned(spec, tmp_path):
    out = tmp_path / "search"
    fails = Trials(lambda config: ModelError("no memory") if config.method == "encoder" else 0.5)
    tuned = tune(settings(), spec, ["sft", "encoder"], out, trials=2, runner=fails)
    assert "encoder: every trial failed" in "\n".join(tuned_lines(tuned))
    assert tuned_settings(out, ["sft"], [spec])[0]
    with pytest.raises(ConfigError, match="every trial of encoder failed"):
        tuned_settings(out, ["sft", "encoder"], [spec])


def test_a_search_of_other_precision_is_another_search(spec, tmp_path):
    out = tmp_path / "search"
    tune(settings(), spec, ["sft"], out, trials=1, runner=Trials(lambda config: 0.5))
    tune(settings("runtime.threads=1"), spec, ["sft"], out, trials=1, runner=Trials(lambda config: 0.5))
    with pytest.raises(RunError):
        tune(settings("runtime.dtype=bfloat16"), spec, ["sft"], out, trials=1, runner=Trials(lambda config: 0.5))
