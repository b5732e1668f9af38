"""Our side of a comparison, by the protocol of the peers (peers/README.md): the same SPEC.json in, the same RESULT.json out.

    python -m benchmarks.ours SPEC.json RESULT.json --what ppo|sft|evaluate

Everything timed is the library's own code, called as `train_ppo`, `train_sft` and `evaluate` call it. Prompts are taken in the
specification's order (not sorted by length, which the library does while training), so that both sides have the same batches.
In evaluation the rendering of the prompts is timed too: `PromptedJudge.judge` does it.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import yaml

from adjudge.evaluation.predict import PromptedJudge
from adjudge.models.policy import load_policy
from adjudge.tasks.spec import TaskSpec
from adjudge.training.optim import build_optimizer
from adjudge.types import Example
from benchmarks.peers import common
from benchmarks.setting import our_config

NAMES = {"ppo": "adjudge PPO", "sft": "adjudge SFT", "evaluate": "adjudge evaluate"}


class Side:
    """What all three measurements share: the judge, the rows and the specification."""

    def __init__(self, raw: dict[str, Any], spec: common.Spec, *, adapter: bool) -> None:
        self.spec = spec
        self.config = our_config(raw)
        self.task = TaskSpec.model_validate(yaml.safe_load(raw["ours"]["task"]))
        self.examples = [Example(**row) for row in raw["ours"]["rows"]]
        self.judge = PromptedJudge(load_policy(self.config, adapter=adapter), self.task, self.config)
        self._check()

    def _check(self) -> None:
        """Raise ValueError unless our own prompts and answers are the specification's: else both sides would do other work."""
        for example, ids, answer in zip(self.examples, self.spec.prompt_ids, self.spec.answer_ids, strict=True):
            if list(self.judge.renderer.prompt(example).ids) != ids:
                raise ValueError(f"{example.id}: adjudge renders another prompt than the specification holds")
            if example.gold is None or self.judge.end.taught_ids(example.gold, self.task) != answer:
                raise ValueError(f"{example.id}: adjudge teaches another answer than the specification holds")

    def batches(self, size: int) -> list[list[int]]:
        """Rows of each batch, warm-up first."""
        rows = self.spec.rows(size)
        return [rows[start : start + size] for start in range(0, len(rows), size)]


def measure_ppo(raw: dict[str, Any], spec: common.Spec, meter: common.Meter) -> int:
    """Rollout and updates, batch by batch; returns the rows a batch."""
    return run_ppo(Side(raw, spec, adapter=True), meter)


def run_ppo(side: Side, meter: common.Meter) -> int:
    """As `measure_ppo`, of a side that is built. Raises RuntimeError where an update was left out."""
    from adjudge.methods.ppo import collect_rollout, update

    spec = side.spec
    policy, config = side.judge.policy, side.config.ppo
    policy.eval()
    batches = side.batches(spec.batch_size)
    head: dict[str, Any] = {
        "params": list(policy.value_head.parameters()),
        "lr": config.value_lr or config.optimizer.lr,
        "weight_decay": 0.0,
    }
    groups: list[dict[str, Any]] = [{"params": policy.adapter_parameters()}, head]
    optimizer, scheduler = build_optimizer(groups, config.optimizer, len(batches))
    order, sampling = torch.Generator().manual_seed(spec.seed), torch.Generator().manual_seed(spec.seed + 1)
    made = 0
    meter.loaded()
    meter.start()
    for step, rows in enumerate(batches, 1):
        asked = [(side.examples[row], tuple(spec.prompt_ids[row])) for row in rows]
        rollout = collect_rollout(side.judge, asked, config, config.kl_init, sampling, step)
        record, seconds = update(policy, rollout, config, optimizer, order, step)
        scheduler.step()
        for stage, spent in seconds.items():
            meter.add(stage, spent)
        meter.end_batch()
        made += int(record["updates"])
        for prompt, response in zip(rollout.prompts, rollout.responses, strict=True):
            meter.tokens(len(prompt), len(response))
    wanted = len(batches) * spec.update_epochs * (spec.batch_size // config.mini_batch_size)
    if made != wanted:
        raise RuntimeError(f"{made} updates were made where {wanted} were asked for")
    meter.notes.append(
        f"{config.mini_batch_size} rows an update; an answer ends by answer.stop={side.config.answer.stop}"
    )
    return spec.batch_size


def measure_sft(raw: dict[str, Any], spec: common.Spec, meter: common.Meter) -> int:
    """One optimizer step a batch; returns the rows a batch."""
    from adjudge.methods import sft
    from adjudge.training.batches import chunks
    from adjudge.training.guards import check_finite, clip_gradients

    side = Side(raw, spec, adapter=True)
    policy, config = side.judge.policy, side.config.sft
    rows = sft._rows(side.judge, side.task, side.examples, config.loss)
    parameters = policy.adapter_parameters()
    batches = side.batches(spec.batch_size)
    optimizer, scheduler = build_optimizer([{"params": parameters}], config.optimizer, len(batches))
    policy.train()
    meter.loaded()
    meter.start()
    for step, picked in enumerate(batches, 1):
        batch = [rows[row] for row in picked]
        tokens = sum(len(row.taught) for row in batch)
        for part in chunks(len(batch), config.micro_batch_size):
            loss, _ = sft._forward(policy, batch[part], tokens)
            check_finite("the loss", loss, step)
            loss.backward()
        clip_gradients(parameters, config.optimizer.max_grad_norm, step)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        meter.end_batch()
        for given, taught, _ in batch:
            meter.tokens(len(given), len(taught))
    return spec.batch_size


def measure_evaluate(raw: dict[str, Any], spec: common.Spec, meter: common.Meter) -> int:
    """Greedy answers, read strictly; returns the rows a batch."""
    side = Side(raw, spec, adapter=False)
    size = spec.evaluation_batch_size
    batches = side.batches(size)
    meter.loaded()
    meter.start()
    for rows in batches:
        predictions = side.judge.judge([side.examples[row] for row in rows])
        meter.end_batch()
        for row, prediction in zip(rows, predictions, strict=True):
            # The judge hands back texts, so that tokens are counted anew; the token that ended the answer is not in its text.
            said = len(side.judge.policy.tokenizer(prediction.text, add_special_tokens=False).input_ids)
            meter.tokens(len(spec.prompt_ids[row]), min(said + 1, side.judge.end.max_tokens))
    return size


MEASURES = {"ppo": measure_ppo, "sft": measure_sft, "evaluate": measure_evaluate}


def main() -> None:
    """Measure, and write RESULT.json; what goes wrong is written there too, and the exit status is then 1."""
    parser = argparse.ArgumentParser(description="Our side of a comparison; the driver is benchmarks.run.")
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
    except Exception as error:  # whatever it dies of is the result, and is said
        result |= {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        common._write(options.result, result)
        sys.exit(f"{result['name']}: {result['traceback']}")
    common._write(options.result, result)


if __name__ == "__main__":
    main()
