"""Compare two gloo processes of one core each with one process of two cores, by turns.

    python -m benchmarks.processes --rounds 3

Each turn is `adjudge train` on the same rows. Speed is rows per second of the steps alone, without loading, from
timings.jsonl; the first step is left out. The best turn of each counts, since other work only makes a turn slower.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from adjudge.runs.environment import cpu_name, usable_cores
from adjudge.runs.folder import read_jsonl


def rows_per_s(
    method: str, processes: int, threads: int, given: argparse.Namespace, folder: Path, settings: Sequence[str] = ()
) -> float:
    """Train once, and return the rows per second of all steps but the first."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [
        *(sys.executable, *launcher, "-m", "adjudge", "train", method, "--task", given.task, "--model", given.model),
        *("--train-rows", str(given.steps * given.batch), "--eval-rows", "2", "--out", str(folder), "--force"),
        *(f"{method}.batch_size={given.batch}", f"{method}.min_steps=0", f"{method}.epochs=1"),
        *(f"runtime.threads={threads}", "runtime.device=cpu", "checkpoint.every_s=null", "evaluation.resamples=100"),
        *settings,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    seconds = [record["seconds"] for record in read_jsonl(folder / "timings.jsonl")][1:]
    total = sum(sum(each.values()) if isinstance(each, dict) else each for each in seconds)
    return len(seconds) * given.batch / total


def options(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options of a program that measures by turns."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--task", default="vader/movies")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    return parser


def main() -> None:
    """Run the command line."""
    parser = options(__doc__)
    parser.add_argument("--methods", default="sft,ppo")
    given = parser.parse_args()
    print(f"{cpu_name()}, {usable_cores()} cores, {given.model}, batches of {given.batch}")
    print("| method | one process of 2 cores, rows/s | two processes of 1 core, rows/s | share |")
    print("| --- | --: | --: | --: |")
    with tempfile.TemporaryDirectory() as place:
        for method in given.methods.split(","):
            speeds: dict[int, list[float]] = {1: [], 2: []}
            for _ in range(given.rounds):
                for processes, measured in speeds.items():
                    folder = Path(place) / f"{method}-{processes}"
                    measured.append(rows_per_s(method, processes, 2 // processes, given, folder))
            one, two = (max(speeds[processes]) for processes in (1, 2))
            print(f"| {method} | {one:.2f} | {two:.2f} | {two / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
