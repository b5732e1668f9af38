"""Cells side by side: the threads and GPUs that each gets, and what is said about their seconds."""

import pytest

from adjudge.config import RuntimeConfig
from adjudge.errors import ConfigError
from adjudge.experiments.judging import beside_others
from adjudge.experiments.side_by_side import check_jobs, job_environments, suggest_jobs, visible_gpus
from adjudge.report.markdown import markdown_table
from adjudge.report.sentences import beside_lines
from adjudge.runs.environment import JOBS, jobs


def environments(count, cores=8, gpus=(), **runtime):
    return job_environments(count, RuntimeConfig(**runtime), cores=cores, gpus=list(gpus))


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", JOBS):
        monkeypatch.delenv(name, raising=False)


def test_each_job_gets_its_share_of_the_threads():
    assert environments(1) == [{}]
    assert environments(3) == [{JOBS: "3", "OMP_NUM_THREADS": "2"}] * 3
    assert environments(2, threads=3) == [{JOBS: "2"}] * 2, "the settings say how many"


def test_a_smaller_number_of_threads_in_the_environment_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert environments(2)[0]["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert environments(2)[0]["OMP_NUM_THREADS"] == "4"
    monkeypatch.setenv("OMP_NUM_THREADS", "many")
    assert environments(2)[0]["OMP_NUM_THREADS"] == "4"


def test_more_threads_than_cores_are_warned_of(capsys):
    environments(2, threads=4)
    assert capsys.readouterr().err == ""
    environments(4, threads=4)
    said = capsys.readouterr().err
    assert "4 jobs of runtime.threads=4 are 16 threads on 8 cores" in said
    assert "runtime.threads=2 is each one's share" in said
    assert environments(9)[0]["OMP_NUM_THREADS"] == "1"
    assert "9 jobs share 8 cores" in capsys.readouterr().err


def test_several_gpus_are_dealt_out_and_a_single_one_is_shared():
    dealt = environments(3, gpus=("2", "GPU-a"))
    assert [variables["CUDA_VISIBLE_DEVICES"] for variables in dealt] == ["2", "GPU-a", "2"]
    assert "CUDA_VISIBLE_DEVICES" not in environments(2, gpus=("0",))[0]


def test_visible_gpus_are_those_of_the_environment_unless_a_device_is_named(monkeypatch):
    monkeypatch.setattr("adjudge.experiments.cell_server.GPU_FILES", ("/",))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1, GPU-b")
    assert visible_gpus(RuntimeConfig()) == ["1", "GPU-b"]
    assert visible_gpus(RuntimeConfig(device="cuda:1")) == []
    assert visible_gpus(RuntimeConfig(device="cpu")) == []
    monkeypatch.setattr("adjudge.experiments.cell_server.GPU_FILES", ())
    assert visible_gpus(RuntimeConfig()) == []


@pytest.mark.parametrize("count", [0, -2])
def test_fewer_than_one_job_is_refused(count):
    with pytest.raises(ConfigError, match=f"--jobs {count}: at least one run"):
        check_jobs(count)


def test_a_run_knows_of_the_others(monkeypatch):
    assert jobs() == 1
    monkeypatch.setenv(JOBS, "3")
    assert jobs() == 3
    assert (beside_others({}), beside_others({"jobs": 2}), beside_others({"jobs": 3})) == (
        "",
        " beside 1 other",
        " beside 2 others",
    )


def row(method, **more):
    seconds = {"train": 2.0, "evaluate": 1.0}
    metrics = {"accuracy": {"value": 0.5, "low": 0.4, "high": 0.6}}
    return {"task": "t", "method": method, "seed": 0, "primary": "accuracy", "metrics": metrics, "n": 9, **more} | {
        "seconds": seconds
    }


def test_the_table_says_whose_seconds_are_those_of_runs_beside_others():
    both = {"rows": [row("sft", jobs=2), row("ppo", jobs=2)]}
    assert beside_lines(both) == ["the seconds are those of runs beside up to 1 other (--jobs 2)"]
    assert beside_lines(both)[0] in markdown_table(both)
    mixed = {"rows": [row("zero-shot"), row("sft", jobs=4)]}
    assert beside_lines(mixed) == ["the seconds of sft are those of runs beside up to 3 others (--jobs 4)"]
    assert beside_lines({"rows": [row("sft")]}) == []


@pytest.mark.parametrize(
    ("runs", "cores", "threads", "told"),
    [(2, 2, None, True), (1, 2, None, False), (2, 1, None, False), (2, 2, 1, False)],
)
def test_jobs_are_suggested_where_they_would_be_faster(runs, cores, threads, told, monkeypatch, capsys):
    monkeypatch.setattr("adjudge.experiments.side_by_side.usable_cores", lambda: cores)
    monkeypatch.setattr("adjudge.experiments.cell_server.GPU_FILES", ())
    suggest_jobs(runs, RuntimeConfig(threads=threads))
    assert ("--jobs 2 runs two side by side" in capsys.readouterr().err) == told
