"""The command line: its options, its messages about mistakes, and how a verb ends."""

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from fake_method import by_first_word, install, reviews, write_reviews
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import Config, keys_of, load_config, value_of
from adjudge.errors import ModelError
from adjudge.experiments.execute import execute
from adjudge.methods.registry import METHODS, check_names
from adjudge.runs.folder import Run
from adjudge.tasks import infer_task, spec_to_yaml

TASK = "--data --dataset --dataset-config --dev --text --label --labels --kind --instruction --separator --encoding"
ROWS = "--task --data-dir --train-rows --eval-rows --split"
OPTIONS = {
    "train": f"{ROWS} --shots {TASK} --mixture --model --encoder --seed --preset --config --prompt-style --decode "
    "--init --reward-funcs --send-rows --report-to --push-to-hub --out --resume --dry-run --force",
    "evaluate": f"{ROWS} {TASK} --method --run --adapter --model --seed --preset --config --prompt-style --decode "
    "--send-rows --out --force",
    "compare": f"{ROWS} --shots {TASK} --folds --mixture --methods --model --encoder --seeds --preset --config "
    "--prompt-style --decode --init --tuned --reward-funcs --send-rows --out --jobs --launcher --dry-run --report-to "
    "--force",
    "tune": f"--task --data-dir --train-rows {TASK} --trials --budget --search --hold-out --model --encoder --seed "
    "--preset --config --prompt-style --decode --reward-funcs --send-rows --out",
    "audit": f"--task --data-dir --rows {TASK} --method --folds --plant --all --model --encoder --seed --preset "
    "--config --send-rows --out --force",
    "calibrate": "--run --rows --task --method --seed --data --text --label --separator --encoding --data-dir --model",
    "continual": f"--tasks {ROWS.removeprefix('--task ')} --method --strategy --order --base --model --seeds --preset "
    "--config --prompt-style --decode --init --out",
    "predict": "--run --input --out --task --method --seed --min-confidence --abstain-share --costs --separator "
    "--encoding --model --decode --send-rows --force",
    "export": "--run --format --out --dtype --rows --max-changed --model",
    "push": "--run --public --base --revision",
    "prune": f"--task --data-dir {TASK} --ratio --criterion --kinds --importance --second-order --padded --rows "
    "--corpus --model --seed --preset --config --dtype --out",
    "generate": "--task --data-dir --skip-dev --labels --about --prompt --form --rows --oversample --select "
    "--temperature --max-tokens --corpus --model --seed --preset --config --out --force",
    "serve": "--run --task --model --host --port --min-confidence --send-rows",
    "report": "--out",
    "rerun": "--out --data-dir --reward-funcs --report-to --send-rows --force",
    "methods": "--preset",
    "tasks": "--data-dir --prompt-style --overlap --export --model --run --split --eval-rows",
    "submit": "--run --task --data-dir --model --decode --send-rows --unreadable --partial --out --check",
    "demo": "--budget --jobs --out",
    "fetch": "",
    "doctor": "--data-dir --json",
    "settings": "--preset",
}
GROUP = typer.main.get_command(app)


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def refused(*arguments):
    """Run a verb, which must end with exit code 2 and one message without a traceback; return the message."""
    result = invoke(*arguments)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return " ".join(result.stderr.split())


def test_verbs_and_options_are_a_contract():
    verbs = {name: command for name, command in GROUP.commands.items() if not command.hidden}
    assert set(verbs) == set(OPTIONS)
    for name, command in verbs.items():
        names = {option for parameter in command.params for option in parameter.opts if option.startswith("--")}
        assert names - {"--help"} == set(OPTIONS[name].split()), name


@pytest.mark.parametrize("verb", OPTIONS)
def test_help_of_every_verb_has_an_example(verb):
    result = invoke(verb, "--help")
    assert result.exit_code == 0
    assert f"adjudge {verb}" in result.stdout


