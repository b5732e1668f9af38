"""Run the experiments, several runs at a time, and print their tables.

    python -m benchmarks.choose.run tasks,sst2 --data-dir DIR --workers 2 --out runs/choose

A finished run is kept, and a stopped one goes on from its checkpoint, so the same command continues after an interrupt.
`--report` only prints the tables of what is there. On a GPU many runs share it well: take as many workers as cores.
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from adjudge.config import load_config
from adjudge.errors import AdjudgeError
from adjudge.tasks import load_task
from adjudge.tasks.spec import TaskSpec
from benchmarks.choose.plans import PLANS, Arm, Plan
from benchmarks.choose.report import report
from benchmarks.choose.tables import generating, make_table, with_generated

RECIPES = Path(__file__).parents[2] / "recipes"
SLOW = (*("critique-grpo", "grpo", "ppo", "spin", "sppo", "tdpo", "dpo", "exact", "rloo", "reinforce", "swie", "sft"),)
"""Methods from the slowest step to the fastest."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of an experiment."""

    plan: str
    arm: Arm
    spec: TaskSpec
    seed: int
    values: dict[str, Any]
    folder: Path
    first: Job | None = None
    """The run that must be finished before."""

    @property
    def is_finished(self) -> bool:
        """Return whether the run has its scores."""
        return (self.folder / "scores.json").is_file()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("plans", help=f"names, separated by commas: {', '.join(PLANS)}")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with GLUE in the official layout")
    parser.add_argument("--out", type=Path, default=Path("runs/choose"))
    parser.add_argument("--workers", type=int, default=1, help="runs at a time, each with one thread")
    parser.add_argument("--seeds", type=int, help="number of seeds, instead of each experiment's own")
    parser.add_argument("--arms", help="only these arms, separated by semicolons")
    parser.add_argument("--tasks", help="only these tasks, separated by commas")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every run")
    parser.add_argument("--deadline-s", type=float, help="begin no run after so many seconds")
    parser.add_argument("--report", action="store_true", help="only print the tables")
    given = parser.parse_args()
    names = given.plans.split(",")
    for name in names:
        if name not in PLANS:
            parser.error(f"there is no experiment '{name}'; there are {', '.join(PLANS)}")
    jobs = [job for name in names for job in plan_jobs(name, given.data_dir, given.out, given.set, given.seeds)]
    if given.arms:
        jobs = [job for job in jobs if job.arm.name in given.arms.split(";")]
    if given.tasks:
        jobs = [job for job in jobs if job.spec.name in given.tasks.split(",")]
    if not given.report:
        names_of_rows = dict.fromkeys(job.arm.generated for job in jobs if job.arm.generated)
        missing = [generating(name, given.data_dir, given.out / "tables") for name in names_of_rows]
        if commands := [command for command in missing if command]:
            raise SystemExit("Generate the rows first:\n" + "\n".join(commands))
        run_jobs(jobs, given.workers, given.deadline_s)
    for name in names:
        print(report(name, [job for job in jobs if job.plan == name]), flush=True)


def plan_jobs(
    name: str,
    data_dir: Path,
    out: Path,
    settings: Sequence[str] = (),
    seeds: int | None = None,
) -> list[Job]:
    """Return the runs of an experiment, by task, arm and seed. Arms that take another's runs have none."""
    plan = PLANS[name]
    jobs = []
    for task in plan.tasks:
        spec = load_task(task) if "/" in task and ":" not in task else make_table(task, data_dir, out / "tables")
        for arm in plan.arms:
            if arm.of:
                continue
            for seed in range(plan.seeds if seeds is None else seeds):
                given = dict(item.split("=", 1) for item in settings)
                own = with_generated(spec, arm.generated, out / "tables") if arm.generated else spec
                place = out / name / task.replace("/", "-").replace(":", "-")
                values = {**_values(plan, arm, task, seed, data_dir), **given}
                first = None
                if arm.first is not None:
                    key, before = arm.first
                    earlier = {**_values(plan, before, task, seed, data_dir), **given}
                    first = Job(name, before, own, seed, earlier, _folder(place, before, seed))
                    values[key] = str(first.folder)
                jobs.append(Job(name, arm, own, seed, values, _folder(place, arm, seed), first))
    return jobs


