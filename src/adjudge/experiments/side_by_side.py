"""Cells side by side: each in its own process, with its share of the processors or a GPU of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

from adjudge.config import RuntimeConfig
from adjudge.errors import AdjudgeError, ConfigError, nearest
from adjudge.experiments.cell_server import TURN_S, sees_gpu
from adjudge.experiments.cells import Cell
from adjudge.experiments.process import STOP_S, CellProcesses
from adjudge.runs.environment import JOBS, usable_cores
from adjudge.system.console import note, warn

Scores = Mapping[str, Any]


LAUNCHERS = ("local", "ray")
"""Where cells run: in processes of this machine, or on a Ray cluster."""


def check_launcher(launcher: str) -> None:
    """Raise ConfigError for an unknown launcher, and for one whose package is missing."""
    if launcher not in LAUNCHERS:
        raise ConfigError(
            f"There is no launcher '{launcher}'; there are {', '.join(LAUNCHERS)}.{nearest(launcher, LAUNCHERS)}"
        )
    if launcher == "ray":
        from adjudge.experiments.on_ray import check_ray

        check_ray()


def check_jobs(jobs: int | None) -> None:
    """Raise ConfigError for a number of jobs below 1."""
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}: at least one run has to be at work. Write --jobs 1 for one after the other.")


def job_environments(
    jobs: int, runtime: RuntimeConfig, *, cores: int | None = None, gpus: Sequence[str] | None = None
) -> list[dict[str, str]]:
    """Return the environment variables of each of `jobs` processes side by side.

    A single job has none. Of several, each gets ``cores // jobs`` threads, unless `runtime.threads` or a smaller
    OMP_NUM_THREADS says how many. Where there are several GPUs, they are dealt out in turn. Warns when the threads are
    more than the cores.
    """
    if jobs == 1:
        return [{}]
    cores = usable_cores() if cores is None else cores
    gpus = visible_gpus(runtime) if gpus is None else gpus
    share = max(1, cores // jobs)
    if jobs > cores:
        warn(f"{jobs} jobs share {cores} cores: they wait for each other.")
    elif runtime.threads is not None and runtime.threads > share:
        warn(
            f"{jobs} jobs of runtime.threads={runtime.threads} are {jobs * runtime.threads} threads on {cores} cores: "
            f"they wait for each other. runtime.threads={share} is each one's share."
        )
    given = os.environ.get("OMP_NUM_THREADS", "")
    threads = min(share, int(given)) if given.isdigit() and int(given) else share
    variables = {JOBS: str(jobs)} | ({"OMP_NUM_THREADS": str(threads)} if runtime.threads is None else {})
    if len(gpus) < 2:
        return [variables for _ in range(jobs)]
    return [{**variables, "CUDA_VISIBLE_DEVICES": gpus[job % len(gpus)]} for job in range(jobs)]


def suggest_jobs(runs: int, runtime: RuntimeConfig) -> None:
    """Tell of --jobs where several runs are to follow each other on cores that could do two at a time."""
    cores = usable_cores()
    if runs > 1 and cores > 1 and runtime.threads is None and not sees_gpu():
        note(f"one at a time; --jobs 2 runs two side by side, which is faster on {cores} cores.")


def visible_gpus(runtime: RuntimeConfig) -> list[str]:
    """Return the names of the GPUs that a run may take, as CUDA_VISIBLE_DEVICES lists them.

    There are none where `runtime.device` names a device: then all runs share that one.
    """
    if runtime.device not in ("auto", "cuda") or not sees_gpu():
        return []
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip()]
    import torch

    return [str(index) for index in range(torch.cuda.device_count())]


def run_side_by_side(
    cells: Sequence[Cell],
    environments: Sequence[Mapping[str, str]],
    run: Callable[[CellProcesses, Cell], Scores],
    ended: Callable[[Cell, Scores | AdjudgeError], None],
) -> None:
    """Run each cell in its own process, as many at a time as there are `environments`, in their order.

    `run` runs one cell in a thread. `ended` gets its scores or its error, in this thread.
    Raises KeyboardInterrupt after Ctrl-C or SIGTERM, when all cells have finished their step and written a checkpoint.
    """
    with CellProcesses(environments) as processes, ThreadPoolExecutor(len(environments)) as pool:
        cell_of: dict[Future[Scores], Cell] = {}
        with _all_stopped_on_error(processes, cell_of):
            for cell in cells:
                cell_of[pool.submit(run, processes, cell)] = cell
            unfinished = set(cell_of)
            while unfinished:
                finished, unfinished = wait(unfinished, timeout=TURN_S, return_when=FIRST_COMPLETED)
                for future in sorted(finished, key=list(cell_of).index):
                    ended(cell_of[future], _outcome(future))


def _outcome(future: Future[Scores]) -> Scores | AdjudgeError:
    """Return the scores of a cell, or the error that it failed with.

    Raises what is not a failure of the cell alone.
    """
    error = future.exception()
    if isinstance(error, AdjudgeError):
        return error
    return future.result()


@contextmanager
def _all_stopped_on_error(processes: CellProcesses, futures: Mapping[Future[Scores], Cell]) -> Iterator[None]:
    """Stop every cell when this block raises, and wait for their checkpoints.

    A second Ctrl-C ends them at once.
    """
    try:
        yield
    except BaseException as error:
        for future in futures:
            future.cancel()
        if isinstance(error, KeyboardInterrupt):
            note("stopping all runs after their step and its checkpoint.")
        try:
            processes.stop()
            _wait_for_all(futures)
        except KeyboardInterrupt:
            pass
        finally:
            processes.kill()
        raise


def _wait_for_all(futures: Mapping[Future[Scores], Cell]) -> None:
    end = time.monotonic() + STOP_S
    while time.monotonic() < end and any(not future.done() for future in futures):
        wait(futures, timeout=TURN_S)
