"""Every error a user can cause, each saying what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdjudgeError(Exception):
    """Base of our own errors: the command line prints the message and no traceback."""


class ConfigError(AdjudgeError):
    """A setting, preset or override that does not exist or does not fit."""


class TaskError(AdjudgeError):
    """A task that is unknown, or a task file with mistakes."""


class DataError(AdjudgeError):
    """A data file, row or field that cannot be read as the task says. Names file, line and field."""


class ModelError(AdjudgeError):
    """A model that cannot be loaded, or cannot do what is asked of it."""


class RunError(AdjudgeError):
    """A run folder that is missing, incomplete, damaged, or belongs to another configuration."""


class NotFiniteError(AdjudgeError):
    """A loss, reward, gradient or weight that is not finite; raised before the update is made."""


class GuardError(AdjudgeError):
    """Training that was stopped because it goes wrong in a way that `guard.stop_on` names."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is KeyboardInterrupt: what runs is put in order and ends."""


def nearest(wrong: str, right: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of `right`, or a list of what there is.

    Begins with a space, so that it can be added to the end of a sentence.
    """
    options = [str(option) for option in right]
    close = difflib.get_close_matches(str(wrong), options, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" There is: {', '.join(options)}." if options else " There is none."
