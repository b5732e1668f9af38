"""Train the methods that learn from pairs or win rates, and MinorSFT, on a tiny model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import save_tiny, tiny_llama_config
from fake_method import reviews
from kill import differing
from running import EPOCHS_ALONE, logged
from safetensors.torch import load_file
from spoilt import spoilt_update

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.experiments.compare import compare
from adjudge.experiments.execute import execute
from adjudge.models.policy import Policy
from adjudge.runs.folder import Run
from adjudge.tasks import load_task
from adjudge.types import Judgement

METHODS = ("dpo", "tdpo", "spin", "sppo")


def values_of(method: str, model: Path, **values: Any) -> dict[str, Any]:
    return {
        **EPOCHS_ALONE,
        "method": method,
        "model": str(model),
        "runtime.dtype": "float32",
        "runtime.device": "cpu",
        "data.train_rows": 16,
        "data.eval_rows": 4,
        "evaluation.resamples": 100,
        f"{method}.batch_size": 4,
        f"{method}.optimizer.lr": 1e-3,
        **{key.replace("__", "."): value for key, value in values.items()},
    }


def trained(method: str, model: Path, folder: Path, **values: Any) -> Run:
    folder.mkdir(exist_ok=True)
    execute(load_config(values=values_of(method, model, **values)), reviews(folder), folder / "run")
    return Run.open(folder / "run")


def own_steps(run: Run) -> list[dict[str, Any]]:
    """Return the records after the warm start."""
    return [record for record in logged(run) if "prompts" in record]


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.folder / "adapter" / "adapter_model.safetensors")


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("dpo", {}),
    ("dpo", {"dpo__loss": "minor-dpo", "dpo__pairs": "all"}),
    ("tdpo", {"tdpo__variant": "tdpo1"}),
    ("tdpo", {"tdpo__pairs": "sampled"}),
]


@pytest.mark.parametrize(("method", "values"), VARIANTS)
def test_the_first_loss_against_the_reference_is_log_two(
    method: str, values: dict[str, Any], able: Path, tmp_path: Path
) -> None:
    first, *later = own_steps(trained(method, able, tmp_path, **values))
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert abs(first["chosen"]) < 1e-3 and abs(first["rejected"]) < 1e-3 and first["kl"] < 1e-4
    assert first["pairs"] + first["ties"] >= 4 and first["grad_norm"] > 0
    assert all(math.isfinite(record["loss"]) for record in later) and abs(later[0]["margin"]) > 1e-3


def test_the_pairs_are_made_once(able: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained("dpo", able, tmp_path, dpo__epochs=4)
    assert capsys.readouterr().err.count("16 pairs from 16 of 16 rows.") == 1


def test_each_iteration_begins_at_its_reference(able: Path, tmp_path: Path) -> None:
    values = {"spin__answers": "labels", "spin__warm_start": 0.0}
    records = own_steps(trained("spin", able, tmp_path, **values))
    assert [record["iteration"] for record in records] == [0, 0, 0, 0, 1, 1, 1, 1]
    near, far = (records[0]["margin"], records[4]["margin"]), (records[3]["margin"], records[7]["margin"])
    assert max(map(abs, near)) < 1e-3 < min(map(abs, far))


@pytest.mark.parametrize(("method", "moves"), [("dpo", 1), ("spin", 2), ("sppo", 3)])
def test_the_reference_moves_with_the_iterations(
    method: str, moves: int, able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once at the end of the warm start, and then before each iteration but the first."""
    calls: list[int] = []
    real = Policy.freeze_reference
    monkeypatch.setattr(Policy, "freeze_reference", lambda policy: (calls.append(1), real(policy)))
    trained(method, able, tmp_path)
    assert len(calls) == moves


def test_a_reference_that_stays_is_dpo(able: Path, tmp_path: Path) -> None:
    """One iteration against sampled answers is DPO with pairs of sampled answers."""
    spin = own_steps(trained("spin", able, tmp_path / "spin", spin__iterations=1))
    dpo = own_steps(trained("dpo", able, tmp_path / "dpo", dpo__pairs="sampled"))
    assert [{k: v for k, v in record.items() if k not in ("iteration", "seconds")} for record in spin] == [
        {k: v for k, v in record.items() if k != "seconds"} for record in dpo
    ]


def test_the_weight_of_sft_raises_the_loss_by_the_likelihood(able: Path, tmp_path: Path) -> None:
    plain, more = (
        own_steps(trained("dpo", able, tmp_path / str(weight), dpo__sft_weight=weight))[0] for weight in (0.0, 0.5)
    )
    assert more["loss"] > plain["loss"] and more["chosen"] == plain["chosen"]


@pytest.mark.parametrize("method", ["tdpo", "sppo"])
def test_with_a_rate_of_zero_nothing_changes(method: str, able: Path, tmp_path: Path) -> None:
    run = trained(method, able, tmp_path, **{f"{method}__optimizer__lr": 0.0, f"{method}__warm_start": 0.0})
    assert all(float(weight.abs().max()) == 0 for name, weight in weights(run).items() if "lora_B" in name)


def test_on_several_tasks_each_has_its_pairs(able: Path, tmp_path: Path) -> None:
    spec = reviews(tmp_path)
    specs = [spec, spec.model_copy(update={"name": "second"})]
    execute(load_config(values=values_of("spin", able)), specs, tmp_path / "run")
    records = own_steps(Run.open(tmp_path / "run"))
    assert {record["task"] for record in records} == {spec.name, "second"}


