"""Measure how time and memory grow with the batch, the number of rows and the data set.

    python -m benchmarks.growth --data-dir DIR

Each size runs in its own process.

batch   PPO (rollout and updates) at 8, 16, 32 and 64 prompts: seconds per prompt, and the seconds of one pass over the
        shared prefix. This pass is the work of one row at every batch size, so its seconds should stay the same.
rows    Greedy evaluation of 64, 128 and 256 rows: the seconds per row should stay the same.
memory  A few SFT steps with 200, 2,000 and 20,000 rows loaded and rendered: the peak should stay the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adjudge.system.files import write_json
from adjudge.system.memory import peak_rss_gib
from adjudge.tasks import load_task
from benchmarks.peers import common
from benchmarks.peers.common import now
from benchmarks.setting import (
    ROOT,
    add_options,
    build_specification,
    child_variables,
    model_folder,
    provenance,
    resolved_dtype,
    run_program,
    settings_of,
    training_rows,
)

SIZES = {"batch": (8, 16, 32, 64), "rows": (64, 128, 256), "memory": (200, 2000, 20_000)}
STEPS = 3
PREFIX_REPEATS = 3
TITLES = {
    "batch": "One PPO batch (rollout and updates). "
    "Expected: seconds per prompt fall towards the cost of a row's own tokens, and the prefix pass stays constant.",
    "rows": "Greedy evaluation. Expected: seconds per row stay constant.",
    "memory": f"{STEPS} SFT steps on the same 16 rows, with more rows loaded each time. "
    "Expected: the peak does not depend on the data set.",
}
COLUMNS = {
    "batch": ["prompts", "seconds", "seconds per prompt", "sample", "reference", "update", "one prefix pass"],
    "rows": ["rows", "seconds", "seconds per row"],
    "memory": ["rows loaded", "peak, GiB", "before the steps, GiB"],
}


@contextmanager
def prefix_passes(policy: Any) -> Iterator[list[float]]:
    """Collect the seconds of every pass over a single row that is not a packed batch.

    With several rows in the batch, this is the pass over the shared prefix.
    """
    seconds: list[float] = []
    began: list[float] = []

    def before(_module: Any, _inputs: Any, named: dict[str, Any]) -> None:
        ids = named.get("input_ids")
        began[:] = [now()] if ids is not None and len(ids) == 1 and named.get("packing") is None else []

    def after(_module: Any, _inputs: Any, _output: Any) -> None:
        if began:
            seconds.append(now() - began.pop())

    hooks = [
        policy.engine.decoder.register_forward_pre_hook(before, with_kwargs=True),
        policy.engine.decoder.register_forward_hook(after),
    ]
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()


def measure_batch(raw: dict[str, Any], spec: common.Spec, size: int) -> dict[str, Any]:
    """Measure one PPO batch of `size` prompts, after one warm-up batch."""
    from benchmarks.ours import Side, run_ppo

    side, meter = Side(raw, spec, adapter=True), common.Meter(spec)
    run_ppo(side, meter)
    policy = side.judge.task.policy
    with prefix_passes(policy) as passes:
        for _ in range(PREFIX_REPEATS):
            policy.forget_prefix(reference=True)
            policy.prefill(spec.prompt_ids[:size])
    result = meter.result(size)
    seconds = result["seconds"][0]
    stages = {name: result["stages"][name][0] for name in ("sample", "reference", "update")}
    row = {"prompts": size, "seconds": seconds, "seconds per prompt": seconds / size, **stages}
    return {**row, "one prefix pass": min(passes, default=None)}


def measure_rows(raw: dict[str, Any], spec: common.Spec, size: int) -> dict[str, Any]:
    """Measure greedy evaluation of `size` rows, after one warm-up batch."""
    from benchmarks.ours import Side

    side = Side(raw, spec, adapter=False)
    side.judge.judge(side.examples[: spec.evaluation_batch_size])
    began = now()
    side.judge.judge(side.examples)
    seconds = now() - began
    return {"rows": len(side.examples), "seconds": seconds, "seconds per row": seconds / len(side.examples)}


def measure_memory(raw: dict[str, Any], spec: common.Spec, size: int) -> dict[str, Any]:
    """Measure the peak memory of a few SFT steps, with `size` rows loaded as in `train_sft`."""
    from adjudge.rollout.forward import taught_loss
    from adjudge.rollout.prompted import taught_rows
    from adjudge.training.batches import Batches
    from adjudge.training.optim import build_optimizer
    from benchmarks.ours import Side

    side = Side(raw, spec, adapter=True)
    policy, config = side.judge.task.policy, side.config.sft
    policy.train()
    train = training_rows(side.task, raw["ours"]["data_dir"], size, spec.seed)
    rows = taught_rows(side.judge.task, train, loss=config.loss)
    order = torch.Generator().manual_seed(spec.seed)
    batches = Batches([rows], config.batch_size, config.epochs, order, lambda row: row.tokens)
    # This loads the order of an epoch into memory. The steps below take the same rows at every size.
    next(iter(batches))
    groups: list[dict[str, Any]] = [{"params": policy.adapter_parameters()}]
    optimizer, _ = build_optimizer(groups, config.optimizer, STEPS)
    before = peak_rss_gib()
    batch = rows[: config.batch_size]
    for _ in range(STEPS):
        loss, _ = taught_loss(policy, batch, sum(len(row.taught) for row in batch))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    del batches
    return {"rows loaded": len(rows), "peak, GiB": peak_rss_gib(), "before the steps, GiB": before}


MEASURES = {"batch": measure_batch, "rows": measure_rows, "memory": measure_memory}


def specification(what: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Return the specification for one size of one part."""
    changed = argparse.Namespace(**vars(options))
    changed.batches = 1
    if what == "batch":
        changed.batch_size = size
        changed.mini_batch_size = min(options.mini_batch_size, size)
        count = 2 * size
    else:
        count = size if what == "rows" else options.batch_size
    task, dtype = load_task(options.task), resolved_dtype(options.dtype)
    rows = training_rows(task, options.data_dir, count, options.seed)
    spec = build_specification(changed, model_folder(options.model, options.out, dtype), dtype, rows, task)
    spec["ours"]["data_dir"] = None if options.data_dir is None else str(Path(options.data_dir).resolve())
    return spec


