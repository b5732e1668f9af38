"""Train Critique-GRPO on a tiny model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews
from running import EPOCHS_ALONE, logged
from safetensors.torch import load_file

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.compare import compare
from adjudge.experiments.execute import execute
from adjudge.rollout import collect
from adjudge.runs.folder import Run
from adjudge.tasks import load_task
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Judgement

ANALYSED = {"prompt__analysis": "before", "answer__analysis_tokens": 4, "answer__max_tokens": 4}


def values_of(method: str, model: Path, **values: Any) -> dict[str, Any]:
    group = method.replace("-", "_")
    return {
        **EPOCHS_ALONE,
        "method": method,
        "model": str(model),
        "runtime.dtype": "float32",
        "runtime.device": "cpu",
        "data.train_rows": 4,
        "data.eval_rows": 2,
        "evaluation.resamples": 100,
        f"{group}.samples": 2,
        f"{group}.batch_size": 4,
        f"{group}.epochs": 1,
        f"{group}.warm_start": 0.0,
        f"{group}.optimizer.lr": 1e-3,
        **{key.replace("__", "."): value for key, value in values.items()},
    }


def trained(model: Path, folder: Path, method: str = "critique-grpo", **values: Any) -> Run:
    folder.mkdir(exist_ok=True)
    execute(load_config(values=values_of(method, model, **values)), reviews(folder), folder / "run")
    return Run.open(folder / "run")


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


def answer_all(monkeypatch: pytest.MonkeyPatch, find: Any) -> None:
    """Let `find(text, spec)` decide what an answer is read as."""

    def read(text: str, spec: TaskSpec, stop: str) -> Judgement:
        return Judgement(text, find(text, spec))

    monkeypatch.setattr(collect, "read_answer", read)


def by_length(text: str, spec: TaskSpec) -> str:
    return spec.words[len(text) % len(spec.words)]


@pytest.mark.parametrize("values", [ANALYSED, {}], ids=["analysis before", "labels alone"])
def test_it_trains_and_compares_refinements_with_fresh_samples(
    values: dict[str, Any], able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_all(monkeypatch, by_length)
    first, *later = logged(trained(able, tmp_path, critique_grpo__samples=4, data__train_rows=8, **values))
    assert first["kl"] == pytest.approx(0, abs=1e-4) and first["grad_norm"] > 0
    for record in (first, *later):
        assert record["critiqued"] > 0 and record["sampled_tokens"] > record["extra_tokens"] > 0
        shares = [record[name] for name in ("refined_right", "fresh_right", "refined_beats", "fresh_beats")]
        assert all(0 <= share <= 1 for share in shares)
        # Both are right, or one of the two alone is: what is gained is what one wins over the other.
        assert shares[0] - shares[1] == pytest.approx(shares[2] - shares[3], abs=1e-6)
        assert math.isfinite(record["shaped_loss"])


def test_refinements_move_the_policy_whatever_the_parts_of_a_batch(
    able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer_all(monkeypatch, by_length)
    forms: tuple[dict[str, Any], ...] = ({}, {"critique_grpo__micro_batch_size": 1}, {"critique_grpo__kept": 0})
    whole, one, none = (logged(trained(able, tmp_path / str(number), **form))[0] for number, form in enumerate(forms))
    assert one["grad_norm"] == pytest.approx(whole["grad_norm"], rel=1e-4)
    assert one["shaped_loss"] == pytest.approx(whole["shaped_loss"], rel=1e-4) and "shaped_loss" not in none
    assert one["grad_norm"] != pytest.approx(none["grad_norm"], rel=1e-2)


def test_without_refinements_it_is_dr_grpo(able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer_all(monkeypatch, by_length)
    ours = trained(able, tmp_path / "ours", critique_grpo__kept=0, **ANALYSED)
    theirs = trained(able, tmp_path / "theirs", "grpo", grpo__variant="dr-grpo", **ANALYSED)
    expected = weights(theirs)
    assert any((weight != 0).any() for name, weight in expected.items() if "lora_B" in name)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(ours).items())
    for one, other in zip(logged(ours), logged(theirs), strict=True):
        assert one == other


@pytest.mark.parametrize("value", [None, "never"], ids=["unreadable", "wrong"])
def test_equal_rewards_are_counted_and_move_nothing(
    value: str | None, able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer and no refinement is right."""
    answer_all(monkeypatch, lambda text, spec: value)
    run = trained(able, tmp_path, **ANALYSED)
    for record in logged(run):
        assert record["tied"] == 1 and record["none_right"] == 4 and record["skipped"] == 0
        assert record["refined_right"] == record["fresh_right"] == record["refined_beats"] == 0
        assert record["grad_norm"] == 0 and record["shaped_loss"] == 0
    assert all((weight == 0).all() for name, weight in weights(run).items() if "lora_B" in name)


def test_where_every_answer_is_right_nothing_is_refined(
    able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Any_(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            return isinstance(other, str)

    answer_all(monkeypatch, lambda text, spec: Any_(spec.words[0]))
    for record in logged(trained(able, tmp_path, **ANALYSED, critique_grpo__reward__balance=False)):
        assert record["skipped"] == record["tied"] == 1 and record["critiqued"] == 0
        assert record["refined_right"] is None and "shaped_loss" not in record and record["grad_norm"] == 0


def test_a_comparison_names_the_gold_as_what_it_is(able: Path, tmp_path: Path) -> None:
    config = load_config(values=values_of("critique-grpo", able, critique_grpo__critique="gold"))
    compare(config, [reviews(tmp_path)], ["critique-grpo"], [0], tmp_path / "out", runner=execute)
    table = " ".join((tmp_path / "out" / "table.md").read_text(encoding="utf-8").split())
    assert "critique_grpo.critique=gold is grpo+gold: the critique holds the right answer" in table
    assert "prompt.analysis=False is Critique-GRPO on labels without an analysis, which is ours" in table


@pytest.mark.parametrize(
    ("values", "warning"),
    [
        ({}, "there is only a label to criticise, and 'incorrect' leaves 1 of 2. Set prompt.analysis=before"),
        (ANALYSED, "has two labels, so 'incorrect' names the right one: a critique gives the answer away"),
        ({**ANALYSED, "critique_grpo__critique": "gold"}, ""),
    ],
)
def test_it_says_what_critiques_give_away(
    values: dict[str, Any], warning: str, able: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(able, tmp_path, **values, data__train_rows=2)
    printed = " ".join(capsys.readouterr().err.split())
    assert warning in printed and bool(warning) == ("'incorrect'" in printed)


def test_what_makes_no_sense_is_refused(able: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"its credit is a difference to the other answers of a batch.*Use grpo"):
        trained(able, tmp_path, critique_grpo__reward__metric="accuracy")
    with pytest.raises(ConfigError, match=r"critique_grpo\.samples"):
        trained(able, tmp_path, critique_grpo__samples=1)
    config = load_config(values=values_of("critique-grpo", able))
    with pytest.raises(ConfigError, match="answered with a number, and critique-grpo learns from answers that are"):
        execute(config, load_task("vader/movies-rating"), tmp_path / "numbers")
