"""A resume that is refused changes no file in the run's folder, and says what to do."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fake_method import write_reviews
from folders import content_of
from running import EPOCHS_ALONE

from adjudge.config import Config, load_config
from adjudge.errors import AdjudgeError, DataError, RunError
from adjudge.experiments.cells import is_finished, plan_cells
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.system.files import Lock
from adjudge.tasks import infer_task
from adjudge.tasks.spec import TaskSpec

STOPPED_AT = 5


def settings(model: Path, **more: object) -> Config:
    return load_config(
        values={
            **EPOCHS_ALONE,
            "method": "sft",
            "model": str(model),
            "sft.epochs": 2,
            "sft.batch_size": 4,
            "data.train_rows": 16,
            "data.eval_rows": 4,
            "runtime.dtype": "float32",
            "runtime.device": "cpu",
            "evaluation.resamples": 100,
            "checkpoint.every_steps": 2,
            "checkpoint.every_s": None,
            **more,
        }
    )


def task(folder: Path, **more: object) -> TaskSpec:
    return infer_task(folder / "reviews.csv", ["text"], "label").model_copy(update=more)


@pytest.fixture(scope="module")
def stopped(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a table and a run that was stopped after a few steps, with two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    write_reviews(folder / "reviews.csv")
    log = Run.log

    def stop(self: Run, record: dict[str, object], **more: object) -> None:
        log(self, record, **more)  # type: ignore[arg-type]
        if record["step"] == STOPPED_AT:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "log", stop)
        with pytest.raises(KeyboardInterrupt):
            execute(settings(tiny_llama), task(folder), folder / "run")
    assert len(list((folder / "run/checkpoints").iterdir())) == 2
    return folder


@pytest.fixture
def folder(stopped: Path, tmp_path: Path) -> Path:
    """Another table with the same path for each test, so that it can be changed."""
    before = (stopped / "reviews.csv").read_bytes()
    shutil.copytree(stopped / "run", tmp_path / "run")
    (tmp_path / "run/.adjudge.lock").unlink()
    yield tmp_path
    (stopped / "reviews.csv").write_bytes(before)


def damage(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.write_bytes(path.read_bytes()[:-1] + b"?")


def edit_rows(table: Path, _run: Path) -> None:
    table.write_text(table.read_text().replace("film number 3", "film no. 3"))


CHANGES: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "rows": (edit_rows, r"other rows \(.*reviews\.csv changed: its SHA-256 was \w{12}… and is \w{12}…"),
    "no rows": (lambda table, _: table.unlink(), r"reviews\.csv"),
    "checkpoints": (lambda _, run: damage(run, "checkpoints/*/tensors.safetensors"), "None of the 2 checkpoints"),
    "state": (lambda _, run: damage(run, "checkpoints/*/state.json"), "None of the 2 checkpoints"),
    "log": (lambda _, run: os.truncate(run / "metrics.jsonl", 10), r"metrics\.jsonl has 10 bytes"),
    "timings": (lambda _, run: (run / "timings.jsonl").unlink(), r"timings\.jsonl has 0 bytes"),
    "settings": (lambda _, run: (run / "config.yaml").write_text("sft: ["), r"config\.yaml"),
    "status": (lambda _, run: (run / "status.json").write_text("{"), r"status\.json"),
    "task": (lambda _, run: (run / "task.yaml").write_text("name: ["), r"task\.yaml"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_file_refuses(what: str, stopped: Path, folder: Path, tiny_llama: Path) -> None:
    change, message = CHANGES[what]
    spec = task(stopped)
    change(stopped / "reviews.csv", folder / "run")
    before = content_of(folder / "run")
    with pytest.raises(AdjudgeError, match=message):
        execute(settings(tiny_llama), spec, folder / "run", resume=True)
    assert content_of(folder / "run") == before


@pytest.mark.parametrize(
    ("values", "changes", "message"),
    [
        ({"sft.optimizer.lr": 0.5}, {}, r"sft\.optimizer\.lr 0\.0003 → 0\.5"),
        ({"seed": 1}, {}, "seed 0 → 1"),
        ({"method": "ppo"}, {}, "method sft → ppo"),
        ({"data.train_rows": 15}, {}, r"data\.train_rows 16 → 15"),
        ({}, {"instruction": "Other words: good or bad?"}, "another version of the task"),
        ({}, {"labels": {"bad": "bad", "good": "fine"}}, "another version of the task"),
        ({}, {"name": "other"}, "task reviews → other"),
    ],
)
def test_another_run_refuses(
    values: dict[str, object], changes: dict[str, object], message: str, stopped: Path, folder: Path, tiny_llama: Path
) -> None:
    before = content_of(folder / "run")
    for resume in (True, False):
        with pytest.raises(RunError, match=message) as refused:
            execute(settings(tiny_llama, **values), task(stopped, **changes), folder / "run", resume=resume)
        assert "--force" in str(refused.value)
    assert content_of(folder / "run") == before


def test_other_data_of_the_same_shape_is_named_before_a_run_is_called_the_same(
    stopped: Path, folder: Path, tiny_llama: Path
) -> None:
    Run.open(folder / "run").set_state("complete")
    edit_rows(stopped / "reviews.csv", folder)
    before = content_of(folder / "run")
    with pytest.raises(RunError, match="other rows"):
        execute(settings(tiny_llama), task(stopped), folder / "run", resume=True)
    assert content_of(folder / "run") == before


def test_a_comparison_refuses_before_anything_runs(stopped: Path, folder: Path, tiny_llama: Path) -> None:
    (cell,) = plan_cells(settings(tiny_llama), [task(stopped)], ["sft"], [0], folder / "out")
    shutil.copytree(folder / "run", cell.folder)
    assert not is_finished(cell)
    edit_rows(stopped / "reviews.csv", folder)
    (cell,) = plan_cells(settings(tiny_llama), [task(stopped)], ["sft"], [0], folder / "out")
    before = content_of(cell.folder)
    with pytest.raises(RunError, match="other rows"):
        is_finished(cell)
    assert content_of(cell.folder) == before


def test_a_folder_in_use_is_left_alone(stopped: Path, folder: Path, tiny_llama: Path) -> None:
    lock = Lock(folder / "run")
    lock.acquire()
    try:
        before = content_of(folder / "run")
        with pytest.raises(RunError, match="Another process"):
            execute(settings(tiny_llama), task(stopped), folder / "run", resume=True)
        assert content_of(folder / "run") == before
    finally:
        lock.release()


def test_a_moved_table_goes_on(stopped: Path, folder: Path, tiny_llama: Path) -> None:
    shutil.copy(stopped / "reviews.csv", folder / "reviews.csv")
    execute(settings(tiny_llama), task(folder), folder / "run", resume=True)
    assert Run.open(folder / "run").state == "complete"
    assert json.loads((folder / "run/environment.json").read_text())["resumed"]
    with pytest.raises(DataError, match=r"gone\.csv"):
        infer_task(folder / "gone.csv", ["text"], "label")
