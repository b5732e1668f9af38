"""One run in a process of its own, so that its seconds and its peak memory are its own and a crash takes nothing with it."""

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
"""How long a cell may take to finish its step, write a checkpoint and put its folder in order after Ctrl-C; a second one ends it at once."""


def run_isolated(
    config: Config, tasks: TaskSpec | Sequence[TaskSpec], folder: Path, *, force: bool = False, resume: bool = False
) -> dict[str, Any]:
    """Run `adjudge.experiments.execute.execute` in a new process and return the scores. Its notes and progress show through.

    Raises RunError with the reason when it failed; KeyboardInterrupt, after the process has ended, when it was stopped.
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
    # -P: a file of the user's that is called like a module of the standard library must not be imported instead of it.
    started = [sys.executable, "-P", "-m", "adjudge", VERB]
    told = {**os.environ, COMMAND: command()}
    process = subprocess.Popen(started, stdin=subprocess.PIPE, text=True, encoding="utf-8", env=told)
    assert process.stdin is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # a process that is gone already says why by its exit code
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
    """Run the cell that `stream` asks for (see `run_isolated`); stop as for Ctrl-C when the stream ends.

    The process that asked keeps the stream open while it lives: without it, nobody waits for the result any more.
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
        if not _recorded_reason(
            folder, request.get("stamp")
        ):  # it came before there was a run folder that could say it
            warn(str(error))
        raise


def _stop_once() -> None:
    """Only the first Ctrl-C counts: at a terminal it comes twice, from there and from the process that waits for us."""

    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, stop)


def _stop_with(descriptor: int) -> None:
    # The bare descriptor: a thread that waits in a buffered reader would block the interpreter's shutdown.
    while os.read(descriptor, 1024):
        pass
    os.kill(os.getpid(), signal.SIGINT)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a cell: ask, wait, insist. A second Ctrl-C insists at once."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()


def _mark(folder: Path, state: str, reason: str) -> None:
    """Say in the folder how its process ended, where it could not say so itself and no other process works there."""
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
    """When the run's state was last written, in nanoseconds; 0 where there is none."""
    path = folder / "status.json"
    return path.stat().st_mtime_ns if path.is_file() else 0


def _recorded_reason(folder: Path, before: int | None) -> str:
    """Why the run failed, where its process said so since the time `before`: an older reason is another attempt's."""
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
