"""Several orders of the demonstrations: label probabilities are averaged, whatever else the run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from policies import Scripted
from running import load_one, train_one
from specs import label_task, number_task

from adjudge.config import PromptConfig, load_config
from adjudge.errors import ConfigError, RunError
from adjudge.evaluation.averaging import AveragedJudge
from adjudge.evaluation.predict import PromptedJudge
from adjudge.methods.settings import check_settings, own_settings
from adjudge.models.policy import load_policy
from adjudge.prompts.demonstrations import demonstration_orders
from adjudge.rollout import answering
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.types import Example

SPEC = label_task("Negative", "Positive", template="Review: {{ text }}")
TEXTS = ("warm", "dull", "funny", "slow", "a fine film", "a tired story")
ROWS = [Example(str(index), {"text": text}, SPEC.words[index % 2]) for index, text in enumerate(TEXTS)]


def build(model: Path, folder: Path, *overrides: str, spec=SPEC, rows=ROWS) -> tuple[Run, Any]:
    plain = ["method=few-shot", f"model={model}", "runtime.dtype=float32", "prompt.demonstrations=3"]
    with Run.create(folder, own_settings(load_config(overrides=[*plain, *overrides]))) as run:
        return run, train_one("few-shot", run, spec, rows)


def test_probabilities_are_averaged_after_each_prior(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_policy(load_config(values={"model": str(tiny_llama)})).tokenizer
    config = load_config(values={"evaluation.decode": "labels"})
    policy = Scripted(tokenizer, [""] * 2, [""] * 2)
    tasks = [PromptedTask(policy, SPEC, config) for _ in range(2)]
    tasks[1].prior = {"Negative": 0.75, "Positive": 0.25}
    shares = iter([[[0.9, 0.1], [0.6, 0.4]], [[0.75, 0.25], [0.5, 0.5]]])
    monkeypatch.setattr(answering, "label_logps", lambda *_: torch.tensor(next(shares)).log())
    found = AveragedJudge(tasks).judge(ROWS[:2])
    # the second prompt's are 1 : 1, and 2/3 : 2 = 0.25 : 0.75 after its prior
    assert [each.probabilities["Negative"] for each in found] == pytest.approx([0.7, 0.425])
    assert [each.value for each in found] == [each.text for each in found] == ["Negative", "Positive"]
    assert [each.id for each in found] == ["0", "1"]
    assert AveragedJudge(tasks).prompt_tokens(ROWS) == [
        2 * count for count in PromptedJudge(tasks[0]).prompt_tokens(ROWS)
    ]


def test_orders_are_different_and_begin_with_the_chosen_one() -> None:
    orders = demonstration_orders(PromptConfig(demonstrations=3, demonstration_orders=6), 0)
    assert orders[0] == (0, 1, 2)
    assert len(set(orders)) == 6
    assert all(sorted(order) == [0, 1, 2] for order in orders)
    drawn = {tuple(demonstration_orders(PromptConfig(demonstration_orders=3), seed)) for seed in range(5)}
    assert len(drawn) == 5
    assert demonstration_orders(PromptConfig(demonstrations=0), 0) == [()]
    assert len(demonstration_orders(PromptConfig(demonstrations=500, demonstration_orders=3), 0)) == 3


@pytest.mark.parametrize(("count", "orders", "most"), [(3, 7, 6), (1, 2, 1), (0, 2, 1)])
def test_more_orders_than_there_are(count: int, orders: int, most: int) -> None:
    with pytest.raises(ConfigError, match=f"{count} demonstrations have only {most} orders"):
        demonstration_orders(PromptConfig(demonstrations=count, demonstration_orders=orders), 0)


@pytest.mark.parametrize("prior", ["none", "content-free"])
def test_a_run_averages_its_orders(prior: str, tiny_llama: Path, tmp_path: Path) -> None:
    run, built = build(tiny_llama, tmp_path / "run", "prompt.demonstration_orders=3", f"prompt.prior={prior}")
    assert run.config.evaluation.decode == "labels"
    texts = [task.renderer.text(ROWS[0]) for task in built.tasks]
    assert len(set(texts)) == 3
    assert len({"".join(sorted(text)) for text in texts}) == 1
    parts = [PromptedJudge(task).judge(ROWS, probabilities=True) for task in built.tasks]
    found = built.judge(ROWS)
    for row, each in enumerate(found):
        mean = sum(part[row].probabilities["Positive"] for part in parts) / 3
        assert each.probabilities["Positive"] == pytest.approx(mean)
    assert load_one("few-shot", Run.open(run.folder), SPEC).judge(ROWS) == found


def test_one_order_is_the_plain_judge(tiny_llama: Path, tmp_path: Path) -> None:
    _, built = build(tiny_llama, tmp_path / "run", "prompt.demonstration_orders=1", "prompt.prior=none")
    assert type(built) is PromptedJudge
    several = AveragedJudge([built.task]).judge(ROWS)
    alone = built.judge(ROWS, probabilities=True)
    assert [each.probabilities for each in several] == [each.probabilities for each in alone]


def test_each_order_has_its_prior(tiny_llama: Path, tmp_path: Path) -> None:
    run, built = build(tiny_llama, tmp_path / "run", "prompt.demonstration_orders=2", "prompt.prior=content-free")
    path = run.folder / "label_priors.json"
    record = json.loads(path.read_text())
    assert record["orders"] == [task.prior for task in built.tasks]
    assert record["orders"][0] != record["orders"][1]
    path.write_text(json.dumps(record | {"orders": record["orders"][:1]}))
    with pytest.raises(RunError, match=r"has 1 label priors, and prompt\.demonstration_orders is 2"):
        load_one("few-shot", run, SPEC)


def test_numbers_are_asked_once(tiny_llama: Path, tmp_path: Path) -> None:
    rows = [Example(row.id, row.fields, float(row.id)) for row in ROWS]
    spec = number_task(0, 9, decimals=0)
    found = [
        build(tiny_llama, tmp_path / str(orders), f"prompt.demonstration_orders={orders}", spec=spec, rows=rows)[
            1
        ].judge(rows)
        for orders in (1, 3)
    ]
    assert found[0] == found[1]


def test_an_analysis_is_written_for_one_order() -> None:
    plain = ["method=few-shot", "prompt.analysis=true"]
    with pytest.raises(ConfigError, match=r"demonstration_orders averages.*prompt\.analysis=true"):
        check_settings(load_config(overrides=[*plain, "prompt.demonstration_orders=2"]))
    check_settings(load_config(overrides=[*plain, "prompt.demonstration_orders=1"]))


def test_too_many_orders_are_noticed_before_a_run_begins() -> None:
    with pytest.raises(ConfigError, match="2 demonstrations have only 2 orders"):
        check_settings(
            load_config(overrides=["method=few-shot", "prompt.demonstrations=2", "prompt.demonstration_orders=3"])
        )
