"""Rows per pass: what is taken, what is halved when memory runs out, and that the gradient stays."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_method import reviews
from running import EPOCHS_ALONE, logged
from test_graphs import Rerun, figures, replaying
from torch import nn

from adjudge.config import RuntimeConfig, load_config
from adjudge.errors import ConfigError, RunError
from adjudge.methods.registry import get_entry
from adjudge.models.engine import attention
from adjudge.models.policy import Policy
from adjudge.rollout.passes import RowsPerPass
from adjudge.runs.folder import Run, read_jsonl
from adjudge.tasks import load_split
from adjudge.training import updates
from adjudge.training.mixture import TaskRows
from adjudge.training.updates import accumulate


class Regression:
    """A loss whose passes of more than `fit` rows run out of memory, after part of their gradient is there."""

    def __init__(self, fit: int, error: Exception | None = None) -> None:
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4))
        self.rows = torch.randn(12, 4)
        self.fit, self.error, self.passes = fit, error or torch.OutOfMemoryError("CUDA out of memory."), []

    def forget(self) -> None:
        self.weight.grad = None

    def loss_of(self, rows: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        self.passes.append(len(rows))
        dropped = nn.functional.dropout(self.rows[rows], 0.5)
        loss = (dropped @ self.weight).square().sum() / 12
        if len(rows) > self.fit:
            loss.backward()
            raise self.error
        return loss, {"loss": loss.detach()}


def gradient(
    micro: int | str | None,
    fit: int = 99,
    own: int | None = None,
    kind: type[Regression] = Regression,
    **more: Any,
) -> tuple[torch.Tensor, Regression]:
    problem = kind(fit, **more)
    passes = RowsPerPass(RuntimeConfig(micro_batch_size=micro), problem.forget)
    torch.manual_seed(1)
    with passes.current():
        accumulate(range(12), own, problem.loss_of)
    assert problem.weight.grad is not None
    return problem.weight.grad.clone(), problem


def test_auto_takes_the_whole_batch_where_it_fits() -> None:
    found, problem = gradient("auto")
    assert problem.passes == [12]
    assert torch.equal(found, gradient(None)[0])


def test_auto_halves_until_a_pass_fits_and_the_result_is_that_of_this_size() -> None:
    found, problem = gradient("auto", fit=4)
    assert problem.passes == [12, 6, 3, 3, 3, 3]
    assert torch.equal(found, gradient(3)[0]), "also with dropout: its masks are drawn again"


def test_a_methods_own_size_is_the_largest_that_is_tried() -> None:
    assert gradient("auto", fit=4, own=8)[1].passes == [8, 4, 4, 4]
    assert gradient(5, own=8)[1].passes == [5, 5, 2]
    assert gradient(8, own=5)[1].passes == [5, 5, 2]


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory")],
)
def test_a_cpu_runs_out_too(error: Exception) -> None:
    assert gradient("auto", fit=6, error=error)[1].passes == [12, 6, 6]


def test_a_single_row_that_does_not_fit_is_an_error_with_advice() -> None:
    with pytest.raises(RunError, match=r"with a single row in a pass.*checkpoint_activations=true"):
        gradient("auto", fit=0)


def test_without_auto_the_error_names_it() -> None:
    with pytest.raises(RunError, match=r"Memory ran out with 5 rows in one pass\. runtime\.micro_batch_size=auto"):
        gradient(5, fit=4)
    with pytest.raises(RunError, match="12 rows in one pass"):
        gradient(None, fit=4)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        gradient("auto", fit=4, error=RuntimeError("shapes do not match"))


@pytest.fixture
def captured(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """Return a policy that holds captured passes."""
    monkeypatch.setattr(attention, "PLAIN_WEIGHTS", 0)
    policy = replaying(tiny_llama)
    for _ in range(2):
        figures(policy)
    assert Rerun.alive()
    return policy


class BesideCaptured(Regression):
    """A loss that also runs out of memory while any captured pass is held."""

    def loss_of(self, rows: list[int]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        fit, self.fit = self.fit, 0 if Rerun.alive() else self.fit
        try:
            return super().loss_of(rows)
        finally:
            self.fit = fit


@pytest.mark.parametrize("micro", ["auto", None])
def test_captured_passes_are_dropped_before_a_pass_is_made_smaller(
    micro: str | None, captured: Policy, capsys: pytest.CaptureFixture[str]
) -> None:
    found, problem = gradient(micro, kind=BesideCaptured)
    assert problem.passes == [12, 12]
    assert torch.equal(found, gradient(micro)[0]), "also with dropout: its masks are drawn again"
    assert capsys.readouterr().err.count("memory ran out with passes captured as CUDA graphs") == 1
    assert captured.replays


def test_where_dropping_captured_passes_is_not_enough_a_pass_is_made_smaller(captured: Policy) -> None:
    assert gradient("auto", fit=6, kind=BesideCaptured)[1].passes == [12, 12, 6, 6]


def test_without_auto_the_error_comes_after_captured_passes_were_dropped(captured: Policy) -> None:
    with pytest.raises(RunError, match="Memory ran out with 12 rows in one pass"):
        gradient(None, fit=6, kind=BesideCaptured)
    assert not Rerun.alive()


@pytest.mark.parametrize("size", ["0", "-1", "all", "1.5"])
def test_other_sizes_are_refused(size: str) -> None:
    with pytest.raises(ConfigError, match=r"runtime\.micro_batch_size"):
        load_config(overrides=[f"runtime.micro_batch_size={size}"])


def train(method: str, folder: Path, model: Path, rows: int = 8, **values: Any) -> Run:
    named = {name.replace("__", "."): value for name, value in values.items()}
    own = {f"{method}.batch_size": 4, "runtime.dtype": "float32", "checkpoint.every_steps": 1}
    config = load_config(values={**EPOCHS_ALONE, **own, "method": method, "model": str(model), **named})
    run = Run.create(folder / "run", config, resume=True)
    spec = reviews(folder)
    get_entry(method).load().train(run, [TaskRows(spec, load_split(spec, "train")[:rows])])
    return run


def out_of_memory_above(rows: int, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Let passes of more rows run out of memory."""
    real = getattr(updates, name)

    def limited(policy: Any, some: Any, *arguments: Any, **more: Any) -> Any:
        if len(some) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(policy, some, *arguments, **more)

    monkeypatch.setattr(updates, name, limited)


