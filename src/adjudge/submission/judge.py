"""Judge the test rows of a task with a run's judge. Predictions stay on disk: a stop costs little."""

from __future__ import annotations

import os
from pathlib import Path

from adjudge.experiments.evaluate import load_judge
from adjudge.experiments.kept_predictions import count_judged, judge_to_disk
from adjudge.runs.folder import Run
from adjudge.runs.names import shown_name
from adjudge.runs.tasks import read_tasks
from adjudge.submission.formats import Form
from adjudge.submission.write import official_indices
from adjudge.system.console import note
from adjudge.system.files import Lock
from adjudge.tasks.spec import TaskSpec


def judge_test_rows(
    run: Run,
    spec: TaskSpec,
    form: Form,
    *,
    data_dir: str | None = None,
    decode: str | None = None,
    model: str | None = None,
) -> Path:
    """Judge the official test rows of a task unless that is done already; return the predictions' file.

    The file is in the run's ``predictions``: ``test.jsonl`` for the run's own task and decoding, else
    ``TASK-SPLIT-DECODE.jsonl``. Rows that an interrupted call judged are not judged again. `model` names the run's base
    model where that has moved. Raises RunError when nothing was trained, DataError when the test rows are missing or
    are not those that the site asks for.
    """
    from adjudge.tasks import load_split

    if decode is None or (spec.is_number and decode != "mean"):  # "labels" says nothing of numbers
        decode = run.config.evaluation.decode
    # Dev rows get another name: the run's own evaluation may have fewer of them, and no probabilities.
    same = form.split == "test" and [spec] == read_tasks(run.folder) and decode == run.config.evaluation.decode
    name = form.split if same else f"{spec.name.replace('/', '-')}-{form.split}-{decode}"
    path = run.folder / "predictions" / f"{name}.jsonl"
    if path.is_file():
        note(f"{form.file}: already judged, {path}")
        return path
    eval_rows = load_split(spec, form.split, data_dir or run.config.data.data_dir)
    official_indices(form, eval_rows, f"{spec.name}, the {form.split} rows")  # fail before hours of judging
    partial = path.with_name(f"{path.name}.partial")
    lock = Lock(run.folder)
    lock.acquire()
    try:
        done = count_judged(partial, eval_rows)
        if done:
            note(f"{form.file}: continuing after row {done:,} of {len(eval_rows):,}, {partial}")
        judge = load_judge(run.folder, spec=spec, decode=decode, model=model)[2]
        title = f"{shown_name(run.config.method, len(read_tasks(run.folder)))} on {spec.name}/{form.split}"
        # Probabilities cost little. They choose among ReCoRD's candidates and can replace unreadable answers.
        judge_to_disk(judge, eval_rows[done:], partial, probabilities=not spec.is_number, title=title)
        os.replace(partial, path)
    finally:
        lock.release()
    return path
