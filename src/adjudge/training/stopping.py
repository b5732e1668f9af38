"""Ctrl-C and SIGTERM while training: the step is finished and a checkpoint written before the run ends."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from adjudge.errors import Terminated
from adjudge.system.console import note

SAME_STOP_S = 1.0
"""Signals so soon after the first are the same wish: at a terminal, a comparison's cell gets Ctrl-C from there and from the comparison."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Within its block the first Ctrl-C or SIGTERM is a wish that `check` grants; a second one, later, stops at once.

    Outside the main thread, where signals cannot be caught, it does nothing.
    """

    def __init__(self) -> None:
        self._wish: int | None = None
        self._at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._wished) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def wished(self) -> bool:
        """Whether the run should end after this step."""
        return self._wish is not None

    def grant(self) -> None:
        """End the run: raises KeyboardInterrupt after Ctrl-C, Terminated (which is one) after SIGTERM."""
        if self._wish is not None:
            raise _error(self._wish)

    def _wished(self, number: int, _frame: FrameType | None) -> None:
        if self._wish is None:
            self._wish, self._at = number, time.monotonic()
            note("stopping: this step is finished and a checkpoint written first; once more stops at once.")
        elif time.monotonic() - self._at > SAME_STOP_S:
            raise _error(number)


def _error(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
