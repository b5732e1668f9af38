"""Cells as tasks of a Ray cluster: each in a worker of its own, on any machine with room for it.

The machines share the disk that holds the comparison's folder. A worker that dies takes only its last steps with it:
its cell is given out again, and goes on from its newest checkpoint. Needs the extra ``ray``.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from adjudge.config import RuntimeConfig
from adjudge.errors import AdjudgeError, ConfigError, RunError, Terminated
from adjudge.experiments.cells import Cell
from adjudge.experiments.process import STOP_S, cell_request, run_request
from adjudge.models.chat_api import CONSENT
from adjudge.runs.environment import JOBS
from adjudge.runs.folder import Run
from adjudge.system.console import note, warn

ATTEMPTS = 3
"""Times that a cell is given out when its worker dies."""
REACH_S = 10.0
"""Time that a cluster has to answer."""
ADDRESS = "RAY_ADDRESS"
"""Ray's own environment variable: where the cluster is."""

Begin = Callable[[Cell], Mapping[str, bool]]
"""Announces a cell, and returns whether its folder is replaced (``force``) or gone on with (``resume``)."""
Ended = Callable[[Cell, Mapping[str, Any] | AdjudgeError], None]


def run_on_ray(cells: Sequence[Cell], runtime: RuntimeConfig, begin: Begin, ended: Ended, *, jobs: int | None) -> None:
    """Run each cell as a task of a Ray cluster: at RAY_ADDRESS, on this machine, or started here.

    A cell takes `runtime.threads` CPUs (one if unset), and a GPU where the cluster has some. `jobs` cells run at a time
    at most; by default as many as the cluster has room for. `ended` gets the scores of each, or its error.

    Raises ConfigError without Ray, for a cluster that cannot be reached, and where no machine is large enough for a
    cell. Raises KeyboardInterrupt after Ctrl-C or SIGTERM, when all cells have finished their step and written a
    checkpoint.
    """
    with _cluster() as ray, _sigterm() as terminated:
        resources = _resources(ray, runtime)
        at_a_time = min(_places(ray, resources), len(cells), jobs or len(cells))
        note(f"{len(cells)} runs on {_described(ray)}, up to {at_a_time} at a time.")
        variables = {JOBS: str(at_a_time)} | {key: os.environ[key] for key in (CONSENT,) if key in os.environ}
        task = ray.remote(**resources, max_calls=1, max_retries=0)(_run_cell)
        waiting, attempts = deque(cells), dict.fromkeys((cell.folder for cell in cells), 0)
        running: dict[Any, Cell] = {}
        try:
            while waiting or running:
                while waiting and len(running) < (jobs or len(cells)):
                    cell = waiting.popleft()
                    attempts[cell.folder] += 1
                    running[task.remote(_request(cell, begin(cell)), str(Path.cwd()), variables)] = cell
                finished, _ = ray.wait(list(running), num_returns=1, timeout=1.0)
                for reference in finished:
                    cell = running.pop(reference)
                    outcome = _outcome(ray, reference, cell)
                    if outcome is None and attempts[cell.folder] < ATTEMPTS:
                        warn(f"{cell.title}: its worker died. It goes on from its newest checkpoint.")
                        waiting.append(cell)
                    else:
                        ended(cell, outcome or RunError(f"its worker died {ATTEMPTS} times (out of memory?)"))
        except KeyboardInterrupt:
            note("stopping all runs after their step and its checkpoint.")
            _stop(ray, list(running))
            if terminated:  # Ray makes its own exception of every signal
                raise Terminated from None
            raise


def check_ray() -> None:
    """Raise ConfigError without the package."""
    _imported()


