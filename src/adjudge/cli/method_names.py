"""Names of methods for help texts, examples and messages, taken from the registry."""

from __future__ import annotations

from collections.abc import Sequence

from adjudge.methods.registry import GIVEN, METHODS, MULTI, adapter_names

TRAINED = [entry.name for entry in METHODS.values() if entry.trains]
UNTRAINED = [entry.name for entry in METHODS.values() if not entry.trains and entry.name != GIVEN]
"""Methods that prompt the model as it is."""
ADAPTERS = adapter_names()
STARTERS = ADAPTERS
"""Methods that can start from a finished run."""
JOINT = [f"{MULTI}{name}" for name in ADAPTERS]
"""Methods that train one adapter on several tasks."""

EXAMPLE = ADAPTERS[0]
"""A method for examples."""


def either(names: Sequence[str]) -> str:
    """Join names: ``a, b or c``."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def with_model(setting: str) -> list[str]:
    """Return the methods whose model is named by this setting."""
    return [entry.name for entry in METHODS.values() if entry.model == setting]
