"""Trackers: every step once, also after a kill, and nothing that a tracker does reaches the run."""

import json
import os
import queue
import signal
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from fake_method import by_first_word, install, reviews
from filelock import FileLock
from running import logged
from tracked_steps import log_steps, tracking_of

from adjudge.config import Config, load_config
from adjudge.errors import ConfigError
from adjudge.experiments.cells import plan_cells
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import rerun
from adjudge.runs import tracking
from adjudge.runs.folder import Run, differences
from adjudge.runs.trackers.follow import follow
from adjudge.runs.trackers.steps import StepReader, score_figures, step_figures

FAKES = Path(__file__).parents[1] / "fake_trackers"
NAMES = ("trackio", "tensorboard", "wandb", "mlflow")
VARIABLES = ("TRACKIO_PROJECT", "WANDB_PROJECT", "MLFLOW_EXPERIMENT_NAME", "TENSORBOARD_LOGGING_DIR")


@pytest.fixture(autouse=True)
def fakes(tmp_path, monkeypatch):
    """The folder of what the fakes are told; they stand in for the real trackers here and in processes."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "told"
    folder.mkdir()
    monkeypatch.setenv("FAKE_TRACKERS", str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FAKES), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setattr(tracking, "WAIT_S", 120.0)
    monkeypatch.setattr(tracking, "STOPPED_WAIT_S", 120.0)
    yield folder
    for name in ("book", "trackio", "wandb", "mlflow", "mlflow.entities", "mlflow.tracking"):
        sys.modules.pop(name, None)


def told(name, folder):
    """Return what a tracker was told of its runs, oldest first; of tensorboardX, the real one, its event files."""
    if name == "tensorboard":
        return [
            read_events(file) for file in sorted(folder.rglob("events.*"), key=lambda file: file.stat().st_mtime_ns)
        ]
    file = Path(os.environ["FAKE_TRACKERS"]) / f"{name}.json"
    return list(json.loads(file.read_text()).values()) if file.is_file() else []


def read_events(path):
    """Read an event file: records of length, checksum, bytes, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    steps, scores, texts, content, at = {}, {}, [], path.read_bytes(), 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        event = Event.FromString(content[at + 12 : at + 12 + length])
        at += length + 16
        for value in event.summary.value:
            if value.HasField("tensor"):
                texts += [text.decode() for text in value.tensor.string_val]
            elif value.tag.startswith("eval/"):
                scores[value.tag] = value.simple_value
            else:
                figures = steps.setdefault(event.step, {})
                assert value.tag not in figures, f"{value.tag} twice in step {event.step}"
                figures[value.tag] = value.simple_value
    return {"steps": [[step, figures] for step, figures in steps.items()], "scores": scores, "settings": "".join(texts)}


def ask(folder, name, **changed):
    """Return the first line that a run writes to the process of a tracker."""
    named = {"project": None, "run_name": "reviews-sft-seed0", "group": "reviews-sft"}
    return {"tracker": name, "folder": str(folder), **named, "resumed": False, "unread": ["ppo"], **changed}


def follow_here(folder, name, *messages, **changed):
    """Follow a run in this process, as if it wrote these messages; return what the user is told."""
    waiting, replies = queue.SimpleQueue(), []
    for message in messages:
        waiting.put(message)
    follow(ask(folder, name, **changed), waiting, lambda **reply: replies.append(reply))
    return replies


def figures_of(step):
    held_out = {"validation/value": 0.5, "validation/tasks/reviews": 0.5} if step % 2 == 0 else {}
    return {"train/rows": 4 * step, "train/loss": pytest.approx(1 / step), "seconds/update": 0.5, **held_out}


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", load_config(overrides=["method=sft", "sft.epochs=7"]))


@pytest.fixture(params=NAMES)
def name(request):
    if request.param == "tensorboard":
        pytest.importorskip("tensorboardX", reason="comes with the dev extra")
    return request.param


LOGS = {"logs": True}


