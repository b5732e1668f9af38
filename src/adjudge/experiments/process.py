"""One run in its own process, so its seconds and peak memory are its own and a crash stays inside it."""

from __future__ import annotations

import contextlib
import json
import os
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
"""The hidden verb of the command line that serves a cell."""

STOP_S = 120.0
"""Time for a cell to finish its step, write a checkpoint and tidy its folder after Ctrl-C.

A second Ctrl-C ends it at once.
"""


def run_isolated(
    config: Config, tasks: TaskSpec | Sequence[TaskSpec], folder: Path, *, force: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Run `adjudge.experiments.execute.execute` in a new process and return the scores.

    Its notes and progress are shown. Raises RunError with the reason when it failed, and KeyboardInterrupt when it was
    stopped, after the process has ended.
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
    # -P: a user's file with the name of a standard library module must not be imported in its place.
    started = [sys.executable, "-P", "-m", "adjudge", VERB]
    told = {**os.environ, COMMAND: command()}
    process = subprocess.Popen(started, stdin=subprocess.PIPE, text=True, encoding="utf-8", env=told)
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # the exit code of a process that has ended already gives the reason
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        code = process.wait()
    except KeyboardInterrupt as stop:
        _stop(process)
        _mark(folder, "interrupted", "stopped by the user; the run is incomplete")
        raise type(stop)(str(folder)) from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
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


def serve(stream: TextIO) -> None:
    """Run the cell requested by `stream` (see `run_isolated`); stop as for Ctrl-C when the stream ends.

    The requesting process keeps the stream open while it lives. Without it, nobody waits for the result.
    """
    from adjudge.experiments.execute import execute

    request = json.loads(stream.readline())
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


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop a cell: interrupt, wait, then kill. A second Ctrl-C kills at once."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


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
