"""The table of a comparison: table.json and table.md from the finished cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from adjudge.experiments.cells import Cell, Result, has_scores, is_finished
from adjudge.runs.folder import Run
from adjudge.system.files import write_json, write_text
from adjudge.system.memory import PEAKS
from adjudge.version import __version__

SCHEMA = 1


def write_table(
    cells: Sequence[Cell], out: Path, failed: Mapping[Path, str], command: str, *, whole: bool = False
) -> dict[str, Any]:
    """Write table.json and table.md from the finished cells.

    With `whole`, also write intervals over seeds and paired tests.
    """
    from adjudge.report.markdown import comparison_markdown
    from adjudge.report.suites import suite_scores

    finished = [
        cell for cell in cells if cell.folder not in failed and has_scores(cell) and is_finished(cell, force=True)
    ]
    tasks = list(dict.fromkeys(spec.name for cell in cells for spec in cell.specs))
    results = [result for cell in finished for result in cell.results()]
    results.sort(key=lambda result: tasks.index(result.spec.name))
    table: dict[str, Any] = {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": [
            {**Run.open(result.folder).scores(), "run": result.folder.relative_to(out).as_posix()} for result in results
        ],
        "summary": summaries(results) if whole else [],
        "tests": paired_tests(results) if whole else [],
        "failed": [{**_named(cell, out), "reason": failed[cell.folder]} for cell in cells if cell.folder in failed],
        "unfinished": len(cells) - len(finished) - len(failed),
        "pending": [_named(cell, out) for cell in cells if cell.folder not in failed and cell not in finished],
    }
    table["suites"] = [asdict(scores) for scored in suite_scores(table) for scores in scored]
    write_json(out / "table.json", table)
    write_text(out / "table.md", comparison_markdown(table))
    return table


def summaries(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return one entry per task and method, with means over its seeds.

    Metrics have the interval of the mean, with units resampled.
    """
    from adjudge.evaluation.diagnostics import diagnose
    from adjudge.evaluation.statistics import align_runs, metric_interval

    entries = []
    for seeds in _by_method(results).values():
        config, spec = seeds[0].config, seeds[0].spec
        aligned = align_runs(spec, [result.predictions() for result in seeds])
        resamples = config.evaluation.resamples
        scores = [Run.open(result.folder).scores() for result in seeds]
        phenomena = diagnose(spec, aligned, resamples=resamples)
        entries.append(
            {
                "task": spec.name,
                "method": seeds[0].method,
                "model": config.model,
                "seeds": [result.config.seed for result in seeds],
                "n": scores[0]["n"],
                "train_rows": scores[0]["train_rows"],
                "primary": spec.primary,
                "metrics": {name: metric_interval(spec, name, aligned, resamples, 0) for name in spec.metrics},
                "unreadable": fmean(item["unreadable"] for item in scores),
                "seconds": {name: fmean(item["seconds"][name] for item in scores) for name in ("train", "evaluate")},
                "prompts_per_s": fmean(item["prompts_per_s"] for item in scores),
                **{name: max(peaks) for name in PEAKS if (peaks := [item[name] for item in scores if name in item])},
                **({"diagnostics": phenomena} if phenomena else {}),
            }
        )
    return entries


def paired_tests(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return the paired tests between all methods of each task on its primary metric.

    They are corrected with Holm over the whole table.
    """
    from adjudge.evaluation.statistics import compare_methods

    runs = {key: [result.predictions() for result in seeds] for key, seeds in _by_method(results).items()}
    specs = list({result.spec.name: result.spec for result in results}.values())
    resamples = max((result.config.evaluation.resamples for result in results), default=0)
    return compare_methods(specs, runs, resamples=resamples)


def _by_method(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """Return the results by task and method, one per seed."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.spec.name, result.method), []).append(result)
    return groups


def _named(cell: Cell, out: Path) -> dict[str, Any]:
    run = cell.folder.relative_to(out).as_posix()
    return {"task": cell.config.task, "method": cell.method, "seed": cell.config.seed, "run": run}
