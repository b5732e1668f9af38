"""One run in its own process, so its seconds and peak memory are its own and a crash stays inside it.

Importing PyTorch and its kin takes longer than judging a few rows. One process imports them once and forks for each
cell; where forking is unsafe (a GPU, or another system than Linux) each cell is a new process. Several cells may run at
a time, each called from its own thread.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import queue
import signal
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from adjudge.config import Config, parse_config
from adjudge.errors import AdjudgeError, RunError, Terminated
from adjudge.experiments.cell_server import CellServer, fork_for_each, forks, stop_with_stream
from adjudge.runs.folder import Run
from adjudge.system.console import begin_lines_with
from adjudge.system.files import Lock, write_text
from adjudge.tasks.spec import TaskSpec

STOP_S = 120.0
"""Time for a cell to finish its step, write a checkpoint and tidy its folder after Ctrl-C.

A second Ctrl-C ends it at once.
"""
LIBRARIES = ("torch", "transformers", "peft", "scipy.stats", "sklearn.metrics", "adjudge.experiments.execute")


class CellProcesses:
    """Runs `adjudge.experiments.execute.execute` in one process per call; a context manager.

    Calls from several threads run side by side. `environments` are added to the processes' environment variables: those
    of a call are free ones, and the first where a process forks for all.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]] = ({},)) -> None:
        self._environments: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for variables in environments:
            self._environments.put(variables)
        self._servers: set[CellServer] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def __enter__(self) -> CellProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        for server in list(self._servers):
            server.end()

    def __call__(
        self,
        config: Config,
        tasks: TaskSpec | Sequence[TaskSpec],
        folder: Path,
        *,
        force: bool = False,
        resume: bool = False,
        title: str = "",
    ) -> dict[str, Any]:
        """Run one cell and return its scores. Its notes and progress are shown, each line after `title`.

        Raises RunError with the reason when it failed, and KeyboardInterrupt when it was stopped, after its process has
        ended.
        """
        before = _stamp(folder)
        request = cell_request(config, tasks, folder, force=force, resume=resume, title=title)
        with tempfile.TemporaryDirectory(prefix="adjudge-cell-") as temporary:
            error_file = Path(temporary) / "error"
            try:
                code = self._run({**request, "error_file": str(error_file)})
            except KeyboardInterrupt as stop:
                _mark(folder, "interrupted", "stopped by the user; the run is incomplete")
                raise type(stop)(str(folder)) from None
            error = error_file.read_text(encoding="utf-8") if error_file.is_file() else ""
        if code == 128 + signal.SIGINT:
            raise KeyboardInterrupt(str(folder))
        if code == 128 + signal.SIGTERM:
            raise Terminated(str(folder))
        if code != 0:
            reason = _recorded_reason(folder, before) or error  # it may come before there is a folder to record it
            if not reason:
                _mark(folder, "failed", _reason(code))
            raise RunError(reason or _reason(code))
        return Run.open(folder).scores()

    def stop(self) -> None:
        """Let all cells finish their step and write a checkpoint; their calls, in other threads, then raise.

        Later calls raise at once.
        """
        with self._lock:
            self._stopped = True
            servers = list(self._servers)
        for server in servers:
            server.stop()

    def kill(self) -> None:
        """End all cells at once; their calls, in other threads, then raise."""
        self._stopped = True
        for server in list(self._servers):
            server.kill()

    def _run(self, request: dict[str, Any]) -> int:
        """Have one request served, and return the exit code of its process. Stop it first when we are stopped."""
        server = self._server()
        cell = server.begin(request)
        try:
            code = cell.exit_code()
        except KeyboardInterrupt:
            try:
                cell.stop(STOP_S)
            finally:
                server.end()
                self._servers.discard(server)
            raise
        if server.ended:
            self._servers.discard(server)
            server.end()
        if not forks():
            self._environments.put(server.environment)
        if self._stopped and code != 0:
            raise KeyboardInterrupt
        return code

    def _server(self) -> CellServer:
        """Return the process that forks for all cells, or a new one. Raises KeyboardInterrupt after `stop`."""
        with self._lock:
            if self._stopped:
                raise KeyboardInterrupt
            if forks():
                alive = next((server for server in self._servers if not server.ended), None)
                if alive is not None:
                    return alive
            variables = self._environments.get()
            if forks():
                self._environments.put(variables)
            server = CellServer(variables)
            self._servers.add(server)
            return server


