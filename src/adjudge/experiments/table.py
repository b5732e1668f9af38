"""The table of a comparison: table.json and table.md from the finished cells."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

from adjudge.experiments.cells import Cell, Result
from adjudge.experiments.folds import pooled_results
from adjudge.methods.published import PUBLISHED
from adjudge.methods.settings import forms_apart
from adjudge.runs.folder import read_json
from adjudge.system.console import warn
from adjudge.system.files import write_json, write_text
from adjudge.system.memory import PEAKS
from adjudge.version import __version__

SCHEMA = 1


def warn_of_left_out(out: Path, cells: Sequence[Cell]) -> None:
    """Warn of methods in the table of `out` which are none of `cells`: the new table does not list them."""
    path = out / "table.json"
    if not path.is_file():
        return
    listed = dict.fromkeys(str(row["method"]) for row in read_json(path).get("rows", ()))
    methods = dict.fromkeys(cell.method for cell in cells)
    if gone := [name for name in listed if name not in methods]:
        warn(
            f"{path} lists {', '.join(gone)}, which this command leaves out: the runs stay, and the new table and "
            f"report are without them. To keep them: --methods {','.join(listed | methods)}"
        )


def write_table(
    cells: Sequence[Cell],
    finished: Collection[Path],
    out: Path,
    failed: Mapping[Path, str],
    command: str,
    tuned: Mapping[str, Any] | None = None,
    *,
    whole: bool = False,
) -> dict[str, Any]:
    """Write table.json and table.md from the cells whose folders are `finished`.

    Folds are pooled, and a method is in the table when all folds of a seed are finished. `tuned` is what is recorded of
    a search of settings. With `whole`, also write intervals over seeds and paired tests.
    """
    from adjudge.report.markdown import comparison_markdown
    from adjudge.report.suites import suite_scores

    tasks = list(dict.fromkeys(spec.name for cell in cells for spec in cell.specs))
    results = [
        result
        for run_cells in _by_seed(cells)
        if all(cell.folder in finished for cell in run_cells)
        for result in pooled_results(run_cells)
    ]
    results.sort(key=lambda result: tasks.index(result.spec.name))
    table: dict[str, Any] = {
        "schema": SCHEMA,
        "command": command,
        "version": __version__,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "rows": [
            {
                **result.scores(),
                "run": result.folder.relative_to(out).as_posix(),
                **_fold_runs(result, out),
            }
            for result in results
        ],
        "summary": summaries(results) if whole else [],
        "tests": paired_tests(results) if whole else [],
        "failed": [{**_named(cell, out), "reason": failed[cell.folder]} for cell in cells if cell.folder in failed],
        "apart": list({form["setting"]: form for result in results for form in forms_apart(result.config)}.values()),
        **({"tuned": dict(tuned)} if tuned else {}),
        "unfinished": sum(cell.folder not in finished and cell.folder not in failed for cell in cells),
        "pending": [_named(cell, out) for cell in cells if cell.folder not in failed and cell.folder not in finished],
    }
    table["published"] = PUBLISHED
    table["suites"] = [asdict(scores) for scored in suite_scores(table) for scores in scored]
    write_json(out / "table.json", table)
    write_text(out / "table.md", comparison_markdown(table))
    return table


def summaries(results: Sequence[Result]) -> list[dict[str, Any]]:
    """Return one entry per task and method, with means over its seeds.

    Metrics have the interval of the mean, with units resampled.
    """
    from adjudge.evaluation.calibration import probability_scores
    from adjudge.evaluation.diagnostics import diagnose
    from adjudge.evaluation.slices import slice_scores
    from adjudge.evaluation.statistics import align_runs, metric_interval

    entries = []
    for seeds in _by_method(results).values():
        config, spec = seeds[0].config, seeds[0].spec
        aligned = align_runs(spec, [result.predictions() for result in seeds])
        resamples = config.evaluation.resamples
        scores = [result.scores() for result in seeds]
        temperatures = [item.get("probabilities", {}).get("temperature") for item in scores]
        probabilities = probability_scores(spec, aligned, temperatures, resamples=resamples)
        phenomena = diagnose(spec, aligned, resamples=resamples)
        slices = slice_scores(spec, aligned, resamples=resamples)
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
                **({"probabilities": probabilities} if probabilities else {}),
                **({"diagnostics": phenomena} if phenomena else {}),
                **({"slices": slices} if slices else {}),
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


def _by_seed(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Return the cells by task, method and seed: the folds of each together, or a single cell."""
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.config.task, cell.method, cell.config.seed), []).append(cell)
    return list(groups.values())


def _fold_runs(result: Result, out: Path) -> dict[str, list[str]]:
    runs = [folder.relative_to(out).as_posix() for folder in result.folds]
    return {"fold_runs": runs} if runs else {}


def _named(cell: Cell, out: Path) -> dict[str, Any]:
    run = cell.folder.relative_to(out).as_posix()
    fold = {} if cell.config.data.fold is None else {"fold": cell.config.data.fold}
    return {"task": cell.config.task, "method": cell.method, "seed": cell.config.seed, **fold, "run": run}
