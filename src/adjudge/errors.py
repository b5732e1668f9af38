"""The errors a user can cause. Each message says what was wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AdjudgeError(Exception):
    """Base class of our errors; the command line prints the message without a traceback."""


class ConfigError(AdjudgeError):
    """A setting, preset or override that does not exist or does not fit."""


class TaskError(AdjudgeError):
    """A task that is unknown, or a task file with mistakes."""


class DataError(AdjudgeError):
    """A data file, row or field that does not fit the task. The message names file, line and field."""


class ModelError(AdjudgeError):
    """A model that cannot be loaded, or cannot be used as requested."""


class RunError(AdjudgeError):
    """A run folder that is missing, incomplete, damaged, or belongs to another configuration."""


class NotFiniteError(AdjudgeError):
    """A loss, reward, gradient or weight that is not finite; raised before the update."""


class RewardError(AdjudgeError):
    """A reward function that failed; raised before the update."""


class GuardError(AdjudgeError):
    """Training that was stopped by a guard listed in `guard.stop_on`."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, handled like Ctrl-C: the current work is left in order and the program ends."""


def nearest(wrong: str, right: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest of `right`, or a list of all of them.

    The text begins with a space, so it can follow a sentence.
    """
    options = [str(option) for option in right]
    close = difflib.get_close_matches(str(wrong), options, n=1, cutoff=0.5)
    if close:
        return f" Did you mean '{close[0]}'?"
    return f" There is: {', '.join(options)}." if options else " There is none."
