"""The process that runs cells on request: how to start, ask and stop it, and how it forks per cell.

Requests are lines of JSON on its standard input, replies lines on its standard output: ``{"id", "pid"}`` when a cell
begins and ``{"id", "code"}`` when its process has ended. It lives as long as its input is open.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

from adjudge.runs.environment import COMMAND, command

VERB = "cell"
"""The hidden verb of the command line that serves cells."""
GPU_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
"""Device files of GPUs. A GPU's driver does not survive a fork, and importing the libraries may start it."""
TURN_S = 0.2
"""Longest single wait, in seconds: a signal that comes just before a wait does not end it."""
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


def sees_gpu() -> bool:
    """Return whether this machine has a GPU's device file. Starts no driver."""
    return any(map(os.path.exists, GPU_FILES))


def forks() -> bool:
    """Return whether one process serves all cells by forking; elsewhere each cell is a new process."""
    return sys.platform == "linux" and not sees_gpu()


class CellServer:
    """A running process that serves cells. `environment` is added to its environment variables."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        # -P: a user's file with the name of a standard library module must not be imported in its place.
        arguments = [sys.executable, "-P", "-m", "adjudge", VERB]
        variables = {**os.environ, **environment, COMMAND: command()}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(arguments, stdin=pipe, stdout=pipe, text=True, encoding="utf-8", env=variables)
        self._cells: dict[int, RequestedCell] = {}
        self._lock = threading.Lock()
        self.ended = False
        """Whether its output has ended: it takes no more requests."""
        threading.Thread(target=self._read, daemon=True).start()

    def begin(self, request: Mapping[str, Any]) -> RequestedCell:
        """Ask for a cell. A server that has ended answers with its exit code."""
        with self._lock:
            cell = RequestedCell(self, len(self._cells))
            self._cells[cell.number] = cell
            if self.ended:
                cell.replies.put({})
            # The exit code of an ended process already gives the reason; ValueError: `stop` has closed the pipe.
            with contextlib.suppress(BrokenPipeError, ValueError):
                assert self.process.stdin is not None
                self.process.stdin.write(json.dumps({**request, "id": cell.number}) + "\n")
                self.process.stdin.flush()
        return cell

    def stop(self) -> None:
        """Let all cells finish their step and write a checkpoint, as they do without the requesting process."""
        assert self.process.stdin is not None
        with self._lock, contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if all(cell.pid is None for cell in self._cells.values()):  # it still imports: no cell has begun
            self.process.kill()

    def kill(self) -> None:
        """End all cells at once, and the server."""
        for cell in self._cells.values():
            if cell.code is None:
                send(KILL, cell.pid)
        self.process.kill()

    def end(self) -> None:
        """End the server and wait for it; its cells must have ended."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            reply = json.loads(line)
            self._cells[reply["id"]].replies.put(reply)
        with self._lock:
            self.ended = True
            for cell in self._cells.values():
                cell.replies.put({})


class RequestedCell:
    """A cell that was asked for: its process once it has begun, and its exit code."""

    def __init__(self, server: CellServer, number: int) -> None:
        self.number = number
        self.replies: queue.SimpleQueue[dict[str, int]] = queue.SimpleQueue()
        self.pid: int | None = None
        self.code: int | None = None
        self._server = server

    def exit_code(self, within_s: float | None = None) -> int:
        """Wait for the cell to end, and return its exit code. Raises queue.Empty when it does not end in time."""
        reply: dict[str, int] = {}
        if self.pid is None:
            self.pid = self._next(within_s).get("pid")
        if self.pid is not None:
            reply = self._next(within_s)
        self.code = reply.get("code")
        if self.code is None:
            self.code = self._server.process.wait()  # it was the cell itself, or was killed
            if self.pid != self._server.process.pid:
                send(KILL, self.pid)
        return self.code

    def _next(self, within_s: float | None) -> dict[str, int]:
        """Wait for a reply. Raises queue.Empty when none comes in time."""
        end = None if within_s is None else time.monotonic() + within_s
        while True:
            with contextlib.suppress(queue.Empty):
                return self.replies.get(timeout=TURN_S)
            if end is not None and time.monotonic() > end:
                raise queue.Empty

    def stop(self, within_s: float) -> None:
        """Let the cell finish its step and write a checkpoint.

        Ends it when it takes more than `within_s` seconds, or after Ctrl-C.
        """
        if self.pid is None:
            with contextlib.suppress(queue.Empty):
                self.pid = self.replies.get_nowait().get("pid")
        if self.pid is None:  # there is no cell yet
            return
        send(signal.SIGINT, self.pid)
        try:
            self.exit_code(within_s)
        except (queue.Empty, KeyboardInterrupt):
            send(KILL, self.pid)


def fork_for_each(stream: TextIO, reply: Callable[..., None]) -> dict[str, Any] | None:
    """Fork for each request in `stream`, and reply with process ids and exit codes.

    Returns the request in the forked processes, and None in the first process when the stream and all cells have ended.
    """
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)  # a handler, so that the signal wakes `select`
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    number_of: dict[int, int] = {}
    unread = b""
    sources = [stream.fileno(), ended]
    while stream.fileno() in sources or number_of:
        ready, _, _ = select.select(sources, [], [])
        if ended in ready:
            os.read(ended, 4096)
            for pid, code in _ended_children(number_of):
                reply(id=number_of.pop(pid), code=code)
        if stream.fileno() in ready:
            chunk = os.read(stream.fileno(), 2**16)
            if not chunk:
                sources.remove(stream.fileno())
            *lines, unread = (unread + chunk).split(b"\n")
            for line in lines:
                request: dict[str, Any] = json.loads(line)
                pid = os.fork()
                if pid == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    return request
                number_of[pid] = request["id"]
                reply(id=request["id"], pid=pid)
    return None


def _ended_children(pids: Mapping[int, int]) -> list[tuple[int, int]]:
    waited = [os.waitpid(pid, os.WNOHANG) for pid in pids]
    return [(pid, os.waitstatus_to_exitcode(status)) for pid, status in waited if pid]


def stop_with_stream(stream: TextIO) -> None:
    """Stop this process, a cell, as for Ctrl-C when the stream of requests ends. Returns at once."""
    threading.Thread(target=_stop_with, args=(stream.fileno(),), daemon=True).start()


def _stop_with(descriptor: int) -> None:
    if forks():  # the stream's requests are the server's to read: only wait for its other end to be closed
        poll = select.poll()
        poll.register(descriptor, 0)
        poll.poll()
    else:  # the bare descriptor: a thread waiting in a buffered reader would block the interpreter's shutdown
        while os.read(descriptor, 1024):
            pass
    os.kill(os.getpid(), signal.SIGINT)


def send(number: int, pid: int | None) -> None:
    """Send a signal to a process, if there is one."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