def test_a_tracker_gets_the_settings_every_step_the_scores_and_the_report(name, run):
    log_steps(run, 1, 5)
    run.write_scores({"metrics": {"accuracy": {"value": 0.75, "low": 0.5, "high": None}}, "n": 8, "unreadable": 0})
    (run.folder / "report.html").write_text("<html>")
    end = {"state": "complete", "files": [str(run.folder / "report.html")]}
    replies = follow_here(run.folder, name, LOGS, end)
    assert [list(reply) for reply in replies] == [["note"]]
    (tracked,) = told(name, run.folder)
    assert tracked["steps"] == [[step, figures_of(step)] for step in range(1, 6)]
    assert tracked["scores"] == {"eval/accuracy": 0.75, "eval/accuracy_low": 0.5, "eval/n": 8, "eval/unreadable": 0}
    assert "sft.epochs" in tracked["settings"]
    assert "ppo.clip" not in tracked["settings"]
    if name != "tensorboard":
        assert (tracked["name"], tracked["group"]) == ("reviews-sft-seed0", "reviews-sft")
        assert tracked["files"] == ["<html>"]
        assert tracked["state"] == "complete"


STOPS = [{"state": "interrupted", "files": []}, {"state": "killed", "files": []}]


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: stop["state"])
def test_a_resumed_run_sends_every_step_once(stop, name, run):
    log_steps(run, 1, 2)
    checkpoint = run.log_sizes()
    log_steps(run, 3, 5)
    follow_here(run.folder, name, LOGS, stop)
    assert [step for step, _ in told(name, run.folder)[-1]["steps"]] == [1, 2, 3, 4, 5]
    if name != "tensorboard":
        assert told(name, run.folder)[0]["state"] == "stopped"
    run.rewind(checkpoint)
    follow_here(run.folder, name, STOPS[1], resumed=True)  # killed again, before its logs were cut back
    log_steps(run, 3, 7)
    follow_here(run.folder, name, LOGS, {"state": "complete", "files": []}, resumed=True)
    (tracked,) = told(name, run.folder)
    assert tracked["steps"] == [[step, figures_of(step)] for step in range(1, 8)]


def test_a_resumed_run_with_only_its_judging_left_sends_what_a_tracker_lacks(name, run):
    log_steps(run, 1, 3)
    follow_here(run.folder, name, STOPS[1])
    follow_here(run.folder, name, {"state": "complete", "files": []}, resumed=True)
    assert [step for step, _ in told(name, run.folder)[-1]["steps"]] == [1, 2, 3]


def test_a_run_that_begins_again_is_another_tracked_run(name, run):
    log_steps(run, 1, 3)
    follow_here(run.folder, name, LOGS, STOPS[1])
    run.rewind({})
    log_steps(run, 1, 2)
    follow_here(run.folder, name, LOGS, STOPS[0])
    assert [len(tracked["steps"]) for tracked in told(name, run.folder)] == [3, 2]


def test_trackio_does_not_continue_another_run_of_the_same_name(run, tmp_path):
    log_steps(run, 1, 2)
    follow_here(run.folder, "trackio", LOGS, STOPS[1])
    other = Run.create(tmp_path / "other", Config())
    log_steps(other, 1, 1)
    follow_here(other.folder, "trackio", LOGS, STOPS[1])
    log_steps(run, 3, 3)
    follow_here(run.folder, "trackio", LOGS, STOPS[0], resumed=True)
    assert [[step for step, _ in tracked["steps"]] for tracked in told("trackio", tmp_path)] == [[1, 2], [1], [1, 2, 3]]


@pytest.mark.parametrize(("name", "variable"), list(zip(("trackio", "wandb", "mlflow"), VARIABLES, strict=False)))
def test_the_project_is_the_setting_then_the_variable_then_adjudge(name, variable, run, monkeypatch):
    follow_here(run.folder, name, STOPS[0])
    monkeypatch.setenv(variable, "films")
    follow_here(run.folder, name, STOPS[0])
    follow_here(run.folder, name, STOPS[0], project="mine")
    assert [tracked["project"] for tracked in told(name, run.folder)] == ["adjudge", "films", "mine"]


def test_tensorboards_variable_names_the_folder_of_all_event_files(run, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="comes with the dev extra")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "boards"))
    follow_here(run.folder, "tensorboard", STOPS[0])
    (board,) = (tmp_path / "boards").iterdir()
    assert board.name.startswith("reviews-sft-seed0-")
    assert not list(run.folder.rglob("events.*"))


