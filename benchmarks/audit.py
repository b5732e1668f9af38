"""Plant label errors, audit the rows with several judges, and count how many errors come first in the ranking.

Every judge of the table is the method ``linear`` on other vectors. The vectors of a row are computed once and kept for
all of its folds, so that the whole table takes minutes. Finished folds are reused when the same command is given again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from adjudge.config import load_config
from adjudge.experiments.audit import audit
from adjudge.experiments.execute import execute
from adjudge.methods.floors import linear
from adjudge.runs.folder import Run
from adjudge.system.console import note
from adjudge.tasks import load_task
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

JUDGES: dict[str, dict[str, Any]] = {
    "encoder": {"linear.states": "encoder"},
    "last layer": {"linear.states": "policy"},
    "middle layer": {"linear.states": "policy", "linear.layer": "middle"},
    "middle layer and encoder": {"linear.states": "both", "linear.layer": "middle"},
}


def main() -> None:
    """Run the audits that are missing, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="glue/sst2", help="tasks, with commas")
    parser.add_argument("--data-dir", help="folder with GLUE in the official download layout")
    parser.add_argument("--rows", type=int, default=800, help="rows drawn by each seed")
    parser.add_argument("--plant", type=float, default=0.05, help="share of the rows whose labels are changed")
    parser.add_argument("--seeds", default="10,11,12")
    parser.add_argument("--out", default="runs/bench/audit", help="folder of the audits")
    options = parser.parse_args()
    for name in ("_policy_features", "_encoder_features"):
        setattr(linear, name, kept_vectors(getattr(linear, name)))
    seeds = [int(seed) for seed in options.seeds.split(",")]
    results: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for task in options.task.split(","):
        for seed in seeds:  # the vectors of a seed's rows are kept for all judges
            for judge, settings in JUDGES.items():
                values = {"data.data_dir": options.data_dir, "seed": seed, "evaluation.resamples": 100, **settings}
                folder = Path(options.out) / task.replace("/", "-") / judge.replace(" ", "-") / f"seed-{seed}"
                config = load_config(values=values)
                found = audit(
                    config, load_task(task), "linear", folder, rows=options.rows, plant=options.plant, runner=execute
                )
                results.setdefault((task, judge), []).append(found)
                note(f"{task} {judge} seed {seed}: {found['planted']['among_first']} of {found['planted']['rows']}")
    print("\n".join(table_lines(results, seeds)))


def kept_vectors(make: Callable[[Run], Callable[[TaskSpec], linear.Features]]) -> Any:
    """Return `make` with a memory: the vectors of a row, by the settings that decide them."""
    kept: dict[Any, dict[Any, Any]] = {}

    def with_memory(run: Run) -> Callable[[TaskSpec], linear.Features]:
        compute = make(run)
        of_settings = kept.setdefault(run.config.linear.layer, {})

        def of_task(spec: TaskSpec) -> linear.Features:
            def features(rows: Sequence[Example], done: Callable[[int], None]) -> Any:
                keys = [(spec.name, *row.fields.values()) for row in rows]
                missing = {key: row for key, row in zip(keys, rows, strict=True) if key not in of_settings}
                if missing:
                    vectors = compute(spec)(list(missing.values()), done)
                    of_settings.update(zip(missing, vectors, strict=True))
                return np.stack([of_settings[key] for key in keys])

            return features

        return of_task

    return with_memory


def table_lines(results: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]], seeds: Sequence[int]) -> list[str]:
    """Return a table in Markdown: of the planted errors, the share among the first tenth of the ranking."""
    lines = [
        f"| task | judge | {' | '.join(f'seed {seed}' for seed in seeds)} | mean | suspicious | judged as labelled |",
        f"| --- | --- |{' --: |' * (len(seeds) + 3)}",
    ]
    for (task, judge), found in results.items():
        planted = [each["planted"] for each in found]
        firsts = [each["among_first"] / each["rows"] for each in planted]
        suspicious = fmean(each["suspicious"] / each["rows"] for each in planted)
        figures = [*firsts, fmean(firsts), suspicious, fmean(each["right"] for each in found)]
        lines.append(f"| {task} | {judge} | {' | '.join(f'{figure:.0%}' for figure in figures)} |")
    return lines


if __name__ == "__main__":
    main()
