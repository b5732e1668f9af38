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
        send_rows,
        train,
    )
    from adjudge.comparison import Comparison, Search, compare, tune

__all__ = [
    "Comparison",
    "FinishedRun",
    "Search",
    "__version__",
    "compare",
    "evaluate",
    "infer_task",
    "load_policy",
    "load_split",
    "load_task",
    "open_judge",
    "open_run",
    "send_rows",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import the chain when it is first used: ``import adjudge`` alone stays light."""
    if name not in __all__:
        raise AttributeError(f"module 'adjudge' has no attribute '{name}'")
    if name in ("Comparison", "Search", "compare", "tune"):
        from adjudge import comparison as module
    else:
        from adjudge import api as module  # type: ignore[no-redef]
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
