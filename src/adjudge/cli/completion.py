"""What the shell may complete: methods, tasks and settings."""

from __future__ import annotations


def complete_method(incomplete: str) -> list[str]:
    """Return the methods that begin like this, for the shell."""
    from adjudge.methods.registry import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


def complete_tasks(incomplete: str) -> list[str]:
    """Return the tasks that begin like the last of these, for the shell; the ones before it stay."""
    from adjudge.tasks import list_tasks

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in list_tasks() if name.startswith(last)]


def complete_setting(incomplete: str) -> list[str]:
    """Return the settings that begin like this, for the shell."""
    from adjudge.config import keys_of

    return [f"{key}=" for key in keys_of() if key.startswith(incomplete)]
