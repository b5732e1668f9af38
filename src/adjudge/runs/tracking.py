"""Report a run to experiment trackers without letting them touch it.

Each tracker lives in a process of its own (`adjudge.runs.trackers.follow`), which reads the run folder's logs and sends
what is new. The run therefore draws the same random numbers, needs the same memory and waits for nobody, whatever a
tracker does: fail, hang, print or crash. The run only says three things to that process, each one short line: where
the folder is, that the logs have begun, and how the run ended. Where it says nothing more, it was killed.

metrics.jsonl stays the truth. What a tracker already has is not sent again after ``--resume``; what it lacks is.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from adjudge.system.console import note, warn

FOLDER = "tracking"
"""The folder in a run folder with the trackers' state and the output of their processes."""

WAIT_S, STOPPED_WAIT_S = 30.0, 5.0
"""Time that a complete or a stopped run waits for its trackers. They go on alone for up to `follow.LAST_S`."""


class Tracking:
    """The trackers of one run. No method raises: a tracker that fails is a warning."""

    def __init__(
        self,
        folder: Path,
        names: Iterable[str],
        *,
        project: str | None,
        run_name: str,
        group: str,
        resumed: bool = False,
        unread: Sequence[str] = (),
    ) -> None:
        """Start a process per tracker. Settings of the groups `unread` are not reported."""
        self._followers: list[_Follower] = []
        self._begun = False
        request = {
            "folder": str(folder.resolve()),
            "project": project,
            "run_name": run_name,
            "group": group,
            "resumed": resumed,
            "unread": list(unread),
        }
        for name in names:
            try:
                (folder / FOLDER).mkdir(exist_ok=True)
                self._followers.append(_Follower(name, folder, request))
            except OSError as error:
                _warn_of(name, str(error))

    def logged(self) -> None:
        """Say that the logs have begun. A resumed run has cut them back by then."""
        if not self._begun:
            self._begun = True
            self._tell({"logs": True})

    def end(self, state: str, files: Sequence[Path] = ()) -> None:
        """Say how the run ended, and wait for the trackers.

        The wait is up to `WAIT_S`, or `STOPPED_WAIT_S` if the run was stopped. `files` are kept by trackers that keep
        files.
        """
        self._tell({"state": state, "files": [str(path.resolve()) for path in files]})
        until = time.monotonic() + (WAIT_S if state == "complete" else STOPPED_WAIT_S)
        for follower in self._followers:
            follower.close(max(0.0, until - time.monotonic()))

    def _tell(self, message: dict[str, Any]) -> None:
        for follower in self._followers:
            follower.tell(message)


class _Follower:
    """One tracker's process, and the thread that passes its messages to the user."""

    def __init__(self, name: str, folder: Path, request: dict[str, Any]) -> None:
        self._name, self._log = name, folder / FOLDER / f"{name}.log"
        pipe = subprocess.PIPE
        # A session of its own: Ctrl-C at a terminal is for the run, which then says how it ended.
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "adjudge.runs.trackers.follow"],
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        self._told = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.tell({"tracker": name, **request})

    def tell(self, message: dict[str, Any]) -> None:
        """Write one line. A pipe holds far more than the three lines of a run, so this never waits."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended; `_read` says so
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def close(self, wait_s: float) -> None:
        """Wait for the process to end; leave it to itself, with a warning, when it does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.close()
        self._reader.join(wait_s)
        if self._reader.is_alive():
            self._warn("is slow; it goes on sending in the background while the run is done")

    def _read(self) -> None:
        assert self._process.stdout is not None
        done = False
        for line in self._process.stdout:
            message = json.loads(line)
            if "note" in message:
                note(f"{self._name}: {message['note']}")
            if "warning" in message:
                self._warn(message["warning"])
            done = done or "done" in message
        self._process.wait()
        if not done:
            self._warn("ended without a word")

    def _warn(self, reason: str) -> None:
        if not self._told:
            self._told = True
            _warn_of(self._name, f"{reason} (details: {self._log})")


def _warn_of(name: str, reason: str) -> None:
    warn(f"tracker {name}: {reason}. The run is not affected.")