def test_a_step_is_whole_before_it_is_sent(run):
    reader = StepReader(run.folder)
    assert reader.complete() == []
    log_steps(run, 1, 1)
    assert reader.complete() == []
    run.log({"step": 2, "loss": 0.25, "held": None, "sure": True, "word": "Yes"})
    run.log({"step": 1, "value": 0.5}, file="validation.jsonl")  # as late as a process that is stopped for a while
    assert reader.complete() == [(1, figures_of(1) | {"validation/value": 0.5})]
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
        file.flush()
        assert reader.complete() == []
        file.write('ss": 0.125}\n')
    assert reader.complete() == [(2, {"train/loss": 0.25, "train/sure": 1.0})]
    assert reader.rest() == [(3, {"train/loss": 0.125})]
    assert reader.rest() == []


def test_figures_of_several_tasks_have_names_of_their_own():
    record = {"step": 1, "task": "glue/rte", "loss": 0.5, "kl": {"mean": 0.25}}
    assert step_figures("train", record) == {"train/glue-rte/loss": 0.5, "train/glue-rte/kl/mean": 0.25}
    metrics = {"accuracy": {"value": 0.5, "low": None, "high": None}}
    scores = {"metrics": {"mean_primary": {"value": None}}, "tasks": {"glue/rte": {"metrics": metrics}}}
    assert score_figures(scores) == {"eval/glue-rte/accuracy": 0.5}


