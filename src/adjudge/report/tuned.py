"""What a search of settings found, for the terminal and tuned.md. Input is the mapping of tuned.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adjudge.report.markdown import aligned
from adjudge.report.terminal import Fitted, text_table

HEAD = ("method", "trials", "default", "best")


def tuned_cells(tuned: Mapping[str, Any]) -> list[list[str]]:
    """Return a line per method: its trials, and what the default and the best settings reached."""
    lines = []
    for name, result in tuned["methods"].items():
        failed = f" ({result['failed']} failed)" if result.get("failed") else ""
        lines.append([name, f"{result['trials']}{failed}", _figure(result.get("default")), _figure(result.get("best"))])
    return lines


def tuned_table(tuned: Mapping[str, Any]) -> Fitted:
    """Return the table for the terminal."""
    return text_table(list(HEAD), tuned_cells(tuned))


def tuned_lines(tuned: Mapping[str, Any]) -> list[str]:
    """Return the sentences below the table: the best settings of each method, and what the figures are."""
    return [
        *(f"{name}: {_found(result)}" for name, result in tuned["methods"].items()),
        f"{tuned['metric']} on {tuned['hold_out']:,} held-out training rows of {tuned['task']}, after training on "
        f"{tuned['train_rows']:,} others, seed {tuned['seed']}",
        "the best of several flatters itself: adjudge compare --tuned DIR judges it on rows it was not chosen on",
    ]


def tuned_markdown(tuned: Mapping[str, Any]) -> str:
    """Return tuned.md. Ends with a newline."""
    bullets = [f"- {line}" for line in tuned_lines(tuned)]
    return "\n".join([*aligned(HEAD, tuned_cells(tuned), left=HEAD[:1]), "", *bullets, ""])


def _found(result: Mapping[str, Any]) -> str:
    if result.get("failed") and result["failed"] == result["trials"]:
        return "every trial failed; nothing was found"
    return _listed(result["settings"])


def _listed(settings: Mapping[str, Any]) -> str:
    shown = (f"{key}={f'{value:.3g}' if isinstance(value, float) else value}" for key, value in settings.items())
    return " ".join(shown) or "nothing to search; compared as it is"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