def run_one(what: str, size: int, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one size in its own process; return its row, which holds the error after a failure."""
    folder = options.out.resolve() / "growth"
    folder.mkdir(parents=True, exist_ok=True)
    path, result = folder / f"{what}-{size}.spec.json", folder / f"{what}-{size}.json"
    write_json(path, specification(what, size, options))
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.growth", "--measured", what, str(size), str(path), str(result)]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **child_variables(options.threads)}, check=False)
    if done.returncode or not result.is_file():
        return {COLUMNS[what][0]: size, "error": f"exit status {done.returncode}"}
    return dict(json.loads(result.read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every size and write growth.json; return 1 when a size failed. Raises AdjudgeError."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description="Measure growth of time and memory."
    )
    add_options(parser)
    parser.add_argument("--parts", default=",".join(SIZES), help="parts to measure, with commas (default: %(default)s)")
    parser.add_argument("--sizes", help="sizes instead of the default ones, for one part: 2,4,8")
    parser.add_argument(
        "--measured", nargs=4, metavar=("PART", "SIZE", "SPEC.json", "RESULT.json"), help=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    if options.measured:
        what, size, path, result = options.measured
        spec = common.Spec.read(path)
        torch.set_num_threads(spec.threads)
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        write_json(Path(result), MEASURES[what](raw, spec, int(size)))
        return 0
    parts = options.parts.split(",")
    if unknown := [part for part in parts if part not in SIZES]:
        parser.error(f"unknown part {unknown[0]!r}; the parts are {', '.join(SIZES)}")
    given = list(sys.argv[1:] if arguments is None else arguments)
    path = options.out / "growth.json"
    before = json.loads(path.read_text(encoding="utf-8"))["parts"] if path.is_file() else []
    kept = {part["name"]: part for part in before}
    how = provenance("growth", settings_of(options, resolved_dtype(options.dtype)), given)
    failed = False
    for part in parts:
        sizes = [int(size) for size in options.sizes.split(",")] if options.sizes else SIZES[part]
        rows = []
        for size in sizes:
            rows.append(run_one(part, size, options))
            figures = (
                f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
                for name, value in rows[-1].items()
            )
            print(f"{part} {size}: {', '.join(figures)}", flush=True)
        failed |= any("error" in row for row in rows)
        kept[part] = {"name": part, "title": TITLES[part], "columns": COLUMNS[part], "rows": rows}
        write_json(path, {**how, "parts": [kept[name] for name in SIZES if name in kept]})
    return int(failed)


if __name__ == "__main__":
    run_program(main)
