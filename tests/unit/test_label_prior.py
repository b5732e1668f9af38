"""Label priors: what a prompt says whatever the row is divided out, and a run keeps what it measured."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import Scripted
from running import load_one, train_one
from specs import label_task, number_task

from adjudge.config import PromptConfig, change, load_config
from adjudge.errors import ConfigError, DataError, RunError
from adjudge.evaluation.label_prior import label_prior
from adjudge.evaluation.predict import PromptedJudge
from adjudge.experiments.rows import RunRows, learned_rows
from adjudge.methods.registry import get_entry
from adjudge.methods.settings import own_settings
from adjudge.models.policy import load_policy
from adjudge.prompts.demonstrations import prior_rows
from adjudge.rollout import answering
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

SPEC = label_task("Negative", "Positive", template="Review: {{ text }}")
NUMBERS = number_task(0, 9, decimals=0)
TEXTS = ("warm", "dull", "funny", "slow", "a fine film", "a tired story", "WARM ")
ROWS = [Example(str(index), {"text": text}, SPEC.words[index % 2]) for index, text in enumerate(TEXTS)]


def config_of(model: Path, *overrides: str):
    plain = ["method=few-shot", f"model={model}", "runtime.dtype=float32", "prompt.demonstrations=2"]
    return own_settings(load_config(overrides=[*plain, *overrides]))


def build(model: Path, folder: Path, *overrides: str, spec=SPEC) -> tuple[Run, Any]:
    with Run.create(folder, config_of(model, *overrides)) as run:
        return run, train_one("few-shot", run, spec, ROWS)


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """Probabilities of the two labels, for the prompts of a batch in turn."""
    table: list[list[float]] = []
    monkeypatch.setattr(answering, "label_logps", lambda _policy, state, _ids: torch.tensor(table).log())
    return table


def scripted_task(tiny_llama: Path, rows: int) -> PromptedTask:
    tokenizer = load_policy(load_config(values={"model": str(tiny_llama)})).tokenizer
    values = {"evaluation.decode": "labels"}
    return PromptedTask(Scripted(tokenizer, *[[""] * rows] * 2), SPEC, load_config(values=values))


def test_a_prior_is_divided_out(tiny_llama: Path, shares: list[list[float]]) -> None:
    task = scripted_task(tiny_llama, 3)
    shares += [[0.8, 0.2], [0.95, 0.05], [0.9, 0.1]]
    plain = answering.answer(task, [[1], [2], [3]], decode="labels")
    assert [each.value for each in plain] == ["Negative"] * 3
    task.prior = {"Positive": 0.1, "Negative": 0.9}
    weighed = answering.answer(task, [[1], [2], [3]], decode="labels")
    # 0.8 / 0.9 = 0.889 and 0.2 / 0.1 = 2: 0.3077 and 0.6923; 1.0556 and 0.5: 0.6786 and 0.3214; 1 and 1
    assert [each.probabilities["Negative"] for each in weighed] == pytest.approx([4 / 13, 19 / 28, 0.5])
    assert [each.value for each in weighed][:2] == ["Positive", "Negative"]
    assert all(sum(each.probabilities.values()) == pytest.approx(1) for each in weighed)


def test_a_prior_that_was_rounded_to_zero_is_no_certainty(tiny_llama: Path, shares: list[list[float]]) -> None:
    task = scripted_task(tiny_llama, 1)
    task.prior = {"Negative": 1.0, "Positive": 0.0}
    shares += [[1.0, 0.0]]
    (found,) = answering.answer(task, [[1]], decode="labels")
    assert found.value == "Negative"
    assert all(math.isfinite(share) for share in found.probabilities.values())


def test_the_prior_is_the_mean_over_the_rows(tiny_llama: Path, shares: list[list[float]]) -> None:
    task = scripted_task(tiny_llama, 3)
    task.prior = {"Negative": 0.1, "Positive": 0.9}  # an earlier one does not count
    shares += [[0.6, 0.4], [0.7, 0.3], [0.95, 0.05]]
    assert label_prior(task, ROWS[:3]) == pytest.approx({"Negative": 0.75, "Positive": 0.25})


def test_content_free_rows_have_nothing_in_any_field() -> None:
    pairs = label_task("Yes", "No", fields={"a": "a", "b": "b"}, template="{{ a }} {{ b }}")
    rows = prior_rows(ROWS, ROWS[:2], pairs, PromptConfig(prior="content-free"), 0)
    assert [row.fields for row in rows] == [{"a": text, "b": text} for text in ("N/A", "[MASK]", "")]
    assert len({row.id for row in rows}) == 3


def test_training_rows_of_a_prior_are_drawn_among_those_not_shown() -> None:
    config = PromptConfig(prior="training-rows", prior_rows=3)
    drawn = [prior_rows(ROWS, ROWS[:2], SPEC, config, seed) for seed in range(9)]
    assert {row.fields["text"] for rows in drawn for row in rows} == set(TEXTS[2:6])  # "WARM " is shown as "warm"
    assert drawn[0] == prior_rows(ROWS, ROWS[:2], SPEC, config, 0)
    unlabelled = [Example(row.id, row.fields) for row in ROWS]
    assert [row.id for row in prior_rows(unlabelled, ROWS[:2], SPEC, config, 0)] == [row.id for row in drawn[0]]
    every = PromptConfig(prior="training-rows", prior_rows=5)
    assert len(prior_rows(ROWS, ROWS[:2], SPEC, every, 0)) == 4  # there are no more
    with pytest.raises(DataError, match=r"needs training rows besides the demonstrations.*prompt\.prior=content-free"):
        prior_rows(ROWS, ROWS, SPEC, every, 0)


def test_no_rows_for_no_prior_and_for_numbers() -> None:
    assert prior_rows(ROWS, [], SPEC, PromptConfig(prior="none"), 0) == []
    assert prior_rows(ROWS, [], NUMBERS, PromptConfig(prior="content-free"), 0) == []


@pytest.mark.parametrize("prior", ["content-free", "training-rows"])
def test_a_run_keeps_its_prior(prior: str, tiny_llama: Path, tmp_path: Path) -> None:
    _, plain = build(tiny_llama, tmp_path / "plain", "prompt.prior=none")
    _, built = build(tiny_llama, tmp_path / "run", f"prompt.prior={prior}", "prompt.prior_rows=3")
    record = json.loads((tmp_path / "run" / "label_priors.json").read_text())
    assert (record["prior"], len(record["rows"])) == (prior, 3)
    found = built.judge(ROWS)
    for before, after in zip(plain.judge(ROWS, probabilities=True), found, strict=True):
        divided = {word: before.probabilities[word] / record["orders"][0][word] for word in SPEC.words}
        expected = {word: share / sum(divided.values()) for word, share in divided.items()}
        assert after.probabilities == pytest.approx(expected, abs=1e-5)
        assert after.value == after.text == max(expected, key=lambda word: expected[word])
    run = Run.open(tmp_path / "run")
    assert run.config.evaluation.decode == "labels"
    assert load_one("few-shot", run, SPEC).judge(ROWS) == found
    (tmp_path / "run" / "label_priors.json").unlink()
    with pytest.raises(RunError, match=r"label_priors\.json is missing"):
        load_one("few-shot", run, SPEC)


def test_without_a_prior_nothing_changes(tiny_llama: Path, tmp_path: Path) -> None:
    run, built = build(tiny_llama, tmp_path / "run", "prompt.prior=none")
    assert run.config.evaluation.decode == "greedy"
    assert not (tmp_path / "run" / "label_priors.json").exists()
    task = PromptedTask(load_policy(run.config), SPEC, run.config, ROWS[:2])
    assert built.judge(ROWS, probabilities=True) == PromptedJudge(task).judge(ROWS, probabilities=True)


def test_a_greedy_answer_cannot_be_weighed(tiny_llama: Path, tmp_path: Path) -> None:
    run, _ = build(tiny_llama, tmp_path / "run", "prompt.prior=content-free")
    greedy = Run(run.folder, change(run.config, {"evaluation.decode": "greedy"}))
    with pytest.raises(ConfigError, match=r"prompt\.prior=content-free.*--decode greedy"):
        load_one("few-shot", greedy, SPEC)


@pytest.mark.parametrize("other", [{"name": "theirs"}, {"labels": {"0": "Negative", "1": "Positive", "2": "Mixed"}}])
def test_a_prior_is_for_its_own_task(other: dict[str, Any], tiny_llama: Path, tmp_path: Path) -> None:
    run, _ = build(tiny_llama, tmp_path / "run", "prompt.prior=content-free")
    with pytest.raises(RunError, match="label priors of mine's prompt, not of"):
        load_one("few-shot", run, label_task("Negative", "Positive", **other))


def test_rows_of_the_prior_count_as_seen() -> None:
    rows = RunRows([TaskRows(SPEC, ROWS)], [[]])
    for overrides, ids in (
        (["prompt.prior=content-free"], {"0", "1"}),
        (["prompt.prior=training-rows", "prompt.prior_rows=4"], {"0", "1", "2", "3", "4", "5"}),
        (["prompt.prior=training-rows", "prompt.demonstration_choice=nearest"], {row.id for row in ROWS}),
    ):
        plain = ["method=few-shot", "prompt.demonstrations=2", "prompt.prior_rows=3"]
        config = load_config(overrides=[*plain, *overrides])
        seen = learned_rows(get_entry("few-shot"), config, rows)
        assert ({row.id for row in seen}, len(seen)) == (ids, len(ids))


def test_number_tasks_have_no_prior(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [Example(str(index), {"text": text}, float(index)) for index, text in enumerate(TEXTS)]
    judged = []
    for prior in ("none", "content-free"):
        with Run.create(tmp_path / prior, config_of(tiny_llama, f"prompt.prior={prior}")) as run:
            judged.append(train_one("few-shot", run, NUMBERS, rows).judge(rows))
        assert load_one("few-shot", run, NUMBERS).judge(rows) == judged[-1]
    assert judged[0] == judged[1]
