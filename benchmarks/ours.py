"""Measure our side of a comparison as the peers do: SPEC.json in, RESULT.json out (peers/README.md).

    python -m benchmarks.ours SPEC.json RESULT.json --what ppo|sft|evaluate

All timed code is the library's own, called as `train_ppo`, `train_sft` and `evaluate` call it. Prompts keep the order
of the specification, so both sides have the same batches; in training, the library would sort them by length.
Evaluation includes the time to render the prompts, because `PromptedJudge.judge` renders them.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from adjudge.evaluation.predict import PromptedJudge
from adjudge.models.policy import load_policy
from adjudge.rollout.forward import taught_loss
from adjudge.rollout.prompted import PromptedTask, PromptRow, taught_rows
from adjudge.rollout.sampler import Sampling
from adjudge.system.timing import collect_stages
from adjudge.tasks.spec import TaskSpec
from adjudge.training.optim import build_optimizer
from adjudge.training.updates import accumulate, apply_gradients
from adjudge.types import Example
from benchmarks.peers import common
from benchmarks.setting import our_config

NAMES = {"ppo": "adjudge PPO", "sft": "adjudge SFT", "evaluate": "adjudge evaluate"}


class Side:
    """The judge, the rows and the specification, which all three measurements share."""

    def __init__(self, raw: dict[str, Any], spec: common.Spec, *, adapter: bool) -> None:
        self.spec = spec
        self.config = our_config(raw)
        self.task = TaskSpec.model_validate(yaml.safe_load(raw["ours"]["task"]))
        self.examples = [Example(**row) for row in raw["ours"]["rows"]]
        self.judge = PromptedJudge(PromptedTask(load_policy(self.config, adapter=adapter), self.task, self.config))
        self._check()

    def _check(self) -> None:
        """Raise ValueError when our prompts or answers are not the specification's.

        The two sides would then do different work.
        """
        for example, ids, answer in zip(self.examples, self.spec.prompt_ids, self.spec.answer_ids, strict=True):
            if list(self.judge.task.renderer.prompt(example).ids) != ids:
                raise ValueError(f"{example.id}: adjudge's prompt differs from the one in the specification")
            if example.gold is None or self.judge.task.end.taught_ids(example.gold, self.task) != answer:
                raise ValueError(f"{example.id}: adjudge's answer differs from the one in the specification")

    def batches(self, size: int) -> list[list[int]]:
        """Return the rows of each batch, warm-up first."""
        rows = self.spec.rows(size)
        return [rows[start : start + size] for start in range(0, len(rows), size)]


def measure_ppo(raw: dict[str, Any], spec: common.Spec, meter: common.Meter) -> int:
    """Time rollout and updates per batch; return the rows per batch."""
    return run_ppo(Side(raw, spec, adapter=True), meter)


def run_ppo(side: Side, meter: common.Meter) -> int:
    """Run PPO as `measure_ppo` does, on an existing side; return the rows per batch.

    Raises RuntimeError when the number of updates is not the expected one.
    """
    from adjudge.methods.for_tasks import first_kl
    from adjudge.methods.ppo import collect_batch
    from adjudge.training.updates import clipped_updates

    spec = side.spec
    task, policy, config = side.judge.task, side.judge.task.policy, side.config.ppo
    policy.eval()
    batches = side.batches(spec.batch_size)
    head: dict[str, Any] = {
        "params": list(policy.value_head.parameters()),
        "lr": config.value_lr or config.optimizer.lr,
        "weight_decay": 0.0,
    }
    groups: list[dict[str, Any]] = [{"params": policy.adapter_parameters()}, head]
    optimizer, scheduler = build_optimizer(groups, config.optimizer, len(batches))
    order = torch.Generator().manual_seed(spec.seed)
    sampling = Sampling.of(config, torch.Generator().manual_seed(spec.seed + 1))
    updates = 0
    meter.loaded()
    meter.start()
    for indices in batches:
        rows = [PromptRow(side.examples[index], tuple(spec.prompt_ids[index])) for index in indices]
        with collect_stages() as seconds:
            batch = collect_batch(task, rows, config, first_kl(side.config), sampling)
            rollout = batch.rollout
            figures = clipped_updates(policy, optimizer, rollout, batch.advantage_BR, config, order, batch.critic)
        scheduler.step()
        for name, spent in seconds.items():
            meter.add(name, spent)
        meter.end_batch()
        updates += int(figures["updates"])
        for prompt, response in zip(rollout.prompts, rollout.responses, strict=True):
            meter.tokens(len(prompt), len(response))
    expected = len(batches) * spec.update_epochs * (spec.batch_size // config.mini_batch_size)
    if updates != expected:
        raise RuntimeError(f"made {updates} updates instead of {expected}")
    meter.notes.append(
        f"{config.mini_batch_size} rows per update; answers end by answer.stop={side.config.answer.stop}"
    )
    return spec.batch_size


def measure_sft(raw: dict[str, Any], spec: common.Spec, meter: common.Meter) -> int:
    """Take one optimizer step per batch; return the rows per batch."""
    side = Side(raw, spec, adapter=True)
    policy, config = side.judge.task.policy, side.config.sft
    rows = taught_rows(side.judge.task, side.examples, loss=config.loss)
    batches = side.batches(spec.batch_size)
    groups: list[dict[str, Any]] = [{"params": policy.adapter_parameters()}]
    optimizer, scheduler = build_optimizer(groups, config.optimizer, len(batches))
    policy.train()
    meter.loaded()
    meter.start()
    for indices in batches:
        batch = [rows[index] for index in indices]
        tokens = sum(len(row.taught) for row in batch)
        accumulate(batch, config.micro_batch_size, partial(taught_loss, policy, tokens=tokens))
        apply_gradients(optimizer, config.optimizer.max_grad_norm)
        scheduler.step()
        meter.end_batch()
        for row in batch:
            meter.tokens(len(row.given), len(row.taught))
    return spec.batch_size


def measure_evaluate(raw: dict[str, Any], spec: common.Spec, meter: common.Meter) -> int:
    """Time greedy answers, read strictly; return the rows per batch."""
    side = Side(raw, spec, adapter=False)
    size = spec.evaluation_batch_size
    batches = side.batches(size)
    meter.loaded()
    meter.start()
    for rows in batches:
        predictions = side.judge.judge([side.examples[row] for row in rows])
        meter.end_batch()
        for row, prediction in zip(rows, predictions, strict=True):
            # The judge returns texts, so their tokens are counted again, plus one for the token that ends the answer.
            answer_tokens = len(side.judge.task.policy.tokenizer(prediction.text, add_special_tokens=False).input_ids)
            meter.tokens(len(spec.prompt_ids[row]), min(answer_tokens + 1, side.judge.task.end.max_tokens))
    return size


MEASURES = {"ppo": measure_ppo, "sft": measure_sft, "evaluate": measure_evaluate}


def main() -> None:
    """Measure and write RESULT.json; after an error, write the error there and exit with status 1."""
    parser = argparse.ArgumentParser(description="Measure our side of a comparison. benchmarks.run calls this program.")
    parser.add_argument("spec", metavar="SPEC.json")
    parser.add_argument("result", metavar="RESULT.json")
    parser.add_argument("--what", choices=tuple(MEASURES), required=True)
    options = parser.parse_args()
    result: dict[str, Any] = {"name": NAMES[options.what], "versions": common.versions()}
    try:
        spec = common.Spec.read(options.spec)
        raw = json.loads(Path(options.spec).read_text(encoding="utf-8"))
        torch.set_num_threads(spec.threads)
        torch.manual_seed(spec.seed)
        meter = common.Meter(spec)
        rows = MEASURES[options.what](raw, spec, meter)
        result |= meter.result(rows)
    except Exception as error:  # any error is the result, and is printed
        result |= {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        common._write(options.result, result)
        sys.exit(f"{result['name']}: {result['traceback']}")
    common._write(options.result, result)


if __name__ == "__main__":
    main()
