"""A finished run whose base model has moved, and one whose template writes the date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fake_method import write_reviews
from running import EPOCHS_ALONE
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.experiments.evaluate import evaluate_run, load_judge
from adjudge.experiments.execute import execute
from adjudge.experiments.rerun import rerun
from adjudge.runs.folder import Run, read_json, read_jsonl
from adjudge.tasks import infer_task

DATED = (
    "{{ strftime_now('%d %B %Y') + '\n' }}{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture(scope="module")
def made(tiny_llama, tmp_path_factory) -> Path:
    """A folder with ``base`` (whose template writes the date), ``rows.csv``, and ``run``, an SFT run on them."""
    folder = tmp_path_factory.mktemp("moved")
    shutil.copytree(tiny_llama, folder / "base")
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(folder / "base")
    write_reviews(folder / "rows.csv")
    values = {"runtime.device": "cpu", "runtime.dtype": "float32", "data.train_rows": 4, "data.eval_rows": 4}
    config = load_config(
        values={**EPOCHS_ALONE, **values, "method": "sft", "model": str(folder / "base"), "sft.epochs": 1, "lora.r": 2}
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        config = config.model_copy(update={"model": "base"})
        execute(config, infer_task(folder / "rows.csv", ["text"], "label"), folder / "run")
    return folder


@pytest.fixture
def moved(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "copy")


def prompt_of(judge) -> str:
    return judge.task.renderer.text(judge.task.renderer.spec and _row())


def _row():
    from adjudge.types import Example

    return Example("a", {"text": "fine"}, None)


def test_model_folder_is_kept_by_its_whole_path(made) -> None:
    assert Run.open(made / "run").config.model == str(made / "base")


def test_base_model_may_move(moved, made) -> None:
    config = moved / "run/config.yaml"
    config.write_text(config.read_text().replace(str(made), str(moved / "gone")))
    with pytest.raises(RunError, match=r"gone.*no longer there.*--model"):
        load_judge(moved / "run")
    with pytest.raises(RunError, match="--model"):
        evaluate_run(moved / "run")
    before = list(read_jsonl(moved / "run/predictions/dev.jsonl"))
    evaluate_run(moved / "run", model=str(moved / "base"))
    assert list(read_jsonl(moved / "run/predictions/dev.jsonl")) == before


def test_another_model_is_refused_and_other_files_are_named(made, moved, capsys) -> None:
    path = moved / "base/model.safetensors"
    weights = load_file(path)
    (moved / "base/tokenizer_config.json").write_text(
        json.dumps({**read_json(moved / "base/tokenizer_config.json"), "model_max_length": 7})
    )
    load_judge(made / "run", model=str(moved / "base"))
    assert "but other files: tokenizer_config.json" in " ".join(capsys.readouterr().err.split())
    weights["model.norm.weight"] += 1
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(RunError, match=r"is not the model.*model\.safetensors differs"):
        load_judge(made / "run", model=str(moved / "base"))
    path.unlink()
    with pytest.raises(RunError, match=r"model\.safetensors is missing"):
        load_judge(made / "run", model=str(moved / "base"))
    with pytest.raises(ModelError, match="There is no model 'nowhere'"):
        load_judge(made / "run", model="nowhere")


def test_run_without_a_base_model_takes_none(tmp_path) -> None:
    config = load_config(values={"method": "tfidf", "data.train_rows": 6, "evaluation.resamples": 100})
    execute(config, infer_task(write_reviews(tmp_path / "rows.csv"), ["text"], "label"), tmp_path / "run")
    with pytest.raises(ConfigError, match="has no base model beside it"):
        load_judge(tmp_path / "run", model="smollm2-135m")


def test_date_of_the_prompt_is_that_of_the_runs_start(moved) -> None:
    """The same run and row gave other probabilities on another day."""
    _, _, judge = load_judge(moved / "run")
    today = prompt_of(judge).partition("\n")[0]
    path = moved / "run/environment.json"
    record = read_json(path)
    path.write_text(json.dumps({**record, "started": "2025-03-04T05:06:07+00:00"}))
    _, _, judge = load_judge(moved / "run")
    assert prompt_of(judge).startswith("04 March 2025\n") and not today.startswith("04 March 2025")
    again = Run.open(rerun(moved / "run"))
    assert str(again.config.prompt.date) == "2025-03-04"
    record = read_json(again.folder / "adapter/judge.json")
    assert record["settings"]["prompt"]["date"] == "2025-03-04"
