"""Measure the share of the machine's matrix-product rate that a forward pass and an update reach.

    python -m benchmarks.product_rate --data-dir DIR

The machine's rate is the rate of plain `torch.matmul` at the shapes of the model's linear layers and the number of
tokens of the pass. It is the best of several runs. Each shape is weighted by how often a pass uses it.

Needed operations are 2 × matrix parameters × needed tokens, plus 2 × the output head × answer tokens. The needed tokens
are the prefix that all rows share, counted once, and the rest of each row, without padding. A pass without gradient
needs these operations once. An update needs them twice: forward, and backward with respect to the inputs. The weights
are frozen, so the backward pass needs nothing more.

The products of attention and of the adapters, and all element-wise work, count as zero operations. Their time counts.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from adjudge.models.engine.batch import common_prefix
from adjudge.models.policy import Policy
from adjudge.system.files import write_json
from benchmarks.setting import ROOT, add_options, child_variables, empty_model, prepare, provenance, run_program

if TYPE_CHECKING:
    from benchmarks.ours import Side
    from benchmarks.peers import common

FORWARD_GOAL, UPDATE_GOAL = 0.6, 0.4
REPEATS = 5


@dataclass(frozen=True, slots=True)
class Tokens:
    """The tokens that a pass needs: through the layers (prefix once) and through the output head."""

    layers: int
    head: int

    def __add__(self, other: Tokens) -> Tokens:
        """Return the sum of two passes."""
        return Tokens(self.layers + other.layers, self.head + other.head)


Shapes = Counter[tuple[int, int]]
"""(inputs, outputs) of the linear layers, and the number of layers with each shape."""


def needed_tokens(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> Tokens:
    """Return the needed tokens of one pass over prompts and responses.

    The last response token is not an input, because nothing is predicted from it.
    """
    prefix = common_prefix(prompts)
    fed = sum(len(p) - prefix + max(0, len(r) - 1) for p, r in zip(prompts, responses, strict=True))
    return Tokens(prefix + fed, sum(map(len, responses)))


def linear_shapes(model: nn.Module) -> tuple[Shapes, tuple[int, int]]:
    """Return the shapes of the linear layers without the output head, and the head's (inputs, outputs).

    The model must have no adapters.
    """
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer with a transposed weight

    head: Any = model.get_output_embeddings()  # type: ignore[operator]
    shapes: Shapes = Counter()
    for module in model.modules():
        if module is not head and isinstance(module, nn.Linear | Conv1D):
            first, second = module.weight.shape
            shapes[(int(second), int(first)) if isinstance(module, nn.Linear) else (int(first), int(second))] += 1
    outputs, inputs = head.weight.shape
    return shapes, (int(inputs), int(outputs))


def operations(shapes: Shapes, head: tuple[int, int], tokens: Tokens, units: int) -> int:
    """Return the needed floating-point operations: 2 × matrix parameters × tokens × `units`.

    `units` is 1 for a forward pass, 2 for forward and backward.
    """
    parameters = sum(inputs * outputs * count for (inputs, outputs), count in shapes.items())
    return 2 * units * (parameters * tokens.layers + head[0] * head[1] * tokens.head)


def product_rate(
    shapes: Shapes, head: tuple[int, int], tokens: Tokens, dtype: torch.dtype, device: torch.device
) -> float:
    """Return the operations per second of plain matrix products at these shapes, weighted by use.

    The rate is the sum of all operations divided by the sum of their best seconds.
    """
    done, seconds = 0, 0.0
    for (inputs, outputs), count, rows in [
        *((shape, count, tokens.layers) for shape, count in shapes.items()),
        (head, 1, tokens.head),
    ]:
        if rows:
            done += 2 * rows * inputs * outputs * count
            seconds += count * _product_seconds(rows, inputs, outputs, dtype, device)
    return done / seconds


def _product_seconds(rows: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> float:
    left = torch.randn(rows, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    return best_seconds(lambda: torch.matmul(left, weight.T), 2 * REPEATS)


def best_seconds(action: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Return the shortest of several runs, after one warm-up run; the device's work is included."""
    from benchmarks.peers.common import now

    action()
    seconds = []
    for _ in range(repeats):
        began = now()
        action()
        seconds.append(now() - began)
    return min(seconds)


def measure(raw: dict[str, Any], spec_path: str, repeats: int) -> list[dict[str, Any]]:
    """Return the rows of the table: forward with adapters, forward of the reference, and an update."""
    from adjudge.rollout.forward import token_figures
    from benchmarks.ours import Side
    from benchmarks.peers import common

    spec = common.Spec.read(spec_path)
    torch.set_num_threads(spec.threads)
    torch.manual_seed(spec.seed)
    side = Side(raw, spec, adapter=True)
    policy = side.judge.task.policy
    policy.eval()
    shapes, head = linear_shapes(empty_model(Path(spec.model)))
    prompts = spec.prompt_ids[: spec.batch_size]
    taught = spec.answer_ids[: spec.batch_size]
    whole = needed_tokens(prompts, taught)

    def forward() -> None:
        policy.forget_prefix(reference=True)
        with torch.no_grad():
            token_figures(policy, prompts, taught, 1.0)

    def reference() -> None:
        policy.forget_prefix(reference=True)
        with torch.no_grad(), policy.reference():
            token_figures(policy, prompts, taught, 1.0)

    table_rows = []
    for name, action in (("forward, no gradient", forward), ("forward, no gradient, reference", reference)):
        if (done := tokens_computed(policy, action)) < whole.layers:
            raise RuntimeError(f"{name}: computed only {done} of the {whole.layers} counted tokens")
        row = {"name": name, "tokens": whole.layers, "operations": operations(shapes, head, whole, 1)}
        row["product_rate"] = product_rate(shapes, head, whole, policy.lm.dtype, policy.device)
        table_rows.append(
            {**row, "seconds": best_seconds(action, repeats), "goal": FORWARD_GOAL if action is forward else None}
        )

    return [*table_rows, measure_update(side, spec, shapes, head, repeats)]


