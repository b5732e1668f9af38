"""Test runs that a signal or an error stops.

Such a run reports why it stopped, keeps everything that was complete, and continues with --resume.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_method import write_reviews
from forked_cells import PAUSE_S
from processes import adjudge, start, wait_for

from adjudge.runs.folder import Run
from adjudge.system.files import Lock

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")
EQUAL = ("metrics.jsonl", "predictions/dev.jsonl", "adapter/adapter_model.safetensors")


def command(model: Path, data: Path, out: Path, *more: str) -> list[str]:
    return [
        *("train", "sft", "--data", str(data), "--text", "text", "--label", "label"),
        *("--model", str(model), "--train-rows", "16", "--eval-rows", "8", "--out", str(out)),
        *("sft.epochs=6", "sft.batch_size=4", "runtime.dtype=float32", "runtime.threads=1"),
        *("checkpoint.every_steps=3", *more),
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reviews(tmp_path_factory.mktemp("data") / "reviews.csv")


@pytest.fixture(scope="module")
def whole(tiny_llama: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("whole") / "run"
    adjudge(*command(tiny_llama, data, out))
    return out


@pytest.mark.parametrize(
    ("how", "code", "word"), [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")]
)
def test_a_signal_writes_a_checkpoint_and_has_a_code_of_its_own(
    how: signal.Signals, code: int, word: str, tiny_llama: Path, data: Path, whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    slow = command(tiny_llama, data, out, "checkpoint.every_steps=null", "checkpoint.every_s=null")
    with start(*slow, **{PAUSE_S: "0.1"}) as process:
        wait_for((out / "metrics.jsonl").is_file, 120)
        process.signal(how)
        stopped = process.wait(60)
    assert stopped.returncode == code, stopped.stderr
    assert word in stopped.stderr
    assert "--resume" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert Run.open(out).state == "interrupted"
    assert len(list((out / "checkpoints").glob("step-*"))) == 1
    if how == signal.SIGINT:
        return
    assert "--resume" in adjudge(*slow, code=2).stderr, "without --resume the work done so far is kept"
    assert "resuming after step" in adjudge(*slow, "--resume").stderr
    assert filecmp.cmpfiles(whole, out, EQUAL, shallow=False) == (list(EQUAL), [], [])
    assert not (out / "checkpoints").exists()
    assert "nothing to resume" in adjudge(*slow, "--resume").stderr


def test_a_second_process_in_one_folder_is_refused(tiny_llama: Path, data: Path, tmp_path: Path) -> None:
    lock = Lock(tmp_path / "run")
    lock.acquire()
    try:
        refused = adjudge(*command(tiny_llama, data, tmp_path / "run"), code=2)
    finally:
        lock.release()
    assert "Another process is working in" in refused.stderr
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".adjudge.lock"]


def test_other_settings_or_other_rows_are_not_resumed(tiny_llama: Path, data: Path, tmp_path: Path) -> None:
    mine = shutil.copy(data, tmp_path / "mine.csv")
    out = tmp_path / "run"
    with start(*command(tiny_llama, Path(mine), out), **{PAUSE_S: "0.1"}):
        wait_for(lambda: list(out.glob("checkpoints/step-*")), 120)
    other = adjudge(*command(tiny_llama, Path(mine), out, "sft.optimizer.lr=0.5", "--resume"), code=2)
    assert "sft.optimizer.lr 0.0003 → 0.5" in " ".join(other.stderr.split())
    Path(mine).write_text(Path(mine).read_text().replace("number", "no."))
    changed = adjudge(*command(tiny_llama, Path(mine), out, "--resume"), code=2)
    assert "other rows" in changed.stderr
    assert "mine.csv changed: its SHA-256 was" in changed.stderr
    Path(mine).unlink()
    assert "mine.csv" in adjudge(*command(tiny_llama, Path(mine), out, "--resume"), code=2).stderr
    assert list(out.glob("checkpoints/step-*")), "what was there stays"


@pytest.fixture()
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("a small file system cannot be mounted here (that takes root)")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_said_and_what_was_written_is_whole(
    small_disk: Path, tiny_llama: Path, data: Path, whole: Path
) -> None:
    out, ballast = small_disk / "run", small_disk / "ballast"
    ballast.write_bytes(
        b"x" * (2**20 + 400 * 1024)
    )  # a checkpoint of this model takes 240 KiB: the second or third does not fit
    full = adjudge(*command(tiny_llama, data, out), code=2)
    assert "No space left on device" in full.stderr
    assert "Free some space" in full.stderr
    kept = list(out.glob("checkpoints/*"))
    assert [path.name for path in kept] in (
        ["step-00000003"],
        ["step-00000006", "step-00000003"],
        ["step-00000003", "step-00000006"],
    )
    assert not list(out.rglob(".step*")), "nothing half written is left"
    ballast.unlink()
    adjudge(*command(tiny_llama, data, out, "--resume"))
    assert filecmp.cmpfiles(whole, out, EQUAL, shallow=False) == (list(EQUAL), [], [])


def test_a_folder_that_may_not_be_written_is_said(small_disk: Path, tiny_llama: Path, data: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    refused = adjudge(*command(tiny_llama, data, small_disk / "run"), code=2)
    assert "Read-only file system" in refused.stderr
    assert "Name another folder with --out" in refused.stderr