EXAMPLES = [
    pytest.param(example, id=example)
    for verb in OPTIONS
    for example in re.findall(r"`adjudge ([^`]+)`", GROUP.commands[verb].epilog)
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_in_the_help_can_be_parsed(example):
    verb, *arguments = shlex.split(example)
    params = GROUP.commands[verb].make_context(verb, arguments).params
    load_config(preset=params.get("preset") or "default", overrides=params.get("overrides") or ())
    names = [params.get("method"), *(params.get("methods") or "").split(",")]
    assert check_names([name for name in names if name] or METHODS)


def test_defaults_in_the_help_are_those_of_the_configuration():
    shown = invoke("compare", "--help").stdout
    config = Config()
    for value in (config.task, config.model, config.encoder.model, config.data.split, config.prompt.style):
        assert f"({value})" in shown
    assert f"({config.evaluation.decode})" in shown


def test_help_and_version_are_fast():
    import time

    began = time.perf_counter()
    result = subprocess.run([sys.executable, "-m", "adjudge", "--help"], capture_output=True, text=True, check=True)
    assert "compare" in result.stdout
    assert time.perf_counter() - began < 5  # 0.6 s on an idle machine; torch alone would take this long
    assert re.fullmatch(r"adjudge \d+\.\d+\.\d+\n", invoke("--version").stdout)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "pppo"], "no method 'pppo'. Did you mean 'ppo'?"),
        (["train", "few-shot"], "adjudge evaluate --method few-shot"),
        (["evaluate", "--method", "sft"], "adjudge train sft"),
        (["evaluate"], "--method zero-shot"),
        (["evaluate", "--method", "zero-shot", "--run", "x"], "one of them"),
        (["evaluate", "--run", "nowhere"], "nowhere is no run folder"),
        (["evaluate", "--adapter", "nowhere"], "nowhere: there is no such folder"),
        (["evaluate", "--adapter", "x", "--run", "y"], "one of them"),
        (["evaluate", "--method", "adapter"], "adapter needs adapter.folder"),
        (["compare", "--methods", "sft,zero-shoot"], "Did you mean 'zero-shot'?"),
        (["compare", "--methods", "sft,,ppo"], "empty part"),
        (["compare", "--seeds", "0,x"], "'x' is no whole number"),
        (["compare", "--seeds", "-1"], "'-1' is no whole number"),
        (["compare", "--task", "glue/sst3"], "Did you mean 'glue/sst2'?"),
        (["train", "sft", "--task", "none.yaml"], "none.yaml: there is no such file"),
        (["train", "sft", "sft.epoch=3"], "Did you mean 'sft.epochs'?"),
        (["train", "sft", "sft.epochs"], "write key=value"),
        (
            ["train", "sft", "--instruction", "Why?"],
            "--instruction describes your own table: name the table with --data",
        ),
        (["train", "sft", "--preset", "papre"], "Did you mean 'paper'?"),
        (["train", "sft", "--decode", "beam"], "'greedy', 'labels' or 'mean'"),
        (["train", "sft", "--init", "run"], "run holds no adapter to start from"),
        (
            ["train", "encoder", "--init", "run"],
            "--init is for sft, ppo, reinforce, rloo, grpo, critique-grpo, exact, dpo, tdpo, spin, sppo, swie or "
            "reward-model",
        ),
        (["train", "sft", "--train-rows", "0"], "data.train_rows"),
        (["train", "sft", "--config", "none.yaml"], "none.yaml"),
        (["train", "sft", "--text", "a"], "--data FILE"),
        (["train", "sft", "--data", "x.csv"], "x.csv: there is no such file"),
        (["train", "sft", "--data", "x.csv", "--task", "a", "--text", "t", "--label", "l"], "give one of them"),
        (["train", "sft", "--data", "none.csv", "--text", "t", "--label", "l"], "none.csv"),
        (["train", "encoder", "--task", "vader/movies,vader/news"], "encoder takes one task"),
        (["train", "sft", "--task", "vader/movies,vader/movies"], "Name each task once"),
        (
            ["train", "sft", "--task", "vader/movies,vader/news", "--mixture", "even"],
            "proportional, equal, temperature=T with a T from 1, or rows=A,B",
        ),
        (["train", "sft", "--mixture", "equal"], "there is one task"),
        (["train", "multi-sft"], "--task NAME,NAME"),
        (["compare", "--methods", "multi-sft"], "--task NAME,NAME"),
        (["compare", "--mixture", "equal"], "--methods multi-sft,multi-ppo"),
        (["evaluate", "--method", "multi-sft"], "adjudge train multi-sft"),
        (["train", "sft", "--task", "glue/sst2", "--data-dir", "nowhere"], "nowhere: there is no such folder"),
        (["rerun", "nowhere"], "nowhere is no run folder"),
        (["report", "nowhere"], "nowhere: there is no such folder"),
        (["predict", "--run", "r", "--input", "none.csv", "--out", "o.csv"], "none.csv: there is no such file"),
        (["tasks", "glue/sts"], "Did you mean 'glue/stsb'?"),
        (["tasks", "validate"], "Name the file"),
        (["tasks", "--overlap"], "name a task, or give --data-dir"),
        (["tasks", "glue/rte", "--overlap", "--data-dir", "nowhere"], "there is no such folder"),
        (["train", "sft", "prompt.analysis=before"], "the rows have no analyses to teach"),
        (["evaluate", "--method", "few-shot", "prompt.analysis=before"], "the rows have no analyses to show"),
        (["tasks", "glue/rte", "more"], "'more'"),
        (["tasks", "validate", "a.yaml", "more"], "'more'"),
        (["tasks", "glue/rte", "--model", "x"], "--model is only for --export"),
        (["tasks", "--export", "lm-eval", "out", "--overlap"], "give one of the two"),
        (["tasks", "--export", "lm-eval", "out", "glue/sts"], "Did you mean 'glue/stsb'?"),
        (["settings", "qwertz"], "qwertz"),
        (["fetch", "smollm"], "Did you mean 'smollm2-135m'?"),
    ],
)
def test_mistakes_are_named_with_advice(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(*arguments)
    assert not (tmp_path / "runs").exists()


def test_unknown_columns_and_labels_are_named(tmp_path):
    file = write_reviews(tmp_path / "reviews.csv")
    assert "Did you mean 'label'?" in refused("train", "sft", "--data", file, "--text", "text", "--label", "lable")
    assert "Did you mean 'text'?" in refused("train", "sft", "--data", file, "--text", "txt", "--label", "label")
    assert "bad" in refused(
        "train", "sft", "--data", file, "--text", "text", "--label", "label", "--labels", "good=Good,awful=Bad"
    )


@pytest.mark.parametrize(
    "verb", [["train", "sft"], ["train", "encoder"], ["compare"], ["evaluate", "--method", "zero-shot"]]
)
def test_unknown_model_is_refused_before_a_folder_is_made(verb, tmp_path):
    file = write_reviews(tmp_path / "reviews.csv")
    option, wrong, right = (
        ("--encoder", "minilm-l7", "minilm-l6") if "encoder" in verb else ("--model", "smollm2", "smollm2-135m")
    )
    own = ["--data", file, "--text", "text", "--label", "label", "--out", tmp_path / "out"]
    assert f"no model '{wrong}'" in refused(*verb, *own, option, wrong)
    assert f"Did you mean '{right}'?" in refused(*verb, *own, option, wrong)
    assert not (tmp_path / "out").exists()


def test_init_without_an_adapter_is_refused(tmp_path):
    file = write_reviews(tmp_path / "reviews.csv")
    own = ["--data", file, "--text", "text", "--label", "label", "--out", tmp_path / "out"]
    assert "nowhere holds no adapter" in refused("train", "ppo", *own, "--init", "nowhere")
    assert not (tmp_path / "out").exists()


def test_traceback_on_request(monkeypatch):
    monkeypatch.setenv("ADJUDGE_TRACEBACK", "1")
    assert type(invoke("train", "pppo").exception).__name__ == "ConfigError"


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB"), MemoryError()]
)
def test_memory_that_runs_out_says_what_to_change(error, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("adjudge.experiments.execute.execute", fail)
    said = refused("train", "sft", "--task", "vader/movies", "--train-rows", "20")
    assert "memory ran out" in said and "evaluation.batch_size=8" in said and str(error) in said
    error = RuntimeError("a bug of ours")
    assert invoke("train", "sft", "--task", "vader/movies", "--train-rows", "20").exit_code == 1


def test_unknown_verb_or_option_is_a_usage_error():
    assert invoke("trian", "sft").exit_code == 2
    assert invoke("train", "sft", "--modle", "x").exit_code == 2


def test_all_settings_are_listed():
    shown = invoke("settings").stdout
    assert all(key in shown for key in keys_of())
    assert "9.0e-06" in invoke("settings", "lr", "--preset", "paper").stdout


def test_overlap_of_tasks_is_counted(tmp_path):
    folder = tmp_path / "data" / "glue" / "RTE"
    folder.mkdir(parents=True)
    head = "index\tsentence1\tsentence2\tlabel\n"
    (folder / "train.tsv").write_text(
        f"{head}0\tA cat sat.\tIt sat.\tentailment\n1\tA cat sat.\tIt ran.\tentailment\n"
        "2\tA CAT sat.\tIt ran.\tnot_entailment\n"
    )
    (folder / "dev.tsv").write_text(
        f"{head}0\tA cat  sat.\tIt sat.\tentailment\n1\tA cat sat.\tIt slept.\tnot_entailment\n"
    )
    one = invoke("tasks", "glue/rte", "--overlap", "--data-dir", tmp_path / "data")
    assert one.exit_code == 0, one.output
    cells = "glue/rte 3 2 1 50.0 % 0 1 2"
    assert cells in " ".join(one.stdout.split())
    assert "train.tsv:2 = dev.tsv:2" in one.stdout
    every = invoke("tasks", "--overlap", "--data-dir", tmp_path / "data")
    assert every.exit_code == 0
    assert cells in " ".join(every.stdout.split())
    assert "glue/cola is skipped: glue/cola: the train rows are not in --data-dir" in every.stderr
    assert "vader" not in every.output


def test_exported_tasks_are_counted_and_the_command_names_model_and_adapter(tmp_path, tiny_llama):
    table = write_reviews(tmp_path / "reviews.csv")
    task = tmp_path / "mine.yaml"
    task.write_text(spec_to_yaml(infer_task(table, ["text"], "label")))
    exported = invoke("tasks", "--export", "lm-eval", tmp_path / "out", task, "--model", tiny_llama, "--eval-rows", 3)
    assert exported.exit_code == 0, exported.output
    assert "reviews: 3 rows" in exported.stdout
    assert f"--include_path {tmp_path / 'out'} --tasks adjudge --model hf" in exported.stdout
    assert f"pretrained={tiny_llama},dtype=float32\n" in exported.stdout
    asked = invoke("tasks", "--export", "inspect", tmp_path / "asked", task)
    assert "inspect eval" in asked.stdout and (tmp_path / "asked/adjudge_tasks.py").is_file()


def test_tasks_are_listed_described_and_validated(tmp_path):
    assert "glue/sst2" in invoke("tasks").stdout
    described = invoke("tasks", "glue/rte", "--prompt-style", "paper").stdout
    assert "⟨premise⟩" in described
    assert described.rstrip().endswith("<Judgement>")
    good = tmp_path / "good.yaml"
    source = Path(__file__).parents[2] / "src/adjudge/tasks/glue/sst2.yaml"
    shutil.copy(source, good)
    assert "a valid task" in invoke("tasks", "validate", good).stdout
    bad = tmp_path / "bad.yaml"
    bad.write_text(source.read_text().replace("accuracy", "acuracy").replace("template:", "templte:"))
    message = refused("tasks", "validate", bad)
    assert "Did you mean 'accuracy'?" in message
    assert "Did you mean 'template'?" in message


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A finished run of a fake method on a table of reviews."""
    install(monkeypatch, "sft", by_first_word)
    spec = reviews(tmp_path)
    execute(load_config(overrides=["method=sft", "evaluation.resamples=100"]), spec, tmp_path / "run")
    return tmp_path / "run"


def test_train_writes_a_run_folder_and_prints_its_path(tmp_path, monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "reviews.csv")
    own = ["--data", "reviews.csv", "--text", "text", "--label", "label", "--labels", "good=Fine,bad=Poor"]
    result = invoke("train", "sft", *own, "--seed", 3, "--train-rows", 8, "evaluation.resamples=100", "--out", "wrong")
    assert result.exit_code == 2  # the fake method answers good and bad, which are not among the answer words
    result = invoke("train", "sft", *own[:-2], "--seed", 3, "--train-rows", 8, "evaluation.resamples=100")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "runs" / "reviews" / "sft-seed3"
    assert "runs/reviews/sft-seed3" in result.stdout
    scores = Run.open(folder).scores()
    assert (scores["train_rows"], scores["seed"]) == (8, 3)
    assert (folder / "report.html").is_file()
    assert "complete" in refused("train", "sft", *own[:-2], "--seed", 3, "--train-rows", 8, "evaluation.resamples=100")
    assert "another configuration" in refused(
        "train", "sft", *own[:-2], "--seed", 3, "--train-rows", 9, "evaluation.resamples=100"
    )
    assert (
        invoke(
            "train", "sft", *own[:-2], "--seed", 3, "--train-rows", 9, "--force", "evaluation.resamples=100"
        ).exit_code
        == 0
    )


def test_options_become_settings(tmp_path, monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    own = [
        "--data",
        write_reviews(tmp_path / "reviews.csv"),
        "--text",
        "text",
        "--label",
        "label",
        "--out",
        tmp_path / "r",
    ]
    given = {
        "--model": ("model", "some/model"),
        "--seed": ("seed", 3),
        "--data-dir": ("data.data_dir", "data"),
        "--train-rows": ("data.train_rows", 8),
        "--eval-rows": ("data.eval_rows", 4),
        "--split": ("data.split", "train"),
        "--prompt-style": ("prompt.style", "paper"),
        "--decode": ("evaluation.decode", "labels"),
    }
    options = [part for option, (_, value) in given.items() for part in (option, value)]
    result = invoke(
        "train", "sft", *own, *options, "evaluation.resamples=100", "seed=5"
    )  # an option wins over key=value
    assert result.exit_code == 0, result.output
    config = Run.open(tmp_path / "r").config
    assert {key: value_of(config, key) for key, _ in given.values()} == dict(given.values())
    assert (config.method, config.task, config.evaluation.resamples) == ("sft", "reviews", 100)


def test_an_interrupted_run_names_the_command_that_goes_on(tmp_path, monkeypatch):
    def stop(run):
        run.log({"step": 1})
        raise KeyboardInterrupt

    install(monkeypatch, "sft", by_first_word, before=stop)
    file = write_reviews(tmp_path / "my reviews.csv")
    arguments = ["train", "sft", "--data", file, "--text", "text", "--label", "label", "--out", str(tmp_path / "r")]
    arguments = [*map(str, arguments), "--force"]
    monkeypatch.setattr("sys.argv", ["adjudge", *arguments])
    result = invoke(*arguments)
    assert result.exit_code == 130
    assert f"interrupted; {tmp_path / 'r'} is incomplete. To continue:\n" in result.stderr
    next_command = shlex.split(result.stderr.splitlines()[-1])
    assert next_command == ["adjudge", *arguments[:-1], "--resume"]
    assert Run.open(tmp_path / "r").state == "interrupted"


def test_a_run_that_failed_before_its_first_step_is_in_nobodys_way(tmp_path, monkeypatch):
    def fail(_run):
        raise ModelError("no memory")

    file = write_reviews(tmp_path / "reviews.csv")
    arguments = ["train", "sft", "--data", file, "--text", "text", "--label", "label", "--out", tmp_path / "r"]
    with monkeypatch.context() as broken:
        install(broken, "sft", by_first_word, before=fail)
        assert "no memory" in refused(*arguments)
    assert Run.open(tmp_path / "r").state == "failed"
    install(monkeypatch, "sft", by_first_word)
    assert invoke(*arguments, "sft.batch_size=2").exit_code == 0
    assert "another configuration" in refused(*arguments, "sft.batch_size=4")


def test_compare_prints_the_table_and_exits_with_1_after_a_failed_cell(tmp_path, monkeypatch):
    from adjudge.errors import ModelError
    from adjudge.experiments import compare as comparison

    def fail(_run):
        raise ModelError("no such model here")

    install(monkeypatch, "sft", by_first_word)
    install(monkeypatch, "encoder", by_first_word, before=fail)
    original = comparison.compare
    monkeypatch.setattr(comparison, "compare", lambda *args, **options: original(*args, **options, runner=execute))
    file = write_reviews(tmp_path / "reviews.csv")
    own = ["--data", file, "--text", "text", "--label", "label", "--out", tmp_path / "out", "evaluation.resamples=100"]
    result = invoke("compare", *own, "--methods", "sft,encoder")
    assert result.exit_code == 1
    assert "sft" in result.stdout
    assert "encoder seed 0 failed: no such model here" in " ".join(result.stderr.split())
    assert invoke("compare", *own, "--methods", "sft").exit_code == 0
    assert {"table.json", "table.md", "report.html"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_evaluate_refuses_options_fixed_by_training(trained):
    assert "There is no model 'x'" in refused("evaluate", "--run", trained, "--model", "x")
    assert "ppo.clip stays as it is" in refused("evaluate", "--run", trained, "ppo.clip=1")
    assert "--preset" in refused("evaluate", "--run", trained, "--preset", "paper")


def test_evaluate_of_a_run_names_mistakes(trained):
    assert "'greedy', 'labels' or 'mean'" in refused("evaluate", "--run", trained, "--decode", "beam")
    new = trained.parent / "new.csv"
    new.write_text("text\nfine\n", encoding="utf-8")
    assert "'greedy', 'labels' or 'mean'" in refused(
        "predict", "--run", trained, "--input", new, "--out", trained.parent / "o.csv", "--decode", "beam"
    )
    assert "data.eval_rows" in refused("evaluate", "--run", trained, "--eval-rows", 0)
    assert "adjudge compare" in refused("evaluate", "--run", trained, "--task", "vader/movies,vader/news")
    assert "--data FILE" in refused("evaluate", "--run", trained, "--dev", "more.csv")
    assert not (trained / "evaluations").exists()


def test_evaluate_judges_another_split(trained):
    result = invoke("evaluate", "--run", trained, "--split", "train", "--eval-rows", 4)
    assert result.exit_code == 0, result.output
    assert (trained / "evaluations" / "reviews-train-greedy-4" / "scores.json").is_file()


def test_report_is_rendered_again(trained):
    (trained / "report.html").unlink(missing_ok=True)
    assert invoke("report", trained).exit_code == 0
    assert (trained / "report.html").is_file()


COLUMNS = ["id", "text", "note"]
ROWS_IN = [
    ["007", 'good, "really" good', "=1+1"],
    ["1e5", "bad\nover two lines", " padded "],
    ["", "dunno", "\u2028ünï"],
]


def write_csv(path, columns=COLUMNS, rows=ROWS_IN):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([columns, *rows])
    return path


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_predict_keeps_input_columns_and_adds_results(trained, tmp_path):
    source = write_csv(tmp_path / "new.csv")
    result = invoke("predict", "--run", trained, "--input", source, "--out", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    head, *rows = read_csv(tmp_path / "out.csv")
    assert head == [*COLUMNS, "label", "p_bad", "p_good", "unreadable"]
    assert [row[:3] for row in rows] == ROWS_IN
    assert [row[3:] for row in rows] == [
        ["good", "0.5", "0.5", "false"],
        ["bad", "0.5", "0.5", "false"],
        ["", "0.5", "0.5", "true"],
    ]
    assert "1 answers unreadable" in result.stderr


def test_predict_takes_settings_of_the_machine_and_refuses_those_of_the_run(trained, tmp_path, monkeypatch):
    from adjudge.experiments import evaluate

    source, seen = write_csv(tmp_path / "new.csv"), []
    load = evaluate._load
    monkeypatch.setattr(evaluate, "_load", lambda run, specs: seen.append(run.config) or load(run, specs))
    command = ["predict", "--run", trained, "--input", source, "--out", tmp_path / "out.csv"]
    settings = ["runtime.threads=1", "evaluation.batch_size=3", "runtime.dtype=bfloat16", "--decode", "labels"]
    assert invoke(*command, *settings).exit_code == 0
    (config,) = seen
    assert (config.runtime.threads, config.evaluation.batch_size, config.runtime.dtype) == (1, 3, "bfloat16")
    assert config.evaluation.decode == "labels"
    for setting, message in [
        ("prompt.style=paper", "prompt.style stays as it is in"),
        (
            "data.split=train",
            "runtime.device, runtime.dtype, runtime.quantization, runtime.cuda_graphs, runtime.threads,",
        ),
        ("runtime.checkpoint_activations=true", "runtime.checkpoint_activations stays"),
        ("runtime.thread=1", "Did you mean 'runtime.threads'?"),
        ("runtime.threads=0", "greater than or equal to 1"),
        ("threads", "'threads' is no setting: write key=value"),
    ]:
        assert message in refused(*command, "--force", setting)


def test_predict_replaces_a_file_only_when_told_to(trained, tmp_path):
    source, out = write_csv(tmp_path / "new.csv"), tmp_path / "out.csv"
    out.write_text("mine")
    message = refused("predict", "--run", trained, "--input", source, "--out", out)
    assert "is there already. Name another --out, or add --force" in message and out.read_text() == "mine"
    assert invoke("predict", "--run", trained, "--input", source, "--out", out, "--force").exit_code == 0
    assert out.read_text() != "mine"


def test_predict_takes_the_folder_of_a_comparison(trained, tmp_path):
    folder, source = tmp_path / "compare", write_csv(tmp_path / "new.csv")
    shutil.copytree(trained, folder / "best")

    def row(method, value, seed=0, task="reviews"):
        metrics = {"accuracy": {"value": value, "low": value, "high": value}}
        run = "best" if (method, seed) == ("sft", 1) else "other"
        return {"task": task, "method": method, "seed": seed, "primary": "accuracy", "metrics": metrics, "run": run}

    def predict(*more, to="out.csv"):
        return ["predict", "--run", folder, "--input", source, "--out", tmp_path / to, *more]

    rows = [row("ppo", 0.6), row("sft", 0.9, 1)]
    (folder / "table.json").write_text(json.dumps({"rows": rows}))
    result = invoke(*predict())
    assert result.exit_code == 0 and "best: sft, accuracy 0.900" in " ".join(result.stderr.split())
    assert invoke(*predict("--method", "sft", "--seed", "1", to="again.csv")).exit_code == 0
    assert "has no method 'stf'; it has ppo, sft. Did you mean 'sft'?" in refused(
        *predict("--method", "stf", to="c.csv")
    )
    assert "has no seed '1'; it has 0" in refused(*predict("--method", "ppo", "--seed", "1", to="c.csv"))
    (folder / "table.json").write_text(json.dumps({"rows": [*rows, row("sft", 0.5, task="other")]}))
    assert "compares several tasks: name one with --task reviews or other" in refused(*predict(to="c.csv"))
    (folder / "table.json").write_text(json.dumps({"rows": []}))
    assert "has no finished run yet" in refused(*predict(to="c.csv"))
    assert "is no comparison" in refused(
        "predict", "--run", trained, "--input", source, "--out", "o.csv", "--seed", "1"
    )


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_predict_writes_other_formats_with_types(suffix, trained, tmp_path):
    source = write_csv(tmp_path / "new.csv")
    out = tmp_path / f"out{suffix}"
    assert invoke("predict", "--run", trained, "--input", source, "--out", out).exit_code == 0
    if suffix == ".jsonl":
        rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n") if line]
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out).to_pylist()
    assert [[row[column] for column in COLUMNS] for row in rows] == ROWS_IN
    assert [(row["label"], row["p_good"], row["unreadable"]) for row in rows] == [
        ("good", 0.5, False),
        ("bad", 0.5, False),
        (None, 0.5, True),
    ]


def test_predict_keeps_the_text_of_json_values(trained, tmp_path):
    source = tmp_path / "new.jsonl"
    lines = [
        '{"text": "good", "x": 1e5, "y": [1, {"a": null}], "z": 1.0 }',
        '{ "x":12345678901234567890, "text":"b\\u00e4d"}',
    ]
    source.write_text("\n\n".join(lines) + "\n")
    assert invoke("predict", "--run", trained, "--input", source, "--out", tmp_path / "out.jsonl").exit_code == 0
    written = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [line.partition(', "label"')[0] for line in written] == [lines[0][:-2], lines[1][:-1]]
    assert [json.loads(line)["label"] for line in written] == ["good", None]


def test_predict_keeps_the_types_of_parquet(trained, tmp_path):
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.table({"n": pyarrow.array([1, None], pyarrow.int32()), "text": ["good", "bad"], "list": [[1], []]})
    pyarrow.parquet.write_table(table, tmp_path / "new.parquet")
    assert (
        invoke(
            "predict", "--run", trained, "--input", tmp_path / "new.parquet", "--out", tmp_path / "out.parquet"
        ).exit_code
        == 0
    )
    assert pyarrow.parquet.read_table(tmp_path / "out.parquet").select(["n", "text", "list"]).equals(table)


def test_predict_never_overwrites_an_input_column(trained, tmp_path):
    source = write_csv(tmp_path / "new.csv", ["label", "text", "p_good"], [["mine", "good", "0"]])
    result = invoke("predict", "--run", trained, "--input", source, "--out", tmp_path / "out.csv")
    assert read_csv(tmp_path / "out.csv")[0] == [
        "label",
        "text",
        "p_good",
        "predicted_label",
        "p_bad",
        "predicted_p_good",
        "unreadable",
    ]
    assert "'predicted_label'" in result.stderr
    again = refused("predict", "--run", trained, "--input", tmp_path / "out.csv", "--out", tmp_path / "more.csv")
    assert "'predicted_label'" in again


@pytest.mark.parametrize(
    ("columns", "rows", "out", "message"),
    [
        (["id", "txt"], [["1", "good"]], "out.csv", "Did you mean 'txt'?"),
        (["id", "text"], [["1", "good"], ["2", "  "]], "out.csv", "new.csv:3: field 'text' is empty"),
        (["id", "text"], [["1", "good"]], "out.xlsx", "no kind of table that can be written"),
        (["id", "text"], [["1", "good"]], "new.csv", "the input itself"),
        (["id", "text"], [["1", "two\nlines"]], "out.tsv", "column 'text' has a tab or line break"),
        (["id", "text"], [], "out.csv", "no rows"),
    ],
)
def test_predict_refuses_bad_input_or_output_and_writes_nothing(columns, rows, out, message, trained, tmp_path):
    source = write_csv(tmp_path / "new.csv", columns, rows)
    before = source.read_bytes()
    assert message in refused("predict", "--run", trained, "--input", source, "--out", tmp_path / out)
    assert source.read_bytes() == before
    assert out == "new.csv" or not (tmp_path / out).exists()


def test_predict_answers_numbers(tmp_path, monkeypatch):
    from adjudge.tasks import infer_task

    install(monkeypatch, "sft", lambda example: 2.5)
    rows = "".join(f"film {number},{number / 4}\n" for number in range(40))
    (tmp_path / "rated.csv").write_text("text,stars\n" + rows)
    spec = infer_task(tmp_path / "rated.csv", ["text"], "stars")
    assert spec.is_number
    execute(load_config(overrides=["method=sft", "evaluation.resamples=100"]), spec, tmp_path / "run")
    source = write_csv(tmp_path / "new.csv")
    assert invoke("predict", "--run", tmp_path / "run", "--input", source, "--out", tmp_path / "out.tsv").exit_code == 2
    assert invoke("predict", "--run", tmp_path / "run", "--input", source, "--out", tmp_path / "out.csv").exit_code == 0
    assert [row[3:] for row in read_csv(tmp_path / "out.csv")[:2]] == [["number", "unreadable"], ["2.5", "false"]]


def test_train_evaluate_and_predict_from_python(tmp_path, monkeypatch):
    import adjudge
    from adjudge.errors import AdjudgeError

    install(monkeypatch, "ppo", by_first_word)
    install(monkeypatch, "zero-shot", by_first_word)
    task = reviews(tmp_path)
    run = adjudge.train("ppo", task, train_rows=8, eval_rows=4, seed=1, out=tmp_path / "r", evaluation__resamples=100)
    assert (run.scores["n"], run.scores["train_rows"], run.scores["seed"]) == (4, 8, 1)
    assert [prediction.value for prediction in run.predict(["good film", {"text": "bad film"}, "so so"])] == [
        "good",
        "bad",
        None,
    ]
    assert run.predict(["good film"])[0].probabilities == {"bad": 0.5, "good": 0.5}
    again = adjudge.open_run(tmp_path / "r")
    assert again.scores == run.scores
    assert again.evaluate(eval_rows=2)["n"] == 2
    assert (
        adjudge.evaluate("zero-shot", task, eval_rows=4, out=tmp_path / "z", evaluation__resamples=100).scores["n"] == 4
    )
    import pandas

    assert [p.value for p in run.predict(pandas.DataFrame({"id": [1, 2], "text": ["bad x", "good y"]}))] == [
        "bad",
        "good",
    ]
    for rows in ("good film", [{"txt": "good"}], [{"text": " "}], [3]):
        with pytest.raises(AdjudgeError):
            run.predict(rows)
    for wrong in (
        lambda: adjudge.train("zero-shot", task),
        lambda: adjudge.evaluate("ppo", task),
        lambda: adjudge.train("ppo", task, ppo__clp=1),
        lambda: adjudge.open_run(tmp_path / "nowhere"),
    ):
        with pytest.raises(AdjudgeError):
            wrong()
    with pytest.raises(AttributeError):
        _ = adjudge.nothing


@pytest.fixture
def two_tasks(tmp_path):
    """Task files of two tables of reviews."""
    from adjudge.tasks import infer_task, spec_to_yaml

    for name in ("books", "films"):
        spec = infer_task(write_reviews(tmp_path / f"{name}.csv"), ["text"], "label")
        (tmp_path / f"{name}.yaml").write_text(spec_to_yaml(spec))
    return f"{tmp_path / 'books.yaml'},{tmp_path / 'films.yaml'}"


def test_several_tasks_from_the_command_line(two_tasks, tmp_path, monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    monkeypatch.chdir(tmp_path)
    fast = "evaluation.resamples=100"
    result = invoke("train", "sft", "--task", two_tasks, "--mixture", "equal", "--train-rows", 10, fast)
    assert result.exit_code == 0, result.output
    folder = Path("runs/books-films/multi-sft-seed0")
    assert "books" in result.stdout
    assert f"adjudge predict --run {folder} --task books" in result.stdout
    assert "a mixture of 10 training rows: books 5, films 5" in result.stderr
    assert (folder / "report.html").is_file()
    assert {name: part["n"] for name, part in Run.open(folder).scores()["tasks"].items()} == {"books": 8, "films": 8}
    assert invoke("evaluate", "--run", folder).exit_code == 0
    assert not (folder / "evaluations").exists()
    result = invoke("evaluate", "--run", folder, "--split", "train", "--eval-rows", 4)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (folder / "evaluations").iterdir()) == [
        "books-train-greedy-4",
        "films-train-greedy-4",
    ]
    source = write_csv(tmp_path / "new.csv")
    assert "--task" in refused("predict", "--run", folder, "--input", source, "--out", "out.csv")
    assert invoke("predict", "--run", folder, "--task", "films", "--input", source, "--out", "out.csv").exit_code == 0
    assert read_csv(tmp_path / "out.csv")[0] == [*COLUMNS, "label", "p_bad", "p_good", "unreadable"]


def test_several_tasks_from_python(two_tasks, tmp_path, monkeypatch):
    import adjudge
    from adjudge.errors import ConfigError, RunError

    install(monkeypatch, "ppo", by_first_word)
    run = adjudge.train(
        "ppo",
        two_tasks.split(","),
        train_rows=10,
        out=tmp_path / "r",
        data__mixture="temperature=2",
        evaluation__resamples=100,
    )
    assert [task.name for task in run.tasks] == ["books", "films"]
    assert run.config.data.mixture == "temperature=2"
    assert run.predict(["good x"], task="films")[0].value == "good"
    for wrong in (lambda: run.task, lambda: run.predict(["good x"]), lambda: run.predict(["good x"], task="book")):
        with pytest.raises(RunError, match="books, films"):
            wrong()
    assert run.evaluate()["tasks"] == run.scores["tasks"]
    assert run.evaluate(two_tasks.split(",")[0])["task"] == "books"
    assert {name: scores["split"] for name, scores in run.evaluate(split="train")["tasks"].items()} == {
        "books": "train",
        "films": "train",
    }
    with pytest.raises(ConfigError, match="takes one task"):
        adjudge.train("encoder", two_tasks.split(","))


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("tra", {"train"}),
        ("train pp", {"ppo"}),
        ("train sft --task vader/mov", {"vader/movies", "vader/movies-rating"}),
        ("train sft --task vader/news,glue/rt", {"vader/news,glue/rte"}),
        ("train sft tracking.pro", {"tracking.project="}),
        ("train sft --report", {"--report-to"}),
    ],
)
def test_the_shell_completes_verbs_methods_tasks_and_settings(words, completions):
    shell = {
        "_ADJUDGE_COMPLETE": "complete_bash",
        "COMP_WORDS": f"adjudge {words}",
        "COMP_CWORD": str(words.count(" ") + 1),
    }
    result = CliRunner().invoke(app, prog_name="adjudge", env=shell)
    assert set(result.stdout.split()) == completions
