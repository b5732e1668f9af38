"""Compare the fields that a run writes with the pages that describe them."""

import json
import re
from pathlib import Path

import pytest
from fake_method import reviews
from running import EPOCHS_ALONE

from adjudge.config import load_config
from adjudge.experiments.execute import execute

DOCS = Path(__file__).parents[2] / "docs"

SHORT = {
    **EPOCHS_ALONE,
    **dict.fromkeys(("ppo.batch_size", "reinforce.batch_size", "rloo.batch_size", "grpo.batch_size"), 4),
    "critique_grpo.batch_size": 4,
    **dict.fromkeys(("spin.batch_size", "sppo.batch_size"), 2),  # each iteration needs a step
}
"""Few steps, of which each method teaches in some and reinforces in others."""


def documented(page):
    """Return the names in the first cells of the tables of a page."""
    cells = re.findall(r"^\| ([^|]+) \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


@pytest.fixture(
    scope="module",
    params=[
        *("sft", "swie", "ppo", "reinforce", "rloo", "grpo", "critique-grpo", "exact"),
        *("dpo", "tdpo", "spin", "sppo", "reward-model"),
    ],
)
def run(request, tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    spec = reviews(folder, rows=24)
    values = {
        "method": request.param,
        "model": str(tiny_llama),
        "data.train_rows": 8,
        "data.eval_rows": 4,
        "evaluation.resamples": 100,
        **SHORT,
    }
    execute(load_config(values=values), spec, folder / "run")
    return request.param, folder / "run"


def test_logged_fields_are_on_the_page_of_the_method(run):
    method, folder = run
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert records
    assert {key for record in records for key in record} - documented(f"methods/{method}.md") == set()


def test_files_and_fields_of_a_run_folder_are_documented(run):
    _, folder = run
    known = documented("reference/run-folder.md")
    scores, training = (json.loads((folder / name).read_text()) for name in ("scores.json", "training.json"))
    prediction = json.loads((folder / "predictions" / "dev.jsonl").read_text().splitlines()[0])
    assert (set(scores) | set(training) | set(prediction)) - known == set()
    names = {path.name + "/" * path.is_dir() for path in folder.iterdir()}
    assert names - {name.partition("/")[0] + "/" if "/" in name else name for name in known} == set()


def test_files_and_fields_of_a_run_over_several_tasks_are_documented(tiny_llama, tmp_path):
    spec = reviews(tmp_path, rows=24)
    tasks = [spec, spec.model_copy(update={"name": "more"})]
    values = {"method": "ppo", "model": str(tiny_llama), "data.train_rows": 8, "evaluation.resamples": 100, **SHORT}
    execute(load_config(values=values), tasks, tmp_path / "run")
    execute(load_config(values={**values, "method": "sft"}), tasks, tmp_path / "sft")
    for method, folder in (("ppo", tmp_path / "run"), ("sft", tmp_path / "sft")):
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        assert {key for record in records for key in record} - documented(f"methods/{method}.md") == set()
    page = (DOCS / "reference/run-folder.md").read_text(encoding="utf-8")
    files = [tmp_path / "run" / name for name in ("scores.json", "training.json", "tasks/more/scores.json")]
    keys = {key for file in files for key in json.loads(file.read_text())}
    assert {key for key in keys if f"`{key}`" not in page} == set()
    assert {path.name for path in (tmp_path / "run").iterdir() if f"`{path.name}" not in page} == set()
