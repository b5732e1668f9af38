"""adjudge: make a decoder-only language model judge text, and show fairly how well it does."""

from typing import TYPE_CHECKING, Any

from adjudge.version import __version__

if TYPE_CHECKING:
    from adjudge.api import (
        FinishedRun,
        evaluate,
        infer_task,
        load_policy,
        load_split,
        load_task,
        open_judge,
        open_run,
        train,
    )

__all__ = [
    "FinishedRun",
    "__version__",
    "evaluate",
    "infer_task",
    "load_policy",
    "load_split",
    "load_task",
    "open_judge",
    "open_run",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import the chain when it is first used: ``import adjudge`` alone stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'adjudge' has no attribute '{name}'")
    from adjudge import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
