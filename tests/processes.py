"""Run `adjudge` in processes of its own which share one import of PyTorch and its kin.

A server process, one per test worker, imports the libraries and then only forks. Each command is one fork: a real
process with its own signals, exit code, output files and environment. It starts in milliseconds, not in seconds.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import unsynced  # noqa: F401

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(
    [
        *("torch", "peft", "transformers.models.llama.modeling_llama", "scipy.stats", "sklearn.metrics"),
        *("adjudge.cli.main", "adjudge.experiments.execute", "adjudge.evaluation.score"),
        *("adjudge.methods.sft", "adjudge.methods.ppo", "adjudge.report.html"),
    ]
)


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command left: its exit code (minus the signal's number when one killed it) and its output."""

    returncode: int
    stdout: str
    stderr: str


class Started:
    """A running command; as a context manager it is killed at the end."""

    def __init__(self, program: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._output = tempfile.TemporaryDirectory()
        folder = Path(self._output.name)
        self._files = (folder / "stdout", folder / "stderr")
        self._process = _SERVER.Process(
            target=_run,
            args=(program, arguments, {**os.environ, **environment}, str(Path.cwd()), *map(str, self._files)),
        )
        self._process.start()

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self._process.is_alive()

    @property
    def stderr(self) -> str:
        """What was written to stderr so far."""
        return self._files[1].read_text(encoding="utf-8") if self._files[1].is_file() else ""

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the command and all of its processes, as a scheduler does. It must be a `fresh` one."""
        assert self._process.pid is not None
        os.killpg(self._process.pid, number)

    def wait(self, within_s: float = 200.0) -> Finished:
        """Return what the command left, or fail when it does not end in time."""
        self._process.join(within_s)
        code = self._process.exitcode
        assert code is not None, f"still running after {within_s:.0f} s: {self.stderr}"
        return Finished(code, *(file.read_text(encoding="utf-8") for file in self._files))


def start(*arguments: object, fresh: bool = False, **environment: str) -> Started:
    """Start ``adjudge ARGUMENTS`` with changes to the environment.

    The process that serves a comparison's cells is a fork, too; with `fresh` it is a new interpreter, as for a user.
    """
    program = "adjudge.cli.main" if fresh else "forked_cells"
    return Started(program, tuple(map(str, arguments)), environment)


def adjudge(*arguments: object, code: int = 0, fresh: bool = False, **environment: str) -> Finished:
    """Run ``adjudge ARGUMENTS``; fail unless it ends with this exit code and without a traceback."""
    with start(*arguments, fresh=fresh, **environment) as process:
        finished = process.wait()
    assert finished.returncode == code, finished.stdout + finished.stderr
    assert "Traceback" not in finished.stderr, finished.stderr
    return finished


def run_program(module: str, *arguments: object, within_s: float = 280.0, **environment: str) -> str:
    """Run the `main` of a module beside the tests, and return its output; fail unless it ends with 0."""
    process = Started(module, tuple(map(str, arguments)), environment)
    with process:
        finished = process.wait(within_s)
    assert finished.returncode == 0, finished.stdout + finished.stderr[-4000:]
    return finished.stdout


def wait_for(happened: Callable[[], object], within_s: float) -> None:
    """Return when something has happened, or when the time is over."""
    end = time.monotonic() + within_s
    while not happened() and time.monotonic() < end:
        time.sleep(0.005)


def _run(program: str, arguments: tuple[str, ...], environment: dict[str, str], folder: str, *files: str) -> None:
    from tqdm import tqdm

    for descriptor, file in enumerate(files, 1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), descriptor)
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    # tqdm's own lock is shared by all forks: a command killed while holding it would block the later ones.
    tqdm.set_lock(threading.RLock())
    gc.freeze()  # looking through what was there before the fork would copy its memory
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a job that a shell started with "&"
    if program != "forked_cells" and hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    name = "adjudge" if program == "forked_cells" else program.split(".", maxsplit=1)[0]
    sys.argv = [name, *arguments]
    importlib.import_module(program).main()
