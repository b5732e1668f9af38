"""Ctrl-C and SIGTERM while training: finish the step and write a checkpoint before the run ends."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from adjudge.errors import Terminated
from adjudge.system.console import note
from adjudge.system.parallel import any_of

SAME_STOP_S = 1.0
"""Signals this soon after the first are the same request: at a terminal, a comparison's cell gets Ctrl-C twice."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """A request to stop after the current step, made by Ctrl-C or SIGTERM.

    `raise_if_requested` honours the first signal after the step. A second, later signal stops the run at once.

    Outside the main thread signals cannot be caught, so it does nothing there.
    """

    def __init__(self) -> None:
        self._signal: int | None = None
        """The first signal of this process."""
        self._agreed: int | None = None
        """The signal that all processes stop for."""
        self._at = 0.0
        self._handlers_before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._handlers_before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)

    @property
    def requested(self) -> bool:
        """True if the run should end after this step."""
        return self._agreed is not None

    def agree(self) -> None:
        """Request a stop in every process when one of them has a request."""
        self._agreed = any_of(self._signal or 0) or None
        if self._agreed is not None and self._signal is None:  # a signal to this process soon after is the same request
            self._signal, self._at = self._agreed, time.monotonic()

    def raise_if_requested(self) -> None:
        """Raise KeyboardInterrupt after Ctrl-C, Terminated (a KeyboardInterrupt too) after SIGTERM."""
        if self._agreed is not None:
            raise _error_of(self._agreed)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal, self._at = number, time.monotonic()
            note("stopping after this step and its checkpoint; a second signal stops at once.")
        elif time.monotonic() - self._at > SAME_STOP_S:
            raise _error_of(number)


def _error_of(number: int) -> KeyboardInterrupt:
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()
