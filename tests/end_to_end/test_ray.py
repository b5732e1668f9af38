"""Test `adjudge compare --launcher ray` on a local cluster of two workers, one of which is killed, and its errors."""

import filecmp
import os
import signal
from contextlib import suppress
from pathlib import Path

import pytest
from fake_method import write_reviews
from processes import adjudge, start, wait_for

from adjudge.config import load_config
from adjudge.experiments.compare import compare
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run, read_json
from adjudge.tasks import infer_task

SETTINGS = (
    "sft.epochs=200",
    "checkpoint.every_steps=10",
    "sft.min_steps=0",
    "runtime.dtype=float32",
    "runtime.threads=1",
    "evaluation.resamples=100",
)
EQUAL = ("metrics.jsonl", "predictions/dev.jsonl", "adapter/adapter_model.safetensors")


@pytest.fixture
def command(tiny_llama, tmp_path):
    own = ("compare", "--data", write_reviews(tmp_path / "reviews.csv"), "--text", "text", "--label", "label")
    own = (*own, "--model", tiny_llama, "--train-rows", "8", "--methods", "sft", "--seeds", "0,1")
    return (*own, "--out", tmp_path / "out", "--launcher", "ray", *SETTINGS)


def worker_in(folder):
    """Return the id of the process that holds the lock of a cell's folder, or None."""
    lock = str(folder / ".adjudge.lock")
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # it has ended
            if str(link.readlink()) == lock and (link.parents[1] / "cmdline").read_bytes().startswith(b"ray::"):
                return int(link.parents[1].name)
    return None


def needs_ray():
    pytest.importorskip("ray", reason="needs the extra ray: pip install 'adjudge[ray]'")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.timeout(400)
def test_a_killed_worker_loses_no_cell_and_results_are_those_of_one_process(command, tiny_llama, tmp_path):
    needs_ray()
    cells = [tmp_path / f"out/reviews/sft/seed-{seed}" for seed in (0, 1)]
    with start(*command) as process:
        wait_for(lambda: [*cells[0].glob("checkpoints/step-*")] or not process.running, 200)
        os.kill(worker_in(cells[0]), signal.SIGKILL)
        ended = process.wait(200)
    assert ended.returncode == 0, ended.stderr
    assert "a Ray cluster of 1 machine, up to 2 at a time" in ended.stderr
    assert ended.stderr.count("its worker died. It goes on from its newest checkpoint.") == 1
    assert "resuming after step" in ended.stderr
    assert [row["jobs"] for row in read_json(tmp_path / "out/table.json")["rows"]] == [2, 2]
    config = load_config(overrides=[*SETTINGS, f"model={tiny_llama}", "data.train_rows=8"])
    spec = infer_task(tmp_path / "reviews.csv", ["text"], "label")
    compare(config, [spec], ["sft"], [0, 1], tmp_path / "apart", runner=execute)
    for cell in cells:
        assert filecmp.cmpfiles(tmp_path / "apart" / cell.relative_to(tmp_path / "out"), cell, EQUAL, shallow=False)[
            1:
        ] == ([], [])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes in /proc")
@pytest.mark.timeout(400)
def test_a_signal_stops_all_cells_with_checkpoints(command, tmp_path):
    needs_ray()
    cells = [tmp_path / f"out/reviews/sft/seed-{seed}" for seed in (0, 1)]
    with start(*command, "sft.epochs=4000") as process:
        wait_for(lambda: all((cell / "metrics.jsonl").is_file() for cell in cells) or not process.running, 200)
        process.signal(signal.SIGTERM)
        stopped = process.wait(100)
    assert stopped.returncode == 143, stopped.stderr
    assert "To continue:" in stopped.stderr
    for cell in cells:
        assert Run.open(cell).state == "interrupted"
        assert [*cell.glob("checkpoints/step-*")]
        assert worker_in(cell) is None


@pytest.mark.parametrize(
    ("address", "settings", "message"),
    [
        ("127.0.0.1:1", (), "Ray cannot be reached at RAY_ADDRESS=127.0.0.1:1"),
        ("local", ("runtime.threads=100000",), "the largest machine of the Ray cluster has"),
        ("local", ("runtime.device=cuda:1",), "Ray deals out the GPUs. Write runtime.device=cuda."),
    ],
)
def test_what_the_cluster_cannot_do_is_refused(command, tmp_path, address, settings, message):
    needs_ray()
    refused = adjudge(*command, *settings, RAY_ADDRESS=address, code=2)
    assert message in " ".join(refused.stderr.split())


def test_another_launcher_is_refused(command):
    assert (
        "There is no launcher 'slurm'; there are local, ray." in adjudge(*command, "--launcher", "slurm", code=2).stderr
    )
