"""Seconds of named stages, collected without handing a stopwatch through every call."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

_Result = TypeVar("_Result")
_collected: ContextVar[dict[str, float] | None] = ContextVar("stages", default=None)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Add the seconds of this block to `name` of the `collect_stages` around it. Without one, do nothing."""
    seconds = _collected.get()
    began = time.perf_counter()
    yield
    if seconds is not None:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began


@contextmanager
def collect_stages() -> Iterator[dict[str, float]]:
    """Yield a dict which fills with the seconds of each `stage` inside this block."""
    seconds: dict[str, float] = {}
    token = _collected.set(seconds)
    try:
        yield seconds
    finally:
        _collected.reset(token)


def timed(action: Callable[[], _Result]) -> tuple[_Result, float]:
    """Return the result of an action and the seconds it took."""
    began = time.perf_counter()
    result = action()
    return result, time.perf_counter() - began
