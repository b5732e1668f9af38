"""The process of one tracker: it follows the logs of a run folder and sends what is new.

`adjudge.runs.tracking` starts it with ``python -m adjudge.runs.trackers.follow`` and writes lines of JSON to its
standard input; it answers on standard output. Whatever the tracker's library prints goes to tracking/NAME.log. It reads
what to follow and how to name it, then {"logs": true} as soon as there are logs, then {"state": …, "files": […]}. The
end of the input without that last line means that the run was killed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock

from adjudge.runs.trackers.adapters import ADAPTERS, Adapter, TrackedRun
from adjudge.runs.trackers.steps import StepReader, flat_settings, score_figures
from adjudge.system.yaml_text import read_yaml

EVERY_S = 0.5
"""Seconds between two looks at the logs."""
LAST_S = 600.0
"""Seconds after the run's end at which a tracker that is still sending is given up."""
LOCK_S = 60.0
"""Seconds to wait for the process that sends the last steps of the killed run which this one resumes."""
KILLED = {"state": "killed", "files": []}


def main() -> None:
    """Follow one run for one tracker, as standard input says."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    requests = os.fdopen(os.dup(0), encoding="utf-8")
    os.dup2(2, 1)  # what a tracker prints must not be taken for a reply
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # and no tracker may ask for a key here

    def reply(**message: Any) -> None:
        with contextlib.suppress(OSError):  # the run's process is gone
            print(json.dumps(message), file=replies, flush=True)

    request = json.loads(requests.readline() or "{}")
    if not request:
        return
    messages: queue.SimpleQueue[Mapping[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, messages), daemon=True).start()
    try:
        follow(request, messages, reply)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        reply(warning=_reason(request["tracker"], error))
    reply(done=True)
    sys.stderr.flush()
    os._exit(0)  # without the exit handlers of the tracker: they may wait for a network that is gone


def follow(request: Mapping[str, Any], messages: queue.SimpleQueue[Any], reply: Callable[..., None]) -> None:
    """Open the tracker, send every step once, then the scores. Raises whatever the tracker raises."""
    folder, name = Path(request["folder"]), request["tracker"]
    with FileLock(folder / "tracking" / f".{name}.lock", timeout=LOCK_S):
        memory = Memory(folder / "tracking" / f"{name}.json", resumed=request["resumed"])
        tree = read_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
        tracked = TrackedRun(
            folder=folder,
            id=memory.id,
            resumed=memory.resumed,
            project=request["project"],
            name=request["run_name"],
            group=request["group"],
            settings=flat_settings({key: value for key, value in tree.items() if key not in request["unread"]}),
        )
        adapter = ADAPTERS[name](tracked)
        held = adapter.last_step()
        last = memory.last_step if held is None else held
        if where := adapter.where():
            reply(note=f"reporting to {where}")
        sender = _Sender(adapter, memory, last)
        message = messages.get()
        reader, begun = StepReader(folder), "logs" in message
        while message.get("logs"):
            sender.send(reader.complete())
            with contextlib.suppress(queue.Empty):
                message = messages.get(timeout=EVERY_S)
        if begun or message["state"] == "complete":  # else the run to resume ended before its logs were cut back
            sender.send(reader.rest())
        path = folder / "scores.json"
        finished = message["state"] == "complete" and path.is_file()
        scores = score_figures(json.loads(path.read_text(encoding="utf-8"))) if finished else {}
        files = [Path(file) for file in message["files"] if Path(file).is_file()]
        adapter.end(sender.last, scores, files, message["state"])


class _Sender:
    """Sends the steps that the tracker lacks, and remembers them once they are delivered."""

    def __init__(self, adapter: Adapter, memory: Memory, last: int) -> None:
        self._adapter, self._memory, self.last = adapter, memory, last

    def send(self, steps: list[tuple[int, dict[str, float]]]) -> None:
        """Send steps in order."""
        new = [(step, figures) for step, figures in steps if step > self.last]
        for step, figures in new:
            self._adapter.step(step, figures)
        if new:
            self._adapter.flush()
            self.last = new[-1][0]
            self._memory.remember(self.last)


class Memory:
    """The tracked run's id and the last step sent, in a file of the run folder for a resumed run."""

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self._path, self.resumed = path, resumed and path.is_file()
        record = json.loads(path.read_text(encoding="utf-8")) if self.resumed else {}
        self.id: str = record.get("id") or secrets.token_hex(4)
        self.last_step: int = record.get("step", 0)
        if not self.resumed:
            self.remember(0)

    def remember(self, step: int) -> None:
        """Write the last step sent."""
        aside = self._path.with_suffix(".tmp")
        aside.write_text(json.dumps({"id": self.id, "step": step}) + "\n", encoding="utf-8")
        aside.replace(self._path)


def _listen(requests: TextIO, messages: queue.SimpleQueue[Mapping[str, Any]]) -> None:
    ended = False
    for line in requests:
        message = json.loads(line)
        ended = ended or "state" in message
        messages.put(message)
    if not ended:
        messages.put(KILLED)
    last_resort = threading.Timer(LAST_S, os._exit, (1,))
    last_resort.daemon = True
    last_resort.start()


def _reason(name: str, error: BaseException) -> str:
    """Return one line for the user: what to install, or what the tracker said."""
    if isinstance(error, ImportError):
        return f"cannot be imported ({error}); install it with: pip install 'adjudge[trackers]'"
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"


if __name__ == "__main__":
    main()
