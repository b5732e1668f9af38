"""Test `adjudge compare --jobs`: cells in several processes at a time give the results of one after the other."""

import filecmp
import os
import shlex
import signal

import pytest
from fake_method import write_reviews
from processes import adjudge, start, wait_for

from adjudge.config import load_config
from adjudge.experiments.compare import compare
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run, read_json
from adjudge.tasks import infer_task

SETTINGS = ("sft.epochs=2", "sft.min_steps=0", "runtime.dtype=float32", "runtime.threads=1", "evaluation.resamples=100")
EPOCHS = ("rloo.epochs=4", "rloo.min_steps=0")
WAITING = """
import os, time
calls = 0

def waiting(completions, **columns):
    global calls
    calls += 1
    while calls > 1 and os.path.exists({gate!r}):
        time.sleep(0.01)
    return [float(len(text) % 2) for text in completions]
"""
"""A reward function that waits at the second step while a file is there: a signal then finds each run at work."""
EQUAL = ("metrics.jsonl", "predictions/dev.jsonl", "adapter/adapter_model.safetensors")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture(scope="module")
def command(file, tiny_llama):
    own = ("compare", "--data", file, "--text", "text", "--label", "label", "--model", tiny_llama)
    return (*own, "--train-rows", "8", "--methods", "sft", *SETTINGS)


@pytest.fixture
def one_by_one(file, tiny_llama, tmp_path):
    """Compare in this process, one cell after the other."""

    def run(*settings, methods=("sft",), seeds=(0, 1)):
        config = load_config(overrides=[*SETTINGS, f"model={tiny_llama}", "data.train_rows=8", *settings])
        spec = infer_task(file, ["text"], "label")
        return compare(config, [spec], methods, seeds, tmp_path / "apart", runner=execute)

    return run


def equal(one, other):
    return filecmp.cmpfiles(one, other, EQUAL, shallow=False) == (list(EQUAL), [], [])


def test_cells_side_by_side_give_the_results_of_one_after_the_other(command, one_by_one, tmp_path):
    broken = tmp_path / "model"
    broken.mkdir()
    apart = one_by_one(f"encoder.model={broken}", methods=("encoder", "sft"))
    more = ("--seeds", "0,1", "--methods", "encoder,sft", "--encoder", broken)
    said = adjudge(*command, *more, "--out", tmp_path / "beside", "--jobs", 8, code=1)
    beside = read_json(tmp_path / "beside/table.json")
    assert "4 runs side by side" in said.stderr, "no more jobs than cells"
    for seed in (0, 1):
        cells = [tmp_path / out / f"reviews/sft/seed-{seed}" for out in ("apart", "beside")]
        assert equal(*cells)
        assert [read_json(cell / "environment.json")["jobs"] for cell in cells] == [1, 4]
        assert f"reviews sft seed {seed}: " in said.stderr, "the lines of a cell begin with its name"
    assert beside["tests"] == apart["tests"]
    assert [(row["run"], row["metrics"]) for row in beside["rows"]] == [
        (row["run"], row["metrics"]) for row in apart["rows"]
    ]
    assert [cell["run"] for cell in beside["failed"]] == [cell["run"] for cell in apart["failed"]]
    assert len(beside["failed"]) == 2, "a failed cell does not stop the others"
    assert [row["jobs"] for row in beside["rows"]] == [4, 4]
    sentence = "the seconds are those of runs beside up to 3 others (--jobs 4)"
    assert sentence in said.stdout
    assert sentence in (tmp_path / "beside/table.md").read_text()
    assert sentence in (tmp_path / "beside/report.html").read_text()


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_signal_stops_all_cells_with_checkpoints_and_the_same_command_goes_on(command, one_by_one, tmp_path):
    out, gate, rewards = tmp_path / "out", tmp_path / "closed", tmp_path / "rewards.py"
    gate.touch()
    rewards.write_text(WAITING.format(gate=str(gate)))
    own = ("--methods", "rloo", "--reward-funcs", f"{rewards}:waiting", "rloo.batch_size=4", *EPOCHS)
    slow = (*command, *own, "--seeds", "0,1,2", "--out", str(out), "--jobs", "2")
    cells = [out / f"reviews/rloo/seed-{seed}" for seed in (0, 1, 2)]
    with start(*slow, fresh=True) as process:
        wait_for(lambda: all((cell / "metrics.jsonl").is_file() for cell in cells[:2]) or not process.running, 120)
        process.signal_group(signal.SIGTERM)  # a scheduler stops a job so; a signal to the first process alone is less
        wait_for(lambda: process.stderr.count("stopping after this step") == 2 or not process.running, 60)
        gate.unlink()
        stopped = process.wait(90)
    assert stopped.returncode == 143, stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert stopped.stderr.count("To continue:") == 1
    last = stopped.stderr.strip().splitlines()[-1]
    assert shlex.split(last)[-len(slow) :] == [str(part) for part in slow]
    for cell in cells[:2]:
        assert Run.open(cell).state == "interrupted"
        assert list((cell / "checkpoints").glob("step-*"))
    assert not cells[2].exists()
    assert read_json(out / "table.json")["unfinished"] == 3
    again = adjudge(*slow)
    assert again.stderr.count("resuming after step") == 2
    assert len(read_json(out / "table.json")["rows"]) == 3
    one_by_one(
        f"rloo.reward.functions=['{rewards}:waiting']", "rloo.batch_size=4", *EPOCHS, methods=["rloo"], seeds=[0]
    )
    assert equal(tmp_path / "apart/reviews/rloo/seed-0", cells[0])


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_comparison_of_several_jobs_stopped_while_libraries_load_ends(command, tmp_path):
    slow = (*command, "--seeds", "0,1,2", "--out", str(tmp_path / "out"), "--jobs", "2", "sft.epochs=5000")
    with start(*slow, fresh=True) as process:
        wait_for(lambda: "[2/3]" in process.stderr or not process.running, 120)
        process.signal(signal.SIGINT)
        stopped = process.wait(60)
    assert stopped.returncode == 130, stopped.stderr
    assert "To continue:" in stopped.stderr


def test_no_jobs_are_refused_before_anything_is_read(command, tmp_path):
    refused = adjudge(*command, "--out", tmp_path / "out", "--jobs", 0, code=2)
    assert "--jobs 0: at least one run has to be at work" in refused.stderr
    assert not (tmp_path / "out").exists()
