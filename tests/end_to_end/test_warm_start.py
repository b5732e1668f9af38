"""Train the policy-gradient methods by their defaults: first SFT, whose result is the reference, then rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_method import reviews
from kill import differing
from running import EPOCHS_ALONE, logged
from spoilt import spoilt_update

from adjudge.config import load_config
from adjudge.errors import ConfigError
from adjudge.experiments.execute import execute
from adjudge.runs.folder import Run
from adjudge.tasks import load_task

METHODS = ("ppo", "rloo", "exact", "dpo", "tdpo", "sppo")
"""The warm start is the loop's: these measure the KL to the reference in different ways."""


def trained(method: str, model: Path, folder: Path, *, rows: int = 40, resume: bool = False, **values: Any) -> Run:
    settings = {
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
    folder.mkdir(exist_ok=True)
    execute(load_config(values=settings), reviews(folder, rows), folder / "run", resume=resume)
    return Run.open(folder / "run")


@pytest.mark.parametrize("method", METHODS)
def test_half_of_the_steps_are_sft_and_the_kl_begins_at_zero(method: str, able: Path, tmp_path: Path) -> None:
    records = logged(trained(method, able, tmp_path))
    assert [set(record) == {"step", "rows", "loss", "right", "grad_norm", "lr"} for record in records] == [
        *[True] * 4,
        *[False] * 4,
    ]
    assert [record.get("rows", record.get("prompts")) for record in records] == [4 * step for step in range(1, 9)]
    # The reference of the first sampled answers is the policy that gave them, and not the untrained model.
    assert records[4]["kl"] == pytest.approx(0, abs=1e-4)
    assert max(record["lr"] for record in records[:4]) == pytest.approx(3e-4)
    assert max(record["lr"] for record in records[4:]) == pytest.approx(1e-3)


def test_a_run_that_starts_from_another_has_no_warm_start(able: Path, tmp_path: Path) -> None:
    sft = trained("sft", able, tmp_path / "sft")
    records = logged(trained("rloo", able, tmp_path / "rloo", init=str(sft.folder)))
    assert all("reward" in record for record in records)
    assert records[0]["kl"] == pytest.approx(0, abs=1e-4)


def test_the_warm_start_is_sft(able: Path, tmp_path: Path) -> None:
    """With the rate of SFT's schedule, its steps have SFT's figures, whatever method follows."""
    one, other = (logged(trained(method, able, tmp_path / method)) for method in ("ppo", "exact"))
    assert one[:4] == other[:4]


def test_before_an_analysis_there_is_no_warm_start(
    able: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would teach to answer where the analysis begins."""
    values = {"prompt__analysis": "before", "answer__analysis_tokens": 2, "ppo__samples": 2}
    records = logged(trained("ppo", able, tmp_path, **values))
    assert all("reward" in record for record in records) and len(records) == 8
    assert records[0]["kl"] == pytest.approx(0, abs=1e-4)
    assert "no warm start: the rows have no analyses to teach" in " ".join(capsys.readouterr().err.split())


def test_at_least_one_step_is_left_to_the_method(able: Path, tmp_path: Path) -> None:
    records = logged(trained("rloo", able, tmp_path, rloo__warm_start=0.99))
    assert ["reward" in record for record in records] == [*[False] * 7, True]


UNTAUGHT = {"data__train_rows": 128, "warm_start_lr": 0.0, "batch_size": 32, "checkpoint__every_s": None}
"""Eight steps of 32 rows; a rate of 0 teaches nothing."""


def untaught(method: str, model: Path, folder: Path, *, resume: bool = False) -> Run:
    values = {key if "__" in key else f"{method}__{key}": value for key, value in UNTAUGHT.items()}
    return trained(method, model, folder, rows=160, resume=resume, **values)


@pytest.mark.parametrize("method", ["ppo", "spin"])
def test_a_warm_start_that_taught_nothing_goes_on_and_resumes_so(
    method: str, able: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = untaught(method, able, tmp_path / "whole")
    assert "warm start goes on, to step 6 of 8" in " ".join(capsys.readouterr().err.split())
    assert ["rows" in record for record in logged(whole)] == [*[True] * 6, *[False] * 2]
    with spoilt_update(6, 6, monkeypatch):
        untaught(method, able, tmp_path / "killed")
    assert differing(whole.folder, untaught(method, able, tmp_path / "killed", resume=True).folder) == []


EVERY_UPDATE = {"ppo__stop_kl": None, "exact__stop_kl": None, "checkpoint__every_s": None}


@pytest.mark.parametrize(
    ("method", "updates_at"), [("ppo", (4, 5, 6)), ("exact", (5,)), ("spin", (7,)), ("sppo", (6,))]
)
def test_a_run_that_fails_around_the_end_of_the_warm_start_resumes_bit_for_bit(
    method: str, updates_at: tuple[int, ...], able: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Update 4 is the warm start's last; 5 is the first one after it. SPIN and SPPO move the reference again later."""
    expected = trained(method, able, tmp_path / "whole", **EVERY_UPDATE)
    for update in updates_at:
        fails_and_resumes(method, update, expected, able, tmp_path / str(update), monkeypatch)


def fails_and_resumes(
    method: str, update: int, expected: Run, able: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step_of = [record["step"] for record in logged(expected) for _ in range(record.get("updates", 1))]
    with spoilt_update(update, step_of[update - 1], monkeypatch):
        trained(method, able, folder, **EVERY_UPDATE)
    resumed = trained(method, able, folder, resume=True, **EVERY_UPDATE)
    assert differing(expected.folder, resumed.folder) == []


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("exact", {"exact__transform": "log"}, r"raises right labels only\. Use exact\.transform=p"),
        ("ppo", {"ppo__values": "exact"}, "ppo.values=exact needs labels, and it is answered with a number"),
    ],
)
def test_numbers_have_no_exact_values(
    method: str, values: dict[str, Any], message: str, able: Path, tmp_path: Path
) -> None:
    settings = {"method": method, "model": str(able), "data.train_rows": 8, "data.eval_rows": 4}
    config = load_config(values={**settings, **{key.replace("__", "."): value for key, value in values.items()}})
    with pytest.raises(ConfigError, match=message):
        execute(config, load_task("vader/movies-rating"), tmp_path / "run")


def test_after_an_analysis_there_are_no_exact_values(able: Path, tmp_path: Path) -> None:
    values = {"prompt__analysis": "before", "answer__analysis_tokens": 2, "ppo__values": "exact"}
    with pytest.raises(ConfigError, match=r"an analysis comes before the answer\. Use ppo\.values=auto"):
        trained("ppo", able, tmp_path, **values)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
