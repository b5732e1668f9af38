"""An update that fails: its gradient is not finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from adjudge.errors import NotFiniteError
from adjudge.training import updates


@contextmanager
def spoilt_update(number: int, step: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Spoil a run's update of this number, counted from 1, and expect the error that names its step."""
    real, left = updates.clip_gradients, [number]

    def spoilt(parameters: Any, limit: float | None) -> float:
        left[0] -= 1
        if left[0] == 0:
            raise NotFiniteError("the gradient is not finite")
        return real(parameters, limit)

    with monkeypatch.context() as patch:
        patch.setattr(updates, "clip_gradients", spoilt)
        with pytest.raises(NotFiniteError, match=f"Step {step}:"):
            yield