def test_they_stand_in_a_comparison(tiny_llama: Path, tmp_path: Path) -> None:
    values = {**values_of("sft", tiny_llama), "data.train_rows": 4, "sppo.iterations": 1, "sppo.answers": "labels"}
    table = compare(
        load_config(values=values), [reviews(tmp_path)], ["sft", "dpo", "sppo"], [0], tmp_path / "out", runner=execute
    )
    assert [row["method"] for row in table["rows"]] == ["sft", "dpo", "sppo"]
    ours = "sppo.answers=labels is an exact form over the labels, which is ours, not the paper's"
    assert ours in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", METHODS)
def test_numbers_are_refused(method: str, able: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"answered with a number, and {method} learns from .* such as sft, ppo"):
        execute(load_config(values=values_of(method, able)), load_task("vader/movies-rating"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("spin", {"spin__iterations": 0}, "spin.iterations"),
        ("sppo", {"sppo__iterations": 0}, "sppo.iterations"),
        ("spin", {"spin__iterations": 5}, "5 iterations need as many steps after the warm start, and there are only 4"),
        ("sppo", {"sppo__log_z": "exact"}, r"sppo\.log_z=exact needs .* Use sppo\.answers=labels"),
        ("dpo", {"prompt__analysis": "before"}, "dpo cannot go with prompt.analysis=before"),
        ("sft", {"sft__minor_beta": 1.0, "sft__loss": "sequence"}, r"Use it with sft\.loss=answer"),
        ("sft", {"sft__minor_beta": -1.0}, "sft.minor_beta"),
    ],
)
def test_settings_that_make_no_sense_are_refused(
    method: str, values: dict[str, Any], message: str, able: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        trained(method, able, tmp_path, **values)


def test_a_reference_of_another_base_is_refused(able: Path, tmp_path: Path) -> None:
    sft = trained("sft", able, tmp_path / "sft")
    torch.manual_seed(5)
    other = save_tiny(tiny_llama_config(), tmp_path / "other")
    with pytest.raises(
        RunError, match=r"other is not the model that .*sft.* was made with: model\.safetensors differs"
    ):
        trained("dpo", other, tmp_path / "dpo", init=str(sft.folder))


def test_rows_that_the_model_answers_right_make_no_pairs(
    able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adjudge.rollout.collect.read_answer", right_answers(tmp_path))
    with pytest.raises(DataError, match=r"None of the 16 training rows has a pair: .* or spin\.answers=labels"):
        trained("spin", able, tmp_path)
    assert not (tmp_path / "run" / "scores.json").exists()


def test_where_all_samples_are_alike_sppo_pulls_to_the_reference(
    able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adjudge.rollout.collect.read_answer", lambda text, spec, stop: Judgement(text, None))
    records = own_steps(trained("sppo", able, tmp_path))
    assert all(record["ties"] == 4 and math.isfinite(record["loss"]) for record in records)
    assert records[0]["loss"] == pytest.approx(0, abs=1e-6)


def right_answers(folder: Path) -> Any:
    """Return a reader which finds in every answer the word of the only label that the rows have."""
    return lambda text, spec, stop: Judgement(text, AnyOf(spec.words))


class AnyOf(str):
    """A judgement that equals each of some words."""

    words: Sequence[str]

    def __new__(cls, words: Sequence[str]) -> AnyOf:
        made = super().__new__(cls, words[0])
        made.words = words
        return made

    def __eq__(self, other: object) -> bool:
        return other in self.words

    __hash__ = str.__hash__


def test_without_beta_minor_sft_is_sft_bit_for_bit(able: Path, tmp_path: Path) -> None:
    values = {"sft__batch_size": 2, "sft__micro_batch_size": 1}  # 16 steps
    plain, zero = (
        trained("sft", able, tmp_path / name, **values, **more)
        for name, more in (("plain", {}), ("zero", {"sft__minor_beta": 0.0}))
    )
    expected = weights(plain)
    assert all(torch.equal(weight, expected[name]) for name, weight in weights(zero).items())
    for one, other in zip(logged(plain), logged(zero), strict=True):
        assert one["loss"] == other["loss"] and other["minor_weight"] == 1.0
        assert ("deviation" in one) == (one["step"] == 10), "plain SFT measures every tenth step"
        assert "minor_weight" not in one
        assert one.get("deviation", other["deviation"]) == pytest.approx(other["deviation"], abs=1e-4)
    assert logged(zero)[0]["deviation"] == pytest.approx(0, abs=1e-5)


def test_minor_sft_goes_less_far(able: Path, tmp_path: Path) -> None:
    values = {"sft__epochs": 6, "sft__optimizer__lr": 1e-2}
    sft, minor = (
        logged(trained("sft", able, tmp_path / str(beta), sft__minor_beta=beta, **values)) for beta in (0.0, 3.0)
    )
    assert minor[-1]["minor_weight"] < 0.9 and minor[0]["minor_weight"] == pytest.approx(1, abs=1e-5)
    assert minor[-1]["deviation"] < sft[-1]["deviation"]


@pytest.mark.parametrize(("method", "started"), [("spin", False), ("sppo", True)], ids=["from the model", "from a run"])
def test_a_moved_reference_survives_a_failure(
    method: str, started: bool, able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a warm start too, and where the reference was the adapter of another run."""
    values: dict[str, Any] = {f"{method}__warm_start": 0.0, f"{method}__iterations": 3, f"{method}__epochs": 1}
    values |= {f"{method}__answers": "labels", f"{method}__batch_size": 2, "checkpoint__every_steps": 1}
    if started:
        values["init"] = str(trained("sft", able, tmp_path / "start").folder)
    whole = trained(method, able, tmp_path / "whole", **values)
    with spoilt_update(8, 8, monkeypatch):  # the second step of the last iteration
        trained(method, able, tmp_path / "failed", **values)
    config = load_config(values=values_of(method, able, **values))
    execute(config, reviews(tmp_path / "failed"), tmp_path / "failed" / "run", resume=True)
    assert differing(whole.folder, tmp_path / "failed" / "run") == []