def cell_request(
    config: Config,
    tasks: TaskSpec | Sequence[TaskSpec],
    folder: Path,
    *,
    force: bool = False,
    resume: bool = False,
    title: str = "",
) -> dict[str, Any]:
    """Return the arguments of `execute` as JSON, with the title that the cell's lines begin with."""
    return {
        "config": config.model_dump(mode="json"),
        "specs": [spec.model_dump(mode="json") for spec in ([tasks] if isinstance(tasks, TaskSpec) else tasks)],
        "folder": str(folder),
        "force": force,
        "resume": resume,
        "title": title,
    }


def run_request(request: Mapping[str, Any]) -> None:
    """Run the cell of a request in this process."""
    from adjudge.experiments.execute import execute

    if request["title"]:
        begin_lines_with(f"{request['title']}: ")
    specs = [TaskSpec.model_validate(spec) for spec in request["specs"]]
    config, folder = parse_config(request["config"]), Path(request["folder"])
    execute(config, specs, folder, force=bool(request["force"]), resume=bool(request["resume"]))


def serve(stream: TextIO) -> None:
    """Run the cells that the lines of `stream` request (see `CellProcesses`).

    Stops them as for Ctrl-C when the stream ends: the requesting process keeps it open while it lives, and without it
    nobody waits for the results. A forked process returns here after its cell.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a cell prints must not be taken for a reply

    def reply(**values: int) -> None:
        print(json.dumps(values), file=replies, flush=True)

    if not forks():
        if line := stream.readline():
            request = json.loads(line)
            reply(id=request["id"], pid=os.getpid())
            _run_cell(request, stream)
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the cells
    terminating = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a signal to the whole process group is, too
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()  # looking through what was there before the fork, a cell would copy its memory: a second at its end
    request = fork_for_each(stream, reply)
    if request is not None:
        replies.close()  # the server's end is then seen at once
        signal.signal(signal.SIGTERM, terminating)
        _run_cell(request, stream)


def _run_cell(request: dict[str, Any], stream: TextIO) -> None:
    _stop_once()
    stop_with_stream(stream)
    try:
        run_request(request)
    except AdjudgeError as error:
        write_text(Path(request["error_file"]), str(error))
        raise


def _stop_once() -> None:
    """Handle only the first Ctrl-C: at a terminal it comes twice, once from the waiting process."""

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)


def _mark(folder: Path, state: str, reason: str) -> None:
    """Record in the folder how its process ended, if it could not and no other process works there."""
    lock = Lock(folder)
    with contextlib.suppress(RunError):  # stopped before there was a run folder
        run = Run.open(folder)
        lock.acquire()
        try:
            if run.recorded_status()[0] == "running":
                run.set_state(state, reason)
        finally:
            lock.release()


def _stamp(folder: Path) -> int:
    """Return when the run's state was last written, in nanoseconds; 0 if there is none."""
    path = folder / "status.json"
    return path.stat().st_mtime_ns if path.is_file() else 0


def _recorded_reason(folder: Path, before: int) -> str:
    """Return why the run failed, if its process recorded a reason since the time `before`.

    An older reason belongs to another attempt.
    """
    if _stamp(folder) == before:
        return ""
    try:
        state, reason = Run.open(folder).recorded_status()
    except AdjudgeError:
        return ""
    return reason if state == "failed" else ""


def _reason(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
    more = " (the machine ran out of memory?)" if -code == signal.SIGKILL else ""
    return f"its process was ended by signal {name}{more}"
