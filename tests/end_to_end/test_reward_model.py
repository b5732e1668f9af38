"""Train a reward model on a tiny model: its figures, its judge, and what it refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews
from kill import differing
from running import load_one, logged, tiny_run
from safetensors.torch import load_file

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.experiments.compare import compare
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.runs.tasks import read_tasks
from adjudge.ship.export import export_judge
from adjudge.tasks import load_split, load_task


def values_of(model: Path, **values: Any) -> dict[str, Any]:
    rates = {"reward_model__optimizer__lr": 3e-3, "reward_model__head_lr": 1e-2}
    return tiny_run("reward-model", model, **{**rates, **values})


@pytest.fixture(scope="module")
def run(able: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("rm")
    execute(load_config(values=values_of(able, reward_model__epochs=6)), reviews(folder), folder / "run")
    return Run.open(folder / "run")


def test_it_learns_pairs_and_measures_held_out_ones(run: Run) -> None:
    first, *_, last = logged(run)
    assert first["loss"] == pytest.approx(math.log(2), rel=0.3) and first["margin"] == 0  # the head begins at zero
    assert last["loss"] < first["loss"] and last["preferred"] > 0.6
    scores = run.scores()
    assert scores["pair_accuracy"] == 1.0 and scores["pair_margin"] > 0 and scores["held_out_pairs"] == 2
    assert scores["unreadable"] == 0 and scores["probabilities"]["rows"] == 8
    training = json.loads((run.folder / "training.json").read_text())
    assert training["pair_accuracy"] == scores["pair_accuracy"] and training["train_rows"] == 20


def test_the_finished_run_judges_as_it_did(run: Run) -> None:
    (spec,) = read_tasks(run.folder)
    written = [json.loads(line) for line in (run.folder / "predictions" / "dev.jsonl").read_text().splitlines()]
    rows = {row.id: row for row in load_split(spec, "dev")}
    judged = load_one("reward-model", run, spec).judge([rows[record["id"]] for record in written])
    assert [each.value for each in judged] == [record["value"] for record in written]
    head = load_file(run.folder / "adapter" / "value_head.safetensors")
    assert float(torch.cat([tensor.flatten() for tensor in head.values()]).abs().max()) > 0


def test_an_interrupted_run_goes_on_to_the_same_result(
    able: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = reviews(tmp_path)
    config = load_config(values=values_of(able, reward_model__epochs=6, checkpoint__every_steps=2))
    real, calls = Run.log, []

    def log(self: Run, *given: Any, **named: Any) -> None:
        calls.append(1)
        if len(calls) == 12:
            raise KeyboardInterrupt
        real(self, *given, **named)

    monkeypatch.setattr(Run, "log", log)
    with pytest.raises(KeyboardInterrupt):
        execute(config, spec, tmp_path / "run")
    execute(config, spec, tmp_path / "run", resume=True)
    assert differing(run.folder, tmp_path / "run") == []
    assert Run.open(tmp_path / "run").scores()["pair_accuracy"] == run.scores()["pair_accuracy"]


def test_it_stands_in_a_comparison(tiny_llama: Path, tmp_path: Path) -> None:
    values = {**values_of(tiny_llama), "data.train_rows": 8}
    table = compare(
        load_config(values=values), [reviews(tmp_path)], ["sft", "reward-model"], [0], tmp_path / "out", runner=execute
    )
    assert [row["method"] for row in table["rows"]] == ["sft", "reward-model"]


def test_on_several_tasks_each_has_its_pairs(able: Path, tmp_path: Path) -> None:
    spec = reviews(tmp_path)
    specs = [spec, spec.model_copy(update={"name": "second"})]
    execute(load_config(values=values_of(able)), specs, tmp_path / "run")
    tasks = json.loads((tmp_path / "run" / "training.json").read_text())["tasks"]
    assert all(0 <= tasks[each.name]["pair_accuracy"] <= 1 for each in specs)
    assert "pair_accuracy" in json.loads((tmp_path / "run" / "tasks" / "second" / "scores.json").read_text())


def test_a_language_model_has_no_place_for_it(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a reward-model: it rates answers with a head"):
        export_judge(run.folder, "merged", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_are_refused(able: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="answered with a number, and reward-model learns from"):
        execute(load_config(values=values_of(able)), load_task("vader/movies-rating"), tmp_path / "run")


def test_too_few_rows_are_an_error(able: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with 1 training rows none is left after reward_model.held_out=0.1"):
        execute(load_config(values=values_of(able, data__train_rows=1)), reviews(tmp_path), tmp_path / "run")
