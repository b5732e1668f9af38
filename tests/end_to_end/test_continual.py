"""A stream of two tasks on a tiny model: ordinary runs, started from each other, and the matrix over them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_method import by_first_word, install, reviews
from policies import watched_loads
from running import EPOCHS_ALONE
from typer.testing import CliRunner

from adjudge.cli.main import app
from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments import continual
from adjudge.experiments.continual import plan_streams, run_streams
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.tasks import infer_task, load_split

KINDS = {
    "films": [("a warm and funny film", "Good"), ("a dull and slow film", "Bad")],
    "pairs": [("the plot is tired", "No"), ("the scene is charming", "Yes")],
}


@pytest.fixture(scope="module")
def specs(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("tasks"), []
    for name, kinds in KINDS.items():
        for split, count in (("train", 16), ("dev", 6)):
            lines = "".join("{},{}\n".format(*kinds[index % 2]) for index in range(count))
            (folder / f"{name}-{split}.csv").write_text("text,label\n" + lines)
        spec = infer_task(folder / f"{name}-train.csv", ["text"], "label", dev=folder / f"{name}-dev.csv")
        made.append(spec.model_copy(update={"name": name}))
    return made


@pytest.fixture(scope="module")
def config(able):
    values = {"sft.batch_size": 8, "sft.epochs": 6, "sft.optimizer.lr": 1e-2, "evaluation.resamples": 100}
    fixed = {"model": str(able), "method": "sft", "runtime.device": "cpu", "runtime.dtype": "float32"}
    return load_config(values={**EPOCHS_ALONE, **fixed, **values, "data.train_rows": 16})


def stream(config, specs, out, *strategies, orders=(), seeds=(0,), runner=execute):
    return run_streams(config, plan_streams(config, specs, strategies, orders, seeds, out), out, runner=runner)


@pytest.fixture(scope="module")
def matrix(config, specs, tmp_path_factory):
    out = tmp_path_factory.mktemp("stream")
    return out, stream(config, specs, out, "sequential", "replay=0.5", "separate", "multi")


def value(folder, task=None):
    scores = Run.open(folder).scores()
    return scores["metrics"]["accuracy"]["value"]


def test_the_contract_of_the_matrix(matrix):
    out, result = matrix
    assert json.loads((out / "matrix.json").read_text()) == result
    assert (result["tasks"], result["stages"]) == (["films", "pairs"], ["untrained", "films", "pairs"])
    assert {"R", "acc", "bwt", "forgetting", "fwt"} <= result.keys()
    assert [run["strategy"] for run in result["runs"]] == ["sequential", "replay=0.5", "separate", "multi"]


def test_stages_start_from_each_other_and_are_judged_on_all_tasks(matrix):
    out, result = matrix
    first, second = map(Run.open, result["folders"])
    assert first.config.init is None and first.config.task == "films" and first.config.data.train_rows == 16
    assert second.config.init == str(first.folder) and second.config.task == "pairs"
    R = result["R"]
    assert R[0] == [value(out / "untrained" / name) for name in KINDS]
    assert R[1] == [value(first.folder), value(first.folder / "after" / "pairs")]
    assert R[2] == [value(second.folder / "after" / "films"), value(second.folder)]
    assert R[1][0] > R[0][0]  # it learns its task
    assert result["acc"] == pytest.approx((R[2][0] + R[2][1]) / 2) and result["bwt"] == pytest.approx(R[2][0] - R[1][0])


def test_replay_adds_rows_of_earlier_tasks(matrix):
    run = matrix[1]["runs"][1]
    second = Run.open(run["folders"][1])
    assert (second.config.task, second.config.data.mixture) == ("pairs,films", "rows=16,8")
    training = json.loads((second.folder / "training.json").read_text())
    assert {name: each["task_rows"] for name, each in training["tasks"].items()} == {"pairs": 16, "films": 8}
    assert run["R"][2] == [value(second.folder / "tasks" / name) for name in KINDS]


def test_separate_adapters_forget_nothing(matrix):
    run = matrix[1]["runs"][2]
    assert run["bwt"] == run["forgetting"] == run["fwt"] == 0
    assert run["R"][0] == matrix[1]["R"][0] and run["R"][2][0] == run["R"][1][0]


def test_one_adapter_on_all_tasks_has_one_stage(matrix):
    run = matrix[1]["runs"][3]
    assert run["stages"] == ["untrained", "all"] and run["bwt"] is None and run["acc"] is not None
    assert Run.open(run["folders"][0]).config.data.train_rows == 32


def test_a_share_of_nothing_is_no_replay_and_a_finished_stage_is_kept(matrix, config, specs):
    out, result = matrix
    before = {path: path.stat().st_mtime_ns for path in out.rglob("adapter_model.safetensors")}
    again = stream(config, specs, out, "replay=0")
    assert again["R"] == result["R"] and again["folders"] == result["folders"]
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("adapter_model.safetensors")}


def test_a_stages_judge_is_gone_before_the_next_is_loaded(matrix, config, specs):
    out, result = matrix
    for folder in result["folders"]:
        shutil.rmtree(Path(folder) / "after")
    with watched_loads("adjudge.methods.rewarding") as loads:
        assert stream(config, specs, out, "sequential")["R"] == result["R"]
    assert loads.alive_before == [0, 0] and loads.alive == 0


# What needs no model


@pytest.fixture
def two(monkeypatch, tmp_path):
    install(monkeypatch, "zero-shot", lambda example: "good")
    install(monkeypatch, "sft", by_first_word)
    spec = reviews(tmp_path)
    return [spec.model_copy(update={"name": name}) for name in ("first", "second")]


def test_a_stopped_stream_goes_on(two, tmp_path):
    settings = load_config(overrides=["evaluation.resamples=100"], values={"method": "sft", "data.train_rows": 10})
    folders = []

    def runner(config, specs, folder, **options):
        folders.append(folder.name)
        if len(folders) == 4:
            raise KeyboardInterrupt(str(folder))
        (folder / "adapter").mkdir(parents=True, exist_ok=True) if config.init else None
        return execute(config, specs, folder, **options)

    with pytest.raises(KeyboardInterrupt):
        stream(settings, two, tmp_path / "out", "separate", runner=runner)
    assert not (tmp_path / "out" / "matrix.json").exists()
    done = stream(settings, two, tmp_path / "out", "separate", runner=runner)
    assert done["bwt"] == 0 and len(folders) == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategies": ["replay=2"]}, "There is no strategy 'replay=2'"),
        ({"strategies": ["l4"]}, "There is no strategy 'l4'"),
        ({"orders": [["first", "third"]]}, "--order first,third: name each of first, second once"),
        ({"orders": [["first"]]}, "--order first: name each"),
        ({"rows": None, "strategies": ["replay=0.1"]}, "give --train-rows"),
        ({"names": ["first", "first"]}, "first is twice in the stream"),
        ({"names": ["first"]}, "A stream has at least two tasks"),
        ({"names": ["a/b", "a-b"]}, "would share the folder a-b: rename one"),
        ({"data.hold_out": 5}, "data.hold_out has no place in a stream"),
        ({"data.folds": 3}, "data.folds has no place in a stream"),
    ],
)
def test_what_is_no_stream(two, tmp_path, changes, message):
    own = {key: value for key, value in changes.items() if "." in key}
    settings = load_config(values={"method": "sft", "data.train_rows": changes.get("rows", 10), **own})
    specs = [two[0].model_copy(update={"name": name}) for name in changes.get("names", ["first", "second"])]
    with pytest.raises(ConfigError, match=message):
        plan_streams(
            settings, specs, changes.get("strategies", ["sequential"]), changes.get("orders", []), [0], tmp_path
        )


def test_a_task_with_fewer_rows_takes_part_in_mixtures_with_all_of_them(two, tmp_path):
    small, large = two
    count = len(load_split(small, "train"))
    settings = load_config(values={"method": "sft", "data.train_rows": count + 4})
    lines = "".join(f"good film number {number},good\n" for number in range(count + 9))
    (tmp_path / "large.csv").write_text("text,label\n" + lines + "bad film,bad\n" * 9)
    large = infer_task(tmp_path / "large.csv", ["text"], "label").model_copy(update={"name": "second"})
    replay, joint = plan_streams(settings, [small, large], ["replay=0.5", "multi"], [], [0], tmp_path)
    assert replay.stages[1].config.data.mixture == f"rows={count + 4},{min(round((count + 4) / 2), count)}"
    assert joint.stages[0].config.data.mixture == f"rows={count},{count + 4}"
    assert joint.stages[0].config.data.train_rows == 2 * count + 4
    every = load_config(values={"method": "sft"})
    (joint,) = plan_streams(every, [small, large], ["multi"], [], [0], tmp_path)
    assert joint.stages[0].config.data.mixture == "proportional", "all rows, as in the other strategies"


def test_methods_without_an_adapter_are_refused():
    with pytest.raises(ConfigError, match="tfidf has no adapter to carry from task to task"):
        continual.check_method("tfidf")


def test_the_command_writes_table_and_page(two, tmp_path, monkeypatch):
    monkeypatch.setattr(continual, "CellProcesses", InThisProcess)
    monkeypatch.setattr("adjudge.tasks.load_task", lambda name: two[name == "second"])
    out = tmp_path / "out"
    arguments = ["--tasks", "first,second", "--strategy", "separate,multi", "--seeds", "0,1", "--train-rows", "10"]
    result = CliRunner().invoke(app, ["continual", *arguments, "--out", str(out), "evaluation.resamples=100"])
    assert result.exit_code == 0, result.output
    assert "sft, separate, seed 0: first → second" in result.stderr and "ACC: mean over the tasks" in result.stderr
    assert len(json.loads((out / "matrix.json").read_text())["runs"]) == 4
    assert "| untrained |" in (out / "matrix.md").read_text()
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 4 and "http" not in page.replace("http-equiv", "")


class InThisProcess:
    def __enter__(self):
        return execute

    def __exit__(self, *_):
        pass
