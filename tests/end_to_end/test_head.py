"""A classification head on the policy: trained, saved, loaded, moved, and refused where it has no place."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews
from peft import LoraConfig, PeftModel
from running import load_one, logged, tiny_run, train_one
from safetensors.torch import load_file
from specs import label_task, number_task
from transformers import AutoModelForSequenceClassification

import adjudge
from adjudge.config import load_config
from adjudge.errors import ConfigError, RunError
from adjudge.experiments.execute import execute
from adjudge.models.head import head_logits
from adjudge.rollout.prompted import prompt_rows
from adjudge.runs.folder import Run
from adjudge.runs.tasks import read_tasks
from adjudge.ship.export import export_judge
from adjudge.tasks import load_split
from adjudge.types import Example


def values_of(model: Path, **values: Any) -> dict[str, Any]:
    return tiny_run("head", model, **{"head__head_lr": 1e-2, "head__optimizer__lr": 1e-3, **values})


@pytest.fixture(scope="module")
def run(able: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("head")
    execute(load_config(values=values_of(able, head__epochs=8)), reviews(folder), folder / "run")
    return Run.open(folder / "run")


def test_it_learns_and_is_never_unreadable(run: Run) -> None:
    records = logged(run)
    assert records[0]["loss"] == pytest.approx(0.6931, abs=1e-3)  # the head begins at zero
    assert sum(record["right"] for record in records[-10:]) / 10 > 0.8
    scores = run.scores()
    assert scores["unreadable"] == 0 and scores["probabilities"]["rows"] == 8
    assert scores["metrics"]["accuracy"]["value"] >= 0.75


def test_it_is_loaded_with_its_head_in_its_run_and_elsewhere(run: Run, able: Path, tmp_path: Path) -> None:
    (spec,) = read_tasks(run.folder)
    written = {row.id: row for row in run.predictions("dev")}
    rows = [row for row in load_split(spec, "dev") if row.id in written]
    judged = load_one("head", Run.open(run.folder), spec).judge(rows, probabilities=True)
    shutil.copytree(run.folder / "adapter", tmp_path / "moved")
    moved = adjudge.open_judge(tmp_path / "moved", model=str(able)).predict([row.fields for row in rows])
    for row, again, elsewhere in zip(rows, judged, moved, strict=True):
        assert again.probabilities == pytest.approx(written[row.id].probabilities, abs=1e-6)
        assert again.value == elsewhere.value == written[row.id].value
    assert len({round(row.probabilities[spec.words[0]], 4) for row in judged}) > 1


def test_its_own_folder_is_not_merged_either(run: Run, able: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(run.folder / "adapter", tmp_path / "moved")
    for folder in (run.folder, moved):
        with pytest.raises(RunError, match="rates answers with a head"):
            export_judge(folder, "merged", tmp_path / "merged", model=None if folder == run.folder else str(able))


def test_transformers_and_peft_give_its_logits(run: Run, able: Path) -> None:
    (spec,) = read_tasks(run.folder)
    task = load_one("head", run, spec).task
    prompts = [row.ids for row in prompt_rows(task, load_split(spec, "dev")[:3])]
    model = AutoModelForSequenceClassification.from_pretrained(able, num_labels=2, dtype=torch.float32)
    layers = LoraConfig.from_pretrained(str(run.folder / "adapter"))
    layers.task_type = None
    model = PeftModel.from_pretrained(model, str(run.folder / "adapter"), config=layers).eval()
    model.base_model.model.score.load_state_dict(
        {"weight": load_file(run.folder / "adapter" / "classification_head.safetensors")["score.weight"]}
    )
    with torch.no_grad():
        expected = torch.cat([model(input_ids=torch.tensor([list(ids)])).logits for ids in prompts])
        torch.testing.assert_close(head_logits(task.policy, prompts), expected, atol=1e-4, rtol=1e-4)


def test_numbers_have_one_output(able: Path, tmp_path: Path) -> None:
    spec = number_task(0, 4)
    rows = [Example(f"t:{row}", {"text": f"{'good ' * (row % 5)}film"}, float(row % 5)) for row in range(20)]
    values = values_of(able, head__epochs=8)
    run = Run.create(tmp_path / "run", load_config(values=values))
    judged = train_one("head", run, spec, rows).judge(rows)
    assert all(0 <= row.value <= 4 and row.text == f"{row.value:.1f}" for row in judged)
    errors = [abs(row.value - row.gold) for row in judged]
    assert sum(errors) / len(errors) < 1.0  # 1.2 for the mean
    assert load_one("head", run, spec).judge(rows)[3].value == pytest.approx(judged[3].value, abs=1e-5)


def test_weighted_rows_count_more(able: Path, tmp_path: Path) -> None:
    spec = label_task("Bad", "Good")
    rows = [Example(f"t:{row}", {"text": "film"}, "Good" if row % 4 else "Bad") for row in range(16)]
    shares = []
    for weight in (None, "balanced"):
        values = values_of(able, head__epochs=4, head__class_weight=weight, head__batch_size=8)
        run = Run.create(tmp_path / str(weight), load_config(values=values))
        (judged,) = train_one("head", run, spec, rows).judge(rows[:1], probabilities=True)
        shares.append(judged.probabilities["Good"])
    assert shares[0] > 0.6 and shares[1] == pytest.approx(0.5, abs=0.1)


def test_what_has_no_place_for_a_head_refuses_it(run: Run, able: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is a head: it rates answers with a head"):
        export_judge(run.folder, "merged", tmp_path / "out")
    start = load_config(values={**values_of(able), "method": "sft", "init": str(run.folder)})
    with pytest.raises(RunError, match="was trained to judge with a classification head"):
        execute(start, reviews(tmp_path), tmp_path / "sft")
    with pytest.raises(ConfigError, match="head cannot start from a run"):
        execute(load_config(values={**values_of(able), "init": str(run.folder)}), reviews(tmp_path), tmp_path / "new")


def test_a_head_that_is_gone_damaged_or_of_other_labels_is_an_error(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder, tmp_path / "run")
    broken = Run.open(tmp_path / "run")
    (spec,) = read_tasks(run.folder)
    with pytest.raises(RunError, match=r"its head answers .*, but the task mine wants Yes, No"):
        load_one("head", broken, label_task("Yes", "No"))
    weights = broken.folder / "adapter" / "classification_head.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(RunError, match="is damaged, or of another model"):
        load_one("head", broken, spec)
    weights.unlink()
    with pytest.raises(RunError, match=r"holds no classification head: classification_head.safetensors is missing"):
        load_one("head", broken, spec)
