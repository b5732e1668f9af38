"""Draw what the logs of some runs show, step by step, into one picture.

    python -m benchmarks.curves RUN RUN --names "kl 0.05" "kl 1" --out docs/images/collapse.svg

Steps of a warm start have a loss and no entropy; their lines begin after it.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from adjudge.runs.folder import read_jsonl
from adjudge.system.files import write_text
from benchmarks.pictures import Panel, picture

FIGURES = {
    "right": "right answers, share of a batch",
    "label_entropy": "entropy of a batch's answers, nats",
    "entropy": "entropy per token, nats",
    "kl": "KL to the reference, nats",
}
"""The fields of `metrics.jsonl` that are drawn, and their titles."""
SMOOTHED = 4
"""Steps that a point is the mean of: a batch of 16 rows is noisy."""


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--names", nargs="+", help="their names in the picture; default: their folders'")
    parser.add_argument("--figures", default=",".join(FIGURES), help="fields of metrics.jsonl (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the SVG file")
    given = parser.parse_args()
    names = given.names or [run.name for run in given.runs]
    if len(names) != len(given.runs):
        parser.error(f"there are {len(given.runs)} runs and {len(names)} names")
    logs = {name: list(read_jsonl(run / "metrics.jsonl")) for name, run in zip(names, given.runs, strict=True)}
    panels = [
        Panel(FIGURES.get(field, field), {name: curve(log, field) for name, log in logs.items()}, "step", y_least=0.0)
        for field in given.figures.split(",")
    ]
    write_text(given.out, picture(panels))
    print(f"drawn: {given.out}")


def curve(log: list[dict[str, Any]], field: str) -> list[tuple[float, float]]:
    """Return a field's means over `SMOOTHED` steps, each at the last of them; steps without the field have none."""
    values = [(float(record["step"]), float(record[field])) for record in log if record.get(field) is not None]
    means = []
    for end in range(1, len(values) + 1):
        window = values[max(0, end - SMOOTHED) : end]
        means.append((values[end - 1][0], sum(value for _, value in window) / len(window)))
    return means


if __name__ == "__main__":
    main()