def _imported() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    os.environ.setdefault("RAY_COLOR_PREFIX", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # lines of progress look alike, and are not
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns of a change in its future
    try:
        import ray
    except ImportError:
        raise ConfigError("--launcher ray needs Ray: pip install 'adjudge[ray]', on every machine.") from None
    return ray


@contextmanager
def _sigterm() -> Iterator[list[int]]:
    """Yield a list that is not empty once SIGTERM has come, whose own handling stays as it is."""
    handler = signal.getsignal(signal.SIGTERM)
    came: list[int] = []
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield came
        return

    def noted(number: int, frame: FrameType | None) -> None:
        came.append(number)
        handler(number, frame)

    signal.signal(signal.SIGTERM, noted)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _cluster() -> Iterator[Any]:
    """Yield Ray, connected to the cluster, with SIGTERM handled as before: Ray would exit at once."""
    ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    address, on_sigterm = os.environ.get(ADDRESS), signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    try:
        _check_reachable(address)
        ray.init(address=address, include_dashboard=None if address else False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        where = f"{ADDRESS}={address}" if address else "a cluster of this machine's own"
        raise ConfigError(
            f"Ray cannot be reached at {where}: {_first_line(error)} `ray status` shows a cluster; without {ADDRESS} "
            "one is started on this machine."
        ) from None
    finally:
        if main:
            signal.signal(signal.SIGTERM, on_sigterm)
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Raise OSError when nothing listens at a cluster's address: Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=REACH_S).close()


def _resources(ray: Any, runtime: RuntimeConfig) -> dict[str, float]:
    """Return the CPUs and GPUs that a cell takes. Raises ConfigError where no machine has them."""
    if runtime.device.startswith("cuda:"):
        raise ConfigError(f"runtime.device={runtime.device}: Ray deals out the GPUs. Write runtime.device=cuda.")
    cpus = runtime.threads or 1
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    most = int(max((node.get("CPU", 0) for node in nodes), default=0))
    if most < cpus:
        raise ConfigError(
            f"runtime.threads={cpus}: the largest machine of the Ray cluster has {most} CPUs. "
            f"Write runtime.threads={most}."
        )
    has_gpu = any(node.get("GPU", 0) >= 1 for node in nodes)
    if runtime.device == "cuda" and not has_gpu:
        raise ConfigError(f"runtime.device={runtime.device}: no machine of the Ray cluster has a GPU.")
    return {"num_cpus": cpus, "num_gpus": 1 if has_gpu and runtime.device in ("auto", "cuda") else 0}


def _places(ray: Any, resources: Mapping[str, float]) -> int:
    """Return how many cells the cluster has room for."""
    places = 0
    for node in ray.nodes():
        if node["Alive"]:
            of = node["Resources"]
            free = of.get("CPU", 0) // resources["num_cpus"]
            places += int(min(free, of.get("GPU", 0)) if resources["num_gpus"] else free)
    return max(1, places)


def _described(ray: Any) -> str:
    machines = sum(node["Alive"] for node in ray.nodes())
    return f"a Ray cluster of {machines} machine{'s' if machines > 1 else ''}"


def _request(cell: Cell, how: Mapping[str, bool]) -> dict[str, Any]:
    return cell_request(cell.config, cell.specs, cell.folder, title=cell.title, **how)


def _run_cell(request: dict[str, Any], directory: str, variables: dict[str, str]) -> str | None:
    """Run one cell in a worker, and return why it failed, or None. Its scores are in its folder."""
    out = Path(directory, request["folder"]).parents[2]
    if not out.is_dir():
        return f"{socket.gethostname()} does not see {out}: the cluster's machines need a disk in common."
    os.chdir(directory)  # the task's files and the model may be named from here
    os.environ.update(variables)
    try:
        run_request(request)
    except AdjudgeError as error:
        return str(error)
    return None


def _outcome(ray: Any, reference: Any, cell: Cell) -> Mapping[str, Any] | AdjudgeError | None:
    """Return the scores of a cell, the error that it failed with, or None when its worker died."""
    try:
        reason = ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return RunError(f"{_first_line(error.cause)} Its traceback is above.")
    except ray.exceptions.RayError:
        return None
    try:
        return Run.open(cell.folder).scores() if reason is None else RunError(reason)
    except AdjudgeError as error:
        return error


def _stop(ray: Any, references: Sequence[Any]) -> None:
    """Let all cells finish their step and write a checkpoint; a second Ctrl-C ends them at once."""
    end, left = time.monotonic() + STOP_S, list(references)
    try:
        for reference in left:
            ray.cancel(reference)
        while left and time.monotonic() < end:
            _, left = ray.wait(left, num_returns=len(left), timeout=0.5)
    finally:
        for reference in left:
            ray.cancel(reference, force=True)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return text if text.endswith(".") else f"{text}."
