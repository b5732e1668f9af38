"""One run in its own process, so its seconds and peak memory are its own and a crash stays inside it.

Importing PyTorch and its kin takes longer than judging a few rows. One process imports them once and forks for each
cell; where forking is unsafe (a GPU, or another system than Linux) each cell is a new process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from adjudge.config import Config, parse_config
from adjudge.errors import AdjudgeError, RunError, Terminated
from adjudge.runs.environment import COMMAND, command
from adjudge.runs.folder import Run
from adjudge.system.console import warn
from adjudge.system.files import Lock
from adjudge.tasks.spec import TaskSpec

VERB = "cell"
"""The hidden verb of the command line that serves cells."""

STOP_S = 120.0
"""Time for a cell to finish its step, write a checkpoint and tidy its folder after Ctrl-C.

A second Ctrl-C ends it at once.
"""
LIBRARIES = ("torch", "transformers", "peft", "scipy.stats", "sklearn.metrics", "adjudge.experiments.execute")
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Device files of GPUs. A GPU's driver does not survive a fork, and importing the libraries may start it."""


class CellProcesses:
    """Runs `adjudge.experiments.execute.execute` in one process per call; a context manager."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None
        self._replies: queue.SimpleQueue[dict[str, int]] = queue.SimpleQueue()

    def __enter__(self) -> CellProcesses:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_server()

    def __call__(
        self,
        config: Config,
        tasks: TaskSpec | Sequence[TaskSpec],
        folder: Path,
        *,
        force: bool = False,
        resume: bool = False,
    ) -> dict[str, Any]:
        """Run one cell and return its scores. Its notes and progress are shown.

        Raises RunError with the reason when it failed, and KeyboardInterrupt when it was stopped, after its process has
        ended.
        """
        before = _stamp(folder)
        request = {
            "config": config.model_dump(mode="json"),
            "specs": [spec.model_dump(mode="json") for spec in ([tasks] if isinstance(tasks, TaskSpec) else tasks)],
            "folder": str(folder),
            "force": force,
            "resume": resume,
            "stamp": before,
        }
        try:
            code = self._run(request)
        except KeyboardInterrupt as stop:
            _mark(folder, "interrupted", "stopped by the user; the run is incomplete")
            raise type(stop)(str(folder)) from None
        if code == 128 + signal.SIGINT:
            raise KeyboardInterrupt(str(folder))
        if code == 128 + signal.SIGTERM:
            raise Terminated(str(folder))
        if code != 0:
            reason = _recorded_reason(folder, before)
            if not reason:
                _mark(folder, "failed", _reason(code))
            raise RunError(reason or _reason(code))
        return Run.open(folder).scores()

    def _run(self, request: dict[str, Any]) -> int:
        """Have one request served, and return the exit code of its process. Stop it first when we are stopped."""
        server = self._start_server()
        pid: int | None = None
        try:
            with contextlib.suppress(BrokenPipeError):  # the exit code of the ended process already gives the reason
                assert server.stdin is not None
                server.stdin.write(json.dumps(request) + "\n")
                server.stdin.flush()
            pid = self._replies.get().get("pid")
            return self._exit_code(server, pid)
        except KeyboardInterrupt:
            if pid is None:
                pid = self._pid_by_now()
            if pid is not None:  # else there is no cell yet: ending the server is enough
                _send(signal.SIGINT, pid)
                try:
                    self._exit_code(server, pid, STOP_S)
                except (queue.Empty, KeyboardInterrupt):
                    _send(getattr(signal, "SIGKILL", signal.SIGTERM), pid)
            self._end_server()
            raise

    def _pid_by_now(self) -> int | None:
        """Return the cell's process if the server has named it meanwhile."""
        with contextlib.suppress(queue.Empty):
            return self._replies.get_nowait().get("pid")
        return None

    def _exit_code(self, server: subprocess.Popen[str], pid: int | None, within_s: float | None = None) -> int:
        """Wait for a cell to end. Raises queue.Empty when it does not end in time."""
        reply = self._replies.get(timeout=within_s) if pid is not None else {}
        if "code" in reply:
            return reply["code"]
        code = server.wait()  # it was the cell itself, or was killed
        if pid != server.pid:
            _send(getattr(signal, "SIGKILL", signal.SIGTERM), pid)
        self._end_server()
        return code

    def _start_server(self) -> subprocess.Popen[str]:
        if self._server is None:
            # -P: a user's file with the name of a standard library module must not be imported in its place.
            arguments = [sys.executable, "-P", "-m", "adjudge", VERB]
            environment = {**os.environ, COMMAND: command()}
            pipe = subprocess.PIPE
            self._server = subprocess.Popen(
                arguments, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=environment
            )
            threading.Thread(target=self._read, args=(self._server,), daemon=True).start()
        return self._server

    def _read(self, server: subprocess.Popen[str]) -> None:
        assert server.stdout is not None
        for line in server.stdout:
            self._replies.put(json.loads(line))
        self._replies.put({})

    def _end_server(self) -> None:
        server, self._server, self._replies = self._server, None, queue.SimpleQueue()
        if server is None:
            return
        assert server.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            server.stdin.close()
        if server.poll() is None:
            server.kill()
        server.wait()


def serve(stream: TextIO) -> None:
    """Run the cells that the lines of `stream` request (see `CellProcesses`).

    Stops as for Ctrl-C when the stream ends: the requesting process keeps it open while it lives, and without it nobody
    waits for the results. A forked process returns here after its cell.
    """
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a cell prints must not be taken for a reply
    forks = sys.platform == "linux" and not any(map(os.path.exists, GPU_FILES))
    if forks:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at a terminal is for the cell
        for name in LIBRARIES:
            importlib.import_module(name)
    while line := stream.readline():
        pid = os.fork() if forks else 0
        if pid == 0:
            if not forks:
                print(json.dumps({"pid": os.getpid()}), file=replies, flush=True)
            return _run_cell(json.loads(line), stream)
        print(json.dumps({"pid": pid}), file=replies, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(json.dumps({"code": code}), file=replies, flush=True)


def _run_cell(request: dict[str, Any], stream: TextIO) -> None:
    from adjudge.experiments.execute import execute

    _stop_once()
    threading.Thread(target=_stop_with, args=(stream.fileno(),), daemon=True).start()
    folder = Path(request["folder"])
    try:
        specs = [TaskSpec.model_validate(spec) for spec in request["specs"]]
        execute(
            parse_config(request["config"]), specs, folder, force=bool(request["force"]), resume=bool(request["resume"])
        )
    except AdjudgeError as error:
        if not _recorded_reason(folder, request.get("stamp")):  # it came before there was a run folder to record it
            warn(str(error))
        raise


def _stop_once() -> None:
    """Handle only the first Ctrl-C: at a terminal it comes twice, once from the waiting process."""

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)


def _stop_with(descriptor: int) -> None:
    # The bare descriptor: a thread waiting in a buffered reader would block the interpreter's shutdown.
    while os.read(descriptor, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _send(number: int, pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


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


def _recorded_reason(folder: Path, before: int | None) -> str:
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
