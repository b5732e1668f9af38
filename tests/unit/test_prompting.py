"""Prompted methods: nothing is trained; a few-shot run keeps the demonstrations that it showed."""

from __future__ import annotations

from pathlib import Path

import pytest
from running import load_one, train_one

from adjudge.config import load_config
from adjudge.errors import DataError, RunError
from adjudge.runs.folder import Run
from adjudge.tasks import load_task
from adjudge.types import Example

SPEC = load_task("glue/sst2")
ROWS = [
    Example("0", {"sentence": "lone \udcff, \u2028 and <|im_end|>"}, "Positive"),
    Example("1", {"sentence": "dull and slow"}, "Negative"),
    Example("2", {"sentence": "funny"}, "Positive"),
    Example("3", {"sentence": "a tired story"}, "Negative"),
]


def run_of(model: Path, folder: Path, method: str = "few-shot", demonstrations: int = 3) -> Run:
    values = {
        "model": str(model),
        "method": method,
        "prompt.demonstrations": demonstrations,
        "prompt.prior": "none",
        "runtime.dtype": "float32",
    }
    return Run.create(folder, load_config(values=values))


def test_a_few_shot_run_keeps_its_demonstrations(tiny_llama: Path, tmp_path: Path) -> None:
    with run_of(tiny_llama, tmp_path / "run") as run:
        built = train_one("few-shot", run, SPEC, ROWS)
    loaded = load_one("few-shot", Run.open(tmp_path / "run"), SPEC)
    assert loaded.task.renderer.prompts(ROWS) == built.task.renderer.prompts(ROWS)
    text = loaded.task.renderer.text(ROWS[2])
    assert text.count("<Judgement>Positive</Judgement><|im_end|>") == 1
    assert text.count("<Judgement>Negative</Judgement><|im_end|>") == 2  # the first label of the task has the odd one
    assert loaded.judge(ROWS, probabilities=True) == built.judge(ROWS, probabilities=True)


def test_without_its_demonstrations_a_few_shot_run_is_no_zero_shot_run(tiny_llama: Path, tmp_path: Path) -> None:
    with run_of(tiny_llama, tmp_path / "run") as run:
        train_one("few-shot", run, SPEC, ROWS)
    (tmp_path / "run" / "demonstrations.jsonl").unlink()
    with pytest.raises(RunError, match=r"demonstrations\.jsonl is missing"):
        load_one("few-shot", run, SPEC)


def test_no_demonstrations_asked_for_is_the_zero_shot_prompt(tiny_llama: Path, tmp_path: Path) -> None:
    with (
        run_of(tiny_llama, tmp_path / "few", demonstrations=0) as few,
        run_of(tiny_llama, tmp_path / "zero", "zero-shot") as zero,
    ):
        train_one("few-shot", few, SPEC, ROWS)
        built = train_one("zero-shot", zero, SPEC, ROWS)
    assert load_one("few-shot", few, SPEC).task.renderer.prompts(ROWS) == built.task.renderer.prompts(ROWS)
    assert load_one("zero-shot", zero, SPEC).judge(ROWS) == built.judge(ROWS)


def test_too_few_rows_for_the_demonstrations(tiny_llama: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="9 demonstrations"),
        run_of(tiny_llama, tmp_path / "run", demonstrations=9) as run,
    ):
        train_one("few-shot", run, SPEC, ROWS)
    assert run.state == "failed"