PROGRAM = """
    import os, signal, sys
    from tracked_steps import log_steps, tracking_of
    from adjudge.runs.folder import Run
    from adjudge.config import load_config

    run = Run.create(sys.argv[1], load_config())
    run.tracking = tracking_of(run, sys.argv[2])
    log_steps(run, 1, 5)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_last_steps_of_a_killed_run_arrive_and_the_resumed_run_adds_the_rest(name, tmp_path):
    folder = tmp_path / "run"
    here = os.pathsep.join([str(FAKES.parent), os.environ["PYTHONPATH"]])
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(folder), name]
    assert subprocess.run(program, env={**os.environ, "PYTHONPATH": here}, check=False).returncode == -signal.SIGKILL
    run = Run.create(folder, load_config(), resume=True)
    run.rewind({})
    run.tracking = tracking_of(run, name)  # it waits for the process that the killed run left
    log_steps(run, 1, 7)
    run.tracking.end("complete")
    (tracked,) = told(name, folder)
    assert tracked["steps"] == [[step, figures_of(step)] for step in range(1, 8)]
    with FileLock(folder / "tracking" / f".{name}.lock", timeout=0):
        pass


@pytest.mark.parametrize(
    ("trouble", "warning"),
    [
        ("init:raise", "the tracker's server is gone"),
        ("log:raise", "the tracker's server is gone"),
        ("finish:raise", "the tracker's server is gone"),
        ("init:exit", "ended without a word"),
        ("log:exit", "ended without a word"),
        ("init:ask", "EOF when reading a line"),
        ("log:hang", "is slow"),
        ("init:hang", "is slow"),
        ("log:print", ""),
    ],
)
def test_a_tracker_in_trouble_is_one_warning(trouble, warning, run, monkeypatch, capfd):
    monkeypatch.setenv("FAKE_TROUBLE", trouble)
    if "hang" in trouble:
        monkeypatch.setattr(tracking, "WAIT_S", 0.2)
    run.tracking = tracking_of(run, "wandb")
    log_steps(run, 1, 200)
    run.tracking.end("complete")
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.count("warning: tracker wandb: ") == bool(warning)
    assert warning in " ".join(said.err.split())
    assert "Traceback" not in said.err
    assert [record["step"] for record in logged(run)] == list(range(1, 201))


def test_a_tracker_that_is_not_installed_is_one_warning(run, tmp_path, monkeypatch, capfd):
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "wandb.py").write_text("raise ModuleNotFoundError(\"No module named 'wandb'\")")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "blocked"), os.environ["PYTHONPATH"]]))
    run.tracking = tracking_of(run, "wandb")
    run.tracking.end("failed")
    said = " ".join(capfd.readouterr().err.split())
    assert "No module named 'wandb'" in said
    assert "pip install 'adjudge[trackers]'" in said
    assert said.count("warning:") == 1


@pytest.fixture
def spec(tmp_path, monkeypatch):
    install(monkeypatch, "sft", by_first_word)
    return reviews(tmp_path)


def settings(*overrides):
    return load_config(overrides=["method=sft", "evaluation.resamples=100", *overrides])


def test_a_run_reports_what_its_folder_holds_and_is_not_changed(spec, tmp_path):
    plain = execute(settings(), spec, tmp_path / "plain")
    scores = execute(settings("tracking.report_to=wandb,mlflow"), spec, tmp_path / "tracked")
    for tracker in ("wandb", "mlflow"):
        (tracked,) = told(tracker, tmp_path)
        assert (tracked["name"], tracked["group"]) == ("reviews-sft-seed0", "reviews-sft")
        assert tracked["steps"][0][1]["train/rows"] == 32
        assert tracked["scores"]["eval/accuracy"] == scores["metrics"]["accuracy"]["value"]
        assert "<html" in tracked["files"][0]
        assert tracked["state"] == "complete"
    assert scores["metrics"] == plain["metrics"]
    for file in ("metrics.jsonl", "predictions/dev.jsonl", "task.yaml"):
        assert (tmp_path / "tracked" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()


def test_a_failed_run_is_reported_as_such(spec, tmp_path, monkeypatch):
    def fail(run):
        run.log({"step": 1, "loss": 2.0})
        raise ValueError("broken")

    install(monkeypatch, "sft", by_first_word, before=fail)
    with pytest.raises(ValueError, match="broken"):
        execute(settings("tracking.report_to=wandb"), spec, tmp_path / "run")
    (tracked,) = told("wandb", tmp_path)
    assert tracked["state"] == "stopped"
    assert tracked["steps"] == [[1, {"train/loss": 2.0}]]


def test_a_repeated_run_is_reported_only_where_asked(spec, tmp_path):
    execute(settings("tracking.report_to=wandb", "tracking.run_name=first"), spec, tmp_path / "run")
    rerun(tmp_path / "run")
    assert len(told("wandb", tmp_path)) == 1
    rerun(tmp_path / "run", tmp_path / "again", report_to="wandb")
    assert [tracked["name"] for tracked in told("wandb", tmp_path)] == ["first", "first"]
    with pytest.raises(ConfigError, match="Did you mean 'wandb'"):
        rerun(tmp_path / "run", tmp_path / "third", report_to="wandbb")


def test_trackers_are_no_difference_between_two_runs(spec, tmp_path):
    one, other = settings(), settings("tracking.report_to=wandb", "tracking.project=p", "tracking.run_name=n")
    assert differences(one, other) == []
    Run.create(tmp_path / "run", one)
    assert Run.create(tmp_path / "run", other, resume=True).resumed


def test_cells_of_a_comparison_have_names_of_their_own(spec, tmp_path):
    cells = plan_cells(settings("tracking.run_name=tuesday"), [spec], ["sft"], [0, 3], tmp_path)
    assert [cell.config.tracking.run_name for cell in cells] == [f"tuesday-reviews-sft-seed{seed}" for seed in (0, 3)]


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("wandb", ("wandb",)),
        ("mlflow, trackio,mlflow", ("mlflow", "trackio")),
        ("[tensorboard, wandb]", ("tensorboard", "wandb")),
        ("none", ()),
        ("", ()),
        ("null", ()),
    ],
)
def test_trackers_are_written_as_a_list_or_with_commas(written, names):
    assert load_config(overrides=[f"tracking.report_to={written}"]).tracking.report_to == names


@pytest.mark.parametrize(("wrong", "right"), [("wandbb", "wandb"), ("tensorboardx", "tensorboard"), ("a,", "trackio")])
def test_an_unknown_tracker_is_refused_with_the_nearest(wrong, right):
    with pytest.raises(ConfigError, match=rf"tracking\.report_to.*there is no tracker.*{right}"):
        load_config(overrides=[f"tracking.report_to={wrong}"])
