"""Train with instruction embeddings on a tiny model, and take the judge elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from running import EPOCHS_ALONE, PLAIN_PPO, logged
from safetensors.torch import load_file

import adjudge
from adjudge.config import load_config
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.experiments.evaluate import load_judges
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.ship.export import export_judge
from adjudge.ship.serving.vllm import vllm_command
from adjudge.types import Example

TEXTS = ["good one here", "bad one there", "good film, and a long review of it"]
EMBEDDINGS = "instruction_embeddings.safetensors"


def trained(method: str, model: Path, folder: Path, **values: Any) -> Run:
    folder.mkdir(exist_ok=True)
    fixed = {"method": method, "model": str(model), "runtime.dtype": "float32", "runtime.device": "cpu"}
    small = {"data.train_rows": 8, "data.eval_rows": 4, "evaluation.resamples": 100, f"{method}.batch_size": 4}
    changes = {key.replace("__", "."): value for key, value in values.items()}
    config = load_config(values={**EPOCHS_ALONE, **fixed, **small, f"{method}.optimizer.lr": 1e-2, **changes})
    execute(config, reviews(folder), folder / "run")
    return Run.open(folder / "run")


@pytest.fixture(scope="module")
def run(able: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained("swie", able, tmp_path_factory.mktemp("swie"))


@pytest.fixture(scope="module")
def sft(able: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained("sft", able, tmp_path_factory.mktemp("sft"))


def losses(run: Run) -> list[float]:
    return [record["loss"] for record in logged(run)]


def answers(judge: Any) -> list[Any]:
    return [(each.value, each.probabilities) for each in judge.predict(TEXTS)]


def test_the_first_step_is_sfts_and_later_ones_are_not(run: Run, sft: Run) -> None:
    first, *later = logged(run)
    assert first["loss"] == pytest.approx(losses(sft)[0], abs=1e-5) and first["added"] == 0
    assert first["grad_norm"] > logged(sft)[0]["grad_norm"]  # what reads the instruction has a gradient at once
    assert later[-1]["added"] > 0 and abs(later[-1]["loss"] - losses(sft)[-1]) > 1e-4
    assert load_file(run.folder / "adapter" / EMBEDDINGS)["0.up_DK"].abs().max() > 0


def test_strength_zero_is_sft_bit_for_bit(able: Path, sft: Run, tmp_path: Path) -> None:
    plain = trained("swie", able, tmp_path, swie__strength=0)
    assert losses(plain) == losses(sft)
    name = "adapter/adapter_model.safetensors"
    assert (plain.folder / name).read_bytes() == (sft.folder / name).read_bytes()
    assert not (plain.folder / "adapter" / EMBEDDINGS).exists()


def test_the_run_says_what_cannot_load_it(able: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained("swie", able, tmp_path, swie__layers=[1], swie__epochs=1)
    said = " ".join(capsys.readouterr().err.split())
    assert "added before layers 1. adjudge loads such an adapter; peft, vLLM and llama.cpp cannot" in said


def test_the_judge_answers_elsewhere_as_in_its_run(run: Run, able: Path, tmp_path: Path) -> None:
    inside = answers(adjudge.open_run(run.folder))
    (judge,) = load_judges(run.folder).values()
    predictions = run.predictions("dev")
    rows = [Example(each.id, each.fields, each.gold) for each in predictions]
    assert [each.value for each in judge.judge(rows)] == [each.value for each in predictions]
    (run.folder / "adapter").rename(tmp_path / "moved")
    assert answers(adjudge.open_judge(tmp_path / "moved", model=str(able))) == inside
    card = (tmp_path / "moved" / "README.md").read_text(encoding="utf-8")
    assert "only adjudge\nloads it" in card and "AutoPeft" not in card
    assert vllm_command(tmp_path / "moved", str(able), "judge") is None
    (tmp_path / "moved").rename(run.folder / "adapter")


@pytest.mark.parametrize("kind", ["merged", "gguf"])
def test_it_is_not_exported_as_a_plain_model(kind: str, run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="adds instruction embeddings to its layers, for which a plain model has no"):
        export_judge(run.folder, kind, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_methods_go_on_from_it_and_it_goes_on_from_them(run: Run, sft: Run, able: Path, tmp_path: Path) -> None:
    """The reference of the first is the run it starts from, embeddings included; of the second it has none."""
    ppo = trained("ppo", able, tmp_path / "ppo", **{**PLAIN_PPO, "init": str(run.folder), "ppo.epochs": 2})
    assert logged(ppo)[0]["kl"] == pytest.approx(0, abs=1e-4)
    before, after = (load_file(each.folder / "adapter" / EMBEDDINGS) for each in (run, ppo))
    assert before.keys() == after.keys() and any(not before[name].equal(after[name]) for name in before)
    further = trained("swie", able, tmp_path / "swie", init=str(sft.folder))
    assert logged(further)[0]["added"] == 0 and losses(further)[0] < losses(run)[0]
    again = trained("swie", able, tmp_path / "again", init=str(run.folder))
    assert logged(again)[0]["added"] > 0
    with pytest.raises(ConfigError, match=r"embeddings with pool=max, and this one asks for mean"):
        trained("swie", able, tmp_path / "other", init=str(run.folder), swie__pool="mean")
    with pytest.raises(ConfigError, match=r"embeddings with strength=1.0, and this one asks for 0.0"):
        trained("swie", able, tmp_path / "none", init=str(run.folder), swie__strength=0)


def test_an_analysis_before_the_judgement_is_refused(run: Run, able: Path, tmp_path: Path) -> None:
    """It would be sampled as an answer and then be part of a prompt, with other weights in each."""
    with pytest.raises(ConfigError, match=r"instruction embeddings, which cannot go with prompt.analysis=before"):
        trained("ppo", able, tmp_path / "ppo", init=str(run.folder), prompt__analysis="before")
    with pytest.raises(ConfigError, match="no analyses to teach"):
        trained("swie", able, tmp_path / "swie", prompt__analysis="before")


def test_a_layer_that_is_not_there_is_named(able: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no layer 9; the model's 2 layers are 0 to 1"):
        trained("swie", able, tmp_path, swie__layers=[9])


def test_an_adapter_that_lost_its_embeddings_is_refused(run: Run, tmp_path: Path) -> None:
    """Without them it would answer, and wrongly."""
    kept = (run.folder / "adapter" / EMBEDDINGS).read_bytes()
    (run.folder / "adapter" / EMBEDDINGS).unlink()
    with pytest.raises(RunError, match=EMBEDDINGS):
        adjudge.open_run(run.folder).predict(TEXTS)
    (run.folder / "adapter" / EMBEDDINGS).write_bytes(kept)
    assert json.loads((run.folder / "adapter" / "adapter_config.json").read_text())["peft_type"] != "LORA"
