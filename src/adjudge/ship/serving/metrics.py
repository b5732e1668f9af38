"""Counts of what a server did, in the text format of Prometheus."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping

BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper ends of the histogram's buckets."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters that only grow, and a histogram of the seconds per request.

    They are safe to use from several threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, dict[_Labels, float]] = {name: defaultdict(float) for name in _HELP}
        self._buckets: dict[str, list[int]] = {}

    def requested(self, route: str, status: int, seconds: float) -> None:
        """Count an answered request."""
        with self._lock:
            self._counts["adjudge_requests_total"][("route", route), ("status", str(status))] += 1
            self._counts["adjudge_request_seconds_sum"][(("route", route),)] += seconds
            buckets = self._buckets.setdefault(route, [0] * (len(BOUNDS_S) + 1))
            buckets[next((index for index, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))] += 1

    def judged(self, model: str, rows: int, unreadable: int, seconds: float) -> None:
        """Count a judged batch."""
        labels = (("model", model),)
        with self._lock:
            self._counts["adjudge_rows_total"][labels] += rows
            self._counts["adjudge_unreadable_total"][labels] += unreadable
            self._counts["adjudge_batches_total"][labels] += 1
            self._counts["adjudge_judging_seconds_total"][labels] += seconds

    def text(self, waiting: Mapping[str, int], open_requests: int) -> str:
        """Return all figures; `waiting` is the number of rows that wait for each model."""
        with self._lock:
            lines: list[str] = []
            for name, meaning in _HELP.items():
                if name != "adjudge_request_seconds_sum":
                    lines += [f"# HELP {name} {meaning}", f"# TYPE {name} counter"]
                    lines += [_line(name, labels, value) for labels, value in sorted(self._counts[name].items())]
            lines += self._histogram()
        lines += ["# HELP adjudge_waiting_rows Rows that wait to be judged.", "# TYPE adjudge_waiting_rows gauge"]
        lines += [_line("adjudge_waiting_rows", (("model", name),), rows) for name, rows in waiting.items()]
        lines += ["# HELP adjudge_open_requests Requests without an answer yet.", "# TYPE adjudge_open_requests gauge"]
        return "\n".join([*lines, _line("adjudge_open_requests", (), open_requests)]) + "\n"

    def _histogram(self) -> list[str]:
        name = "adjudge_request_seconds"
        lines = [f"# HELP {name} Seconds from a request to its answer.", f"# TYPE {name} histogram"]
        for route, buckets in sorted(self._buckets.items()):
            labels, total = (("route", route),), 0
            for bound, count in zip([*map(str, BOUNDS_S), "+Inf"], buckets, strict=True):
                total += count
                lines.append(_line(f"{name}_bucket", (*labels, ("le", bound)), total))
            lines.append(_line(f"{name}_sum", labels, self._counts[f"{name}_sum"][labels]))
            lines.append(_line(f"{name}_count", labels, total))
        return lines


_HELP = {
    "adjudge_requests_total": "Requests by route and status.",
    "adjudge_request_seconds_sum": "",
    "adjudge_rows_total": "Rows judged.",
    "adjudge_unreadable_total": "Rows whose answer was unreadable.",
    "adjudge_batches_total": "Passes in which rows were judged together.",
    "adjudge_judging_seconds_total": "Seconds of judging.",
}


def _line(name: str, labels: _Labels, value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
    return f"{name}{{{shown}}} {value:.10g}" if shown else f"{name} {value:.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
