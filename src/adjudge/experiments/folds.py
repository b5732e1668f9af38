"""The pooled result of cross-validation: the judged rows of all folds of one method and seed as one.

OUT/TASK/METHOD/seed-N-fold-F/    the run of one fold
OUT/TASK/METHOD/seed-N-pooled/    their predictions together, and the scores of these; it holds no judge
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from adjudge.experiments.cells import Cell, Result
from adjudge.experiments.judging import ended
from adjudge.runs.folder import Run, read_json
from adjudge.runs.tasks import task_folder, write_task
from adjudge.system.files import sha256_of
from adjudge.tasks.reading.kept_rows import keep_rows


def pooled_results(cells: Sequence[Cell]) -> list[Result]:
    """Return the results of one method and seed, one per task, after pooling its folds.

    `cells` are the finished cells of all folds, in their order, or the one cell of a run without folds.
    """
    first = cells[0]
    if first.config.data.fold is None:
        return first.results()
    target = first.folder.with_name(f"seed-{first.config.seed}-pooled")
    several = len(first.specs) > 1
    return [
        _pool(folds, task_folder(target, folds[0].spec.name) if several else target)
        for folds in zip(*(cell.results() for cell in cells), strict=True)
    ]


def _pool(folds: Sequence[Result], target: Path) -> Result:
    """Write the predictions of all folds and their scores into one result folder, unless it is up to date."""
    from adjudge.evaluation.score import score

    spec, config = folds[0].spec, folds[0].config
    data = config.data.model_copy(update={"fold": None})
    config = config.model_copy(update={"task": spec.name, "data": data})
    pooled = replace(folds[0], config=config, folder=target, folds=tuple(result.folder for result in folds))
    hashes = [sha256_of(result.folder / "scores.json") for result in folds]
    if (target / "scores.json").is_file() and read_json(target / "scores.json").get("pooled_from") == hashes:
        return pooled
    run = Run.create(target, config, force=True)
    with ended(run):
        write_task(run, keep_rows(spec, run.folder))
        predictions = [prediction for result in folds for prediction in result.predictions()]
        run.write_predictions(config.data.split, predictions)
        scores = score(spec, predictions, resamples=config.evaluation.resamples)
        each = [result.scores() for result in folds]
        run.write_scores({**_summed(each), **scores, "pooled_from": hashes})
    return pooled


def _summed(folds: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the folds' scores hold besides the metrics.

    Counts and seconds are summed. The number of training rows is their mean.
    """
    rows = sum(fold["n"] for fold in folds)
    seconds = {name: sum(fold["seconds"][name] for fold in folds) for name in folds[0]["seconds"]}
    kept = ("task", "method", "model", "seed", "split", "folds", "decode")
    overlap = {key: sum(fold[key] for fold in folds) for key in ("overlap", "overlap_exact")}
    fits = [fold["fit"] for fold in folds if fold.get("fit")]
    return {
        **{key: folds[0][key] for key in kept},
        "train_rows": round(fmean(fold["train_rows"] for fold in folds)),
        **overlap,
        "overlap_share": overlap["overlap"] / rows,
        "overlap_first": [pair for fold in folds for pair in fold["overlap_first"]],
        **({"fit": min(fits, key=_how_well)} if fits else {}),
        **{
            part: _total(budgets)
            for part in ("budget", "judging")
            if (budgets := [f[part] for f in folds if part in f])
        },
        "seconds": seconds,
        "prompts_per_s": rows / max(seconds["evaluate"], 1e-9),
        "peak_rss_gib": max(fold["peak_rss_gib"] for fold in folds),
        **({"jobs": most} if (most := max(fold.get("jobs", 1) for fold in folds)) > 1 else {}),
    }


def _total(budgets: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the sums of counts and prices."""
    names = dict.fromkeys(name for each in budgets for name, value in each.items() if isinstance(value, int | float))
    return {name: sum(each.get(name, 0) for each in budgets) for name in names}


def _how_well(fit: Mapping[str, float]) -> tuple[float, float]:
    """Order the folds' ends of training, the worst first: few rows right, then a loss that still fell."""
    fell = fit["loss"] / fit["loss_before"] if fit.get("loss_before") else 1.0
    return fit.get("right", 1.0), fell