def measure_update(
    side: Side, spec: common.Spec, shapes: Shapes, head: tuple[int, int], repeats: int
) -> dict[str, Any]:
    """Return the row of an update: the mean over the updates of the fastest batch."""
    from adjudge.methods.for_tasks import first_kl
    from adjudge.methods.ppo import collect_batch
    from adjudge.rollout.prompted import PromptRow
    from adjudge.rollout.sampler import Sampling
    from adjudge.system.timing import collect_stages
    from adjudge.training.optim import build_optimizer
    from adjudge.training.updates import clipped_updates

    policy, config = side.judge.task.policy, side.config.ppo
    groups: list[dict[str, Any]] = [{"params": [*policy.adapter_parameters(), *policy.value_head.parameters()]}]
    optimizer, _ = build_optimizer(groups, config.optimizer, 1000)
    order = torch.Generator().manual_seed(spec.seed)
    sampling = Sampling.of(config, torch.Generator().manual_seed(spec.seed + 1))
    rows = [PromptRow(side.examples[index], tuple(spec.prompt_ids[index])) for index in range(spec.batch_size)]
    best: dict[str, Any] | None = None
    for step in range(repeats + 1):
        batch = collect_batch(side.judge.task, rows, config, first_kl(side.config), sampling)
        # Drop the sampling pass: the first update would reuse it and run only a backward pass.
        rollout = replace(batch.rollout, sampled_with_grad=None)
        again = torch.Generator()
        again.set_state(order.get_state())
        tokens, passes = update_tokens(rollout.prompts, rollout.responses, config, again)
        with collect_stages() as spent:
            clipped_updates(policy, optimizer, rollout, batch.advantage_BR, config, order, batch.critic)
        seconds = spent["update"] / passes
        one = Tokens(round(tokens.layers / passes), round(tokens.head / passes))
        if step and (best is None or seconds < best["seconds"]):
            best = {
                "name": f"update, {config.mini_batch_size} rows",
                "tokens": one.layers,
                "seconds": seconds,
                "goal": UPDATE_GOAL,
            }
            best |= {"operations": operations(shapes, head, one, 2), "head_tokens": one.head}
    assert best is not None
    one = Tokens(best["tokens"], best.pop("head_tokens"))
    return {**best, "product_rate": product_rate(shapes, head, one, policy.lm.dtype, policy.device)}


def tokens_computed(policy: Policy, action: Callable[[], Any]) -> int:
    """Return the number of tokens, with padding, that `action` runs through the layers.

    A number below the counted tokens would make the share too high.
    """
    base = policy.lm.get_base_model() if hasattr(policy.lm, "get_base_model") else policy.lm
    seen: list[int] = []

    def count(_module: Any, _inputs: Any, named: dict[str, Any]) -> None:
        seen.append(named["input_ids"].numel())

    hook = getattr(base, base.base_model_prefix).register_forward_pre_hook(count, with_kwargs=True)
    try:
        action()
    finally:
        hook.remove()
    return sum(seen)


def update_tokens(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], config: Any, order: torch.Generator
) -> tuple[Tokens, int]:
    """Return the needed tokens of all updates of a batch, drawn by `order`, and the number of updates."""
    from adjudge.training.batches import chunks

    total, passes = Tokens(0, 0), 0
    for _ in range(config.update_epochs):
        shuffled = torch.randperm(len(prompts), generator=order).tolist()
        for mini in chunks(len(prompts), config.mini_batch_size):
            total += needed_tokens([prompts[row] for row in shuffled[mini]], [responses[row] for row in shuffled[mini]])
            passes += 1
    return total, passes


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure in a child process and write product_rate.json; return the exit status. Raises AdjudgeError.

    The child gets the environment variables of all measured processes.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.product_rate", description="Measure the share of the matrix-product rate."
    )
    add_options(parser)
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, help="number of runs; the best one counts (default: %(default)s)"
    )
    parser.add_argument("--measured", nargs=2, metavar=("SPEC.json", "RESULT.json"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measured:
        raw = json.loads(Path(options.measured[0]).read_text(encoding="utf-8"))
        write_json(Path(options.measured[1]), measure(raw, options.measured[0], options.repeats))
        return 0
    given = list(sys.argv[1:] if arguments is None else arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    spec, settings = prepare(options)
    path, result = (options.out.resolve() / f"product_rate.{kind}.json" for kind in ("spec", "rows"))
    write_json(path, spec)
    began = time.monotonic()
    print("measuring forward pass, update and plain products …", flush=True)
    command = [
        sys.executable,
        "-m",
        "benchmarks.product_rate",
        "--repeats",
        str(options.repeats),
        "--measured",
        str(path),
        str(result),
    ]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **child_variables(options.threads)}, check=False)
    if done.returncode:
        print(f"error: the measured process ended with exit status {done.returncode}", file=sys.stderr)
        return 1
    record = {
        **provenance("product_rate", settings, given),
        "rows": json.loads(result.read_text(encoding="utf-8")),
    }
    write_json(options.out / "product_rate.json", record)
    for row in record["rows"]:
        share = row["operations"] / row["seconds"] / row["product_rate"]
        print(f"{row['name']}: {100 * share:.0f} % of {row['product_rate'] / 1e9:.0f} GFLOP/s")
    print(f"done in {time.monotonic() - began:.0f} s; saved in {options.out / 'product_rate.json'}")
    return 0


if __name__ == "__main__":
    run_program(main)
