"""Measure the gain of each step of the engine: a batch without it against a batch with all steps.

    python -m benchmarks.steps --data-dir DIR

Each variant leaves out or replaces one step. It runs in its own process, in turn with the whole engine, and gives the
same result up to rounding. The work is one PPO batch (rollout and all updates) or one SFT batch, after one warm-up
batch. The ratio is the seconds of the variant divided by those of the whole engine, so above 1 the step saves time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from adjudge.system.files import write_json
from benchmarks.run import say
from benchmarks.setting import ROOT, add_options, child_variables, prepare, provenance, run_program

WHOLE = "the whole engine"


@dataclass(frozen=True, slots=True)
class Variant:
    """The engine without one of its steps: replaced functions, or other environment variables."""

    replaced: Callable[[], list[Any]] = list
    variables: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    what: tuple[str, ...] = ("ppo", "sft")


def _no_sharing() -> list[Any]:
    from adjudge.models.engine import forward

    build = forward.build_batch
    return [
        patch.object(forward, "build_batch", lambda *rows, **named: build(*rows, **{**named, "share_prefix": False}))
    ]


def _no_keeping() -> list[Any]:
    from adjudge.models.engine.prefix import KeptPrefix

    return [patch.object(KeptPrefix, "reuse", lambda *_: (0, None))]


def _copied() -> list[Any]:
    from adjudge.models.engine import forward

    def copy(cache: Any, rows: int) -> Any:
        cache.batch_repeat_interleave(rows)
        return cache

    return [patch.object(forward, "expand", copy), *_no_keeping()]


def _not_fused() -> list[Any]:
    from adjudge.models.engine import forward

    return [patch.object(forward, "fuse", lambda _: None)]


def _fused_attention() -> list[Any]:
    from adjudge.models.engine import attention

    return [patch.object(attention, "PLAIN_WEIGHTS", 0)]


def _whole_last_layer() -> list[Any]:
    from adjudge.models.engine import forward

    return [patch.object(forward, "trim_last_layer", lambda _: False)]


def _first_pass_anew() -> list[Any]:
    from adjudge.rollout import collect

    return [patch.object(collect, "MAX_GRAD_TOKENS", 0)]


def _logits_everywhere() -> list[Any]:
    from adjudge.models.engine.forward import Engine

    padded, packed = Engine._run_padded, Engine._run_packed

    def with_logits(engine: Engine, result: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
        # Their sum times zero computes all logits, forward and backward, and does not change the result.
        hidden, cache = result
        return hidden + 0.0 * engine.logits(hidden).sum(), cache

    return [
        patch.object(
            Engine, "_run_padded", lambda self, *rows, **named: with_logits(self, padded(self, *rows, **named))
        ),
        patch.object(
            Engine, "_run_packed", lambda self, *rows, **named: with_logits(self, packed(self, *rows, **named))
        ),
    ]


ALLOCATOR = tuple(name for name in child_variables(1) if name.startswith(("MALLOC_", "THP_")))

VARIANTS = {
    WHOLE: Variant(),
    "without a shared prefix": Variant(_no_sharing),
    "the prefix not kept between passes": Variant(_no_keeping, what=("ppo",)),
    "the prefix's keys and values copied for every row": Variant(_copied, what=("ppo",)),
    "without fused LoRA, MLP and norm": Variant(_not_fused),
    "torch's fused attention instead of plain products": Variant(_fused_attention),
    "the last layer for every token": Variant(_whole_last_layer),
    "first update with a forward pass of its own": Variant(_first_pass_anew, what=("ppo",)),
    "logits at every token": Variant(_logits_everywhere),
    "allocator as the system sets it": Variant(variables={"MALLOC_ARENA_MAX": "64"}, dropped=ALLOCATOR),
    "without huge pages": Variant(variables={"THP_MEM_ALLOC_ENABLE": "0"}),
    "threads that sleep while they wait": Variant(variables={"OMP_WAIT_POLICY": "PASSIVE"}),
}
"""MALLOC_ARENA_MAX is set only to stop `adjudge.system.memory` from setting up the allocator."""


def child(name: str, what: str, spec: str, result: str) -> None:
    """Measure one variant in this child process, as `benchmarks.ours` does."""
    from benchmarks import ours

    for replaced in VARIANTS[name].replaced():
        replaced.start()
    sys.argv = ["benchmarks.ours", spec, result, "--what", what]
    ours.main()


def measure(name: str, what: str, folder: Path, threads: int) -> dict[str, Any]:
    """Run one variant once; return its RESULT.json, or the error."""
    variant = VARIANTS[name]
    variables = {key: value for key, value in child_variables(threads).items() if key not in variant.dropped}
    kept = folder / "RESULT.json"
    kept.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.steps", "--child", name, what, str(folder / "SPEC.json"), str(kept)]
    variables |= variant.variables
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **variables}, capture_output=True, text=True, check=False
    )
    if not kept.is_file():
        return {"error": done.stderr.strip()[-500:] or f"exit status {done.returncode}"}
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every variant and write steps.json; return 1 when one failed. Raises AdjudgeError."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--child"]:
        child(*given[1:])
        return 0
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.steps", description="Measure the gain of each step of the engine."
    )
    add_options(parser)
    parser.add_argument(
        "--rounds",
        type=int,
        default=2,
        help="runs per variant, in turn with the whole engine (default: %(default)s)",
    )
    parser.add_argument("--only", help="run only variants with this text in their name; keep the other results")
    options = parser.parse_args(given)
    spec, settings = prepare(options)
    how = provenance("steps", settings, given)
    folder = options.out.resolve() / "steps"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "SPEC.json", {key: value for key, value in spec.items() if key != "evaluation_tokens"})
    kept = options.out / "steps.json"
    known = json.loads(kept.read_text(encoding="utf-8"))["rows"] if options.only and kept.is_file() else []
    rows = [row for row in known if options.only not in row["variant"]]
    for name, variant in VARIANTS.items():
        if name == WHOLE or (options.only or "") not in name:
            continue
        for what in variant.what:
            pairs = []
            for number in range(1, options.rounds + 1):
                pairs.append(
                    (measure(WHOLE, what, folder, spec["threads"]), measure(name, what, folder, spec["threads"]))
                )
                print(
                    f"{what}, {name}, round {number}: whole engine {say(pairs[-1][0])}; variant {say(pairs[-1][1])}",
                    flush=True,
                )
            rows.append(row_of(name, what, pairs) | {"command": how["command"]})
            write_json(kept, {**how, "rows": rows})
    return int(any("error" in row for row in rows))


def row_of(name: str, what: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Return the row of one variant: its ratios to the whole engine, per round, and both peaks."""
    errors = [result["error"] for pair in pairs for result in pair if "error" in result]
    if errors:
        return {"variant": name, "what": what, "error": errors[0]}
    seconds = [[statistics.median(result["seconds"]) for result in pair] for pair in pairs]
    peaks = [statistics.median(pair[side].get("peak_gib") or 0.0 for pair in pairs) for side in (0, 1)]
    return {
        "variant": name,
        "what": what,
        "seconds": seconds,
        "ratio": statistics.median(without / whole for whole, without in seconds),
        "ratios": [without / whole for whole, without in seconds],
        "peak_gib": {"whole": peaks[0], "without": peaks[1]},
    }


if __name__ == "__main__":
    run_program(main)
