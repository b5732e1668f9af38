"""Let `adjudge compare` fork the processes that serve its cells, instead of importing PyTorch and its kin anew.

A forked process reads the same requests and answers in the same way; only its libraries are there already. With
`--jobs` they are forked at the beginning: later there are threads, and a lock that one of them holds during a fork
stays locked in the new process for ever.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from adjudge.cli import main as command_line
from adjudge.experiments import cell_server
from adjudge.runs.folder import Run

PAUSE_S = "PAUSE_AFTER_STEP_S"
"""The environment variable with the seconds to sleep after each step, so that a signal finds a run at work."""


def main() -> None:
    """Run `adjudge` as its command line does."""
    if pause := os.environ.get(PAUSE_S):
        _pause_after_each_step(float(pause))
    _prepared.extend(_Forked() for _ in range(_jobs(sys.argv)))
    cell_server.subprocess = SimpleNamespace(Popen=_server, PIPE=subprocess.PIPE)  # type: ignore[assignment]
    command_line.main()


def _jobs(arguments: Sequence[str]) -> int:
    """Return the number of servers to fork at the beginning: one per job, none for a comparison of one at a time."""
    return int(arguments[arguments.index("--jobs") + 1]) if "--jobs" in arguments else 0


def _server(arguments: Sequence[str], *, env: Mapping[str, str], **_: Any) -> _Forked:
    """Return a process that serves cells, as `subprocess.Popen` does."""
    process = _prepared.pop() if _prepared else _Forked()
    process.begin(arguments, env)
    return process


def _pause_after_each_step(seconds: float) -> None:
    real = Run.log

    def log(run: Run, record: Mapping[str, Any], **more: Any) -> None:
        real(run, record, **more)
        time.sleep(seconds)

    Run.log = log  # type: ignore[method-assign]


class _Forked:
    """The part of `subprocess.Popen` that a `CellServer` uses, for a process that waits until it is told to begin."""

    def __init__(self) -> None:
        requests, replies = os.pipe(), os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            self._serve(requests, replies)
        os.close(requests[0])
        os.close(replies[1])
        self.stdin = os.fdopen(requests[1], "w", encoding="utf-8")
        self.stdout = os.fdopen(replies[0], encoding="utf-8")

    def begin(self, arguments: Sequence[str], env: Mapping[str, str]) -> None:
        """Let it serve, with these arguments and this environment."""
        self.stdin.write(json.dumps([list(arguments), dict(env)]) + "\n")
        self.stdin.flush()

    def poll(self) -> int | None:
        """Return the exit code, or None while the process lives."""
        return self._waited(os.WNOHANG)

    def wait(self) -> int:
        """Return the exit code once the process has ended."""
        code = self._waited(0)
        assert code is not None
        return code

    def kill(self) -> None:
        """End the process at once."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _waited(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def _serve(self, requests: Any, replies: Any) -> None:
        code = 1
        try:
            for other in _prepared:  # their input must end when the first process closes it
                other.stdin.close()
                other.stdout.close()
            os.dup2(requests[0], 0)
            os.dup2(replies[1], 1)
            for descriptor in (*requests, *replies):
                os.close(descriptor)
            # Opened anew: another thread of the first process may have held the old ones' locks.
            sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
            if not (told := _first_line()):
                os._exit(0)  # never needed
            arguments, env = json.loads(told)
            os.environ.clear()
            os.environ.update(env)
            sys.argv = ["adjudge", *arguments[arguments.index("adjudge") + 1 :]]
            command_line.main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def _first_line() -> bytes:
    """Return the first line of standard input, and leave the rest unread."""
    line = b""
    while (read := os.read(0, 1)) not in (b"", b"\n"):
        line += read
    return line


_prepared: list[_Forked] = []
"""Processes that wait to be told to begin."""