def _folder(place: Path, arm: Arm, seed: int) -> Path:
    return place / arm.name.replace(", ", "-").replace(" ", "-") / f"seed-{seed}"


def _values(plan: Plan, arm: Arm, task: str, seed: int, data_dir: Path) -> dict[str, Any]:
    return {
        "method": arm.method,
        "seed": seed,
        "data.train_rows": plan.rows,
        "data.eval_rows": plan.eval_rows,
        "data.data_dir": str(data_dir),
        "runtime.threads": 1,
        **plan.settings,
        **arm.settings,
        **(_own_settings(arm.method, arm.recipe_of[task]) if task in arm.recipe_of else {}),
    }


def _own_settings(method: str, recipe: str) -> dict[str, Any]:
    own = yaml.safe_load((RECIPES / recipe).read_text(encoding="utf-8"))[method]
    return {f"{method}.{key}": value for key, value in own.items()}


def run_jobs(jobs: Sequence[Job], workers: int, deadline_s: float | None = None) -> None:
    """Run what is not finished, each experiment's longest first. A run that fails is reported, and the others go on."""
    todo = [job for job in jobs if not job.is_finished]
    order = list(dict.fromkeys(job.plan for job in jobs))
    todo.sort(key=lambda job: (order.index(job.plan), _slowness(job)))
    print(f"{len(todo)} of {len(jobs)} runs to do, {workers} at a time", flush=True)
    began = time.monotonic()
    context = multiprocessing.get_context("spawn")  # a GPU's driver does not survive a fork
    tasks: Any = context.SimpleQueue()
    done: Any = context.SimpleQueue()
    for index in range(len(todo)):
        tasks.put(index)
    for _ in range(workers):
        tasks.put(None)
    until = None if deadline_s is None else began + deadline_s
    processes = [context.Process(target=_work, args=(todo, tasks, done, until)) for _ in range(workers)]
    for process in processes:
        process.start()
    for number in range(len(todo)):
        line = done.get()
        print(f"[{number + 1}/{len(todo)}] {time.monotonic() - began:4.0f} s  {line}", flush=True)
    for process in processes:
        process.join()


def _slowness(job: Job) -> int:
    return SLOW.index(job.arm.method) if job.arm.method in SLOW else len(SLOW)


def _work(todo: Sequence[Job], tasks: Any, done: Any, until: float | None) -> None:
    while (index := tasks.get()) is not None:
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            return
        if until is not None and time.monotonic() > until:
            done.put(f"{_title(todo[index])}: not begun")
        else:
            done.put(_run(todo[index]))


def _run(job: Job) -> str:
    """Run one job with its output in a log beside its folder, and return a line about it."""
    if job.first is not None and not job.first.is_finished:
        line = _run(job.first)
        if not job.first.is_finished:
            return f"{_title(job)}: not begun, since the run before it failed: {line}"
    import torch

    from adjudge.experiments.execute import execute
    from adjudge.experiments.judging import score_line

    job.folder.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(job.folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    kept = os.dup(2)
    os.dup2(log, 2)
    try:
        line = score_line(execute(load_config(values=job.values), job.spec, job.folder, resume=True))
    except AdjudgeError as error:
        line = f"failed: {error}"
    except Exception:
        traceback.print_exc()
        line = f"failed: {traceback.format_exc(limit=-1)}"
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(log)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return f"{_title(job)}: {line}"


def _title(job: Job) -> str:
    return f"{job.plan}, {job.arm.name}, seed {job.seed}"


if __name__ == "__main__":
    main()