def test_a_run_keeps_the_size_it_found_and_so_does_a_resumed_one(
    able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("fixed", "auto"):
        (tmp_path / name).mkdir()
    fixed = train("sft", tmp_path / "fixed", able, runtime__micro_batch_size=2)
    with monkeypatch.context() as scarce:
        out_of_memory_above(3, scarce, "taught_loss")
        auto = train("sft", tmp_path / "auto", able, runtime__micro_batch_size="auto")
    assert logged(auto) == logged(fixed)
    assert [record["rows_per_pass"] for record in read_jsonl(auto.folder / "timings.jsonl")] == [2] * len(logged(auto))
    assert capsys.readouterr().err.count("memory ran out with 4 rows in one pass: 2 from now on") == 1
    auto._lock.release()
    last = sorted((auto.folder / "checkpoints").glob("step-*"))[-1]
    for path in last.iterdir():
        path.unlink()
    last.rmdir()
    again = train("sft", tmp_path / "auto", able, runtime__micro_batch_size="auto")  # memory is plenty now
    assert again.resumed
    assert logged(again) == logged(fixed)
    assert [record["rows_per_pass"] for record in read_jsonl(again.folder / "timings.jsonl")][-1] == 2


@pytest.mark.parametrize("method", ["ppo", "grpo", "exact", "encoder"])
def test_every_method_takes_the_setting(method: str, able: Path, tiny_bert: Path, tmp_path: Path) -> None:
    model = able
    if method == "encoder":  # without dropout, whose masks differ with the size of a pass
        model = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
        config = json.loads((model / "config.json").read_text())
        without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (model / "config.json").write_text(json.dumps({**config, **without}))
    more = {"encoder__model": str(model)} if method == "encoder" else {f"{method}__warm_start": 0.0}
    figures = []
    for size in (None, 3, "auto"):
        (tmp_path / str(size)).mkdir()
        run = train(
            method, tmp_path / str(size), model, 4, runtime__micro_batch_size=size, **{**more, f"{method}__epochs": 1}
        )
        figures.append({key: value for key, value in logged(run)[0].items() if isinstance(value, float)})
    for other in figures[1:]:
        assert {**other, "explained_variance": 0} == pytest.approx({**figures[0], "explained_variance": 0}, abs=1e-4)
