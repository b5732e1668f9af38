"""Make a submission from runs: choose a run per file, judge the test rows, write and check the zip."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adjudge.config import load_config
from adjudge.errors import ConfigError, DataError, RunError, nearest
from adjudge.experiments.kept_predictions import read_predictions
from adjudge.runs.folder import Run
from adjudge.runs.tasks import read_tasks
from adjudge.submission.check import check_zip
from adjudge.submission.formats import FORMS, SUITES, Form, form_of_task
from adjudge.submission.judge import judge_test_rows
from adjudge.submission.write import LIKELIEST, MAJORITY, File, first_unknown_rule, pack, write_file
from adjudge.system.files import write_bytes
from adjudge.tasks import load_task
from adjudge.tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a submission, and the run whose model judges its rows."""

    form: Form
    spec: TaskSpec
    run: Run


def submit(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    tasks: Sequence[str] | None = None,
    data_dir: str | None = None,
    decode: str | None = None,
    model: str | None = None,
    unreadable: Sequence[str] = (),
    partial: bool = False,
) -> list[tuple[Part, File]]:
    """Write the zip that the site of the runs' tasks asks for; return its files, each with its run.

    Test rows that are not judged yet are judged first (see `judge_test_rows`). `model` names the runs' base model where
    that has moved. Raises ConfigError, DataError or
    RunError for tasks without a run or with two, for unreadable answers (see `write_file`), and for faults of data or
    models.
    """
    out = Path(out)
    if out.suffix.lower() != ".zip" or out.is_dir():
        raise ConfigError(f"--out {out}: name a file that ends in .zip.")
    load_config(values={"evaluation.decode": decode})  # reports a wrong value before anything is judged
    parts = plan(folders, tasks, partial=partial)
    specs = [part.spec for part in parts]
    if (unknown := first_unknown_rule(unreadable, specs)) is not None:
        answers = list(dict.fromkeys(word for spec in specs for word in spec.words))
        hint = nearest(unknown, [LIKELIEST, MAJORITY, *answers])
        raise ConfigError(f"--unreadable '{unknown}' is not an answer of these tasks.{hint}")
    options = {"data_dir": data_dir, "decode": decode, "model": model}
    paths = [judge_test_rows(part.run, part.spec, part.form, **options) for part in parts]
    files, errors = [], []
    for part, path in zip(parts, paths, strict=True):
        try:
            files.append(write_file(part.form, part.spec, read_predictions(path), unreadable, str(path)))
        except DataError as error:  # collected, so the user can solve the problems of all files at once
            errors.append(str(error))
    if errors:
        raise DataError("\n".join(errors))
    content = pack(files)
    if problems := check_zip(io.BytesIO(content), out.name, partial=partial):
        raise DataError(
            "The files do not meet the site's rules and were not written:\n" + "\n".join(map(str, problems))
        )
    write_bytes(out, content)
    return list(zip(parts, files, strict=True))


def plan(folders: Sequence[str | Path], tasks: Sequence[str] | None = None, *, partial: bool = False) -> list[Part]:
    """Return the files of the submission, each with the run that judges it.

    A run judges the files of its own tasks, and those that the site wants the same model to judge: MNLI's run also
    judges MNLI-mm and AX, SuperGLUE's RTE both AX-b and AX-g, unless another run is given for them. `tasks` limits the
    files.

    Raises RunError for two runs of one task. Raises DataError for a task without a run (unless `partial`), for a task
    that no site takes, and for tasks of both suites.
    """
    parts: dict[str, Part] = {}
    for folder in folders:
        run = Run.open(folder)
        for spec in read_tasks(run.folder):
            if tasks is not None and all(form.task != spec.name for form in FORMS):
                continue  # no site takes this task of a run over several tasks, and `tasks` does not request it
            part = Part(form_of_task(spec.name), spec, run)
            first = parts.setdefault(spec.name, part)
            if first is not part:
                raise RunError(f"{first.run.folder} and {run.folder} are both runs of {spec.name}: give one of them.")
    for form in FORMS:
        if form.task not in parts and form.judged_by in parts:
            parts[form.task] = Part(form, load_task(form.task), parts[form.judged_by].run)
    if tasks is not None:
        parts = {form.task: _part_of(form, parts) for form in map(form_of_task, tasks)}
    suites = {part.form.suite for part in parts.values()}
    if len(suites) > 1:
        raise DataError(
            "The runs are of GLUE and of SuperGLUE, which are two submissions: "
            "choose with --task, or give the runs of one."
        )
    forms = SUITES[suites.pop()]
    missing = [form.task for form in forms if form.task not in parts]
    if missing and not partial:
        raise DataError(
            f"There is no run for {', '.join(missing)}, and the site takes no zip without all {len(forms)} files. "
            "Give the runs with --run; or write the files you have with --partial, and add the site's sample files."
        )
    return [parts[form.task] for form in forms if form.task in parts]


def _part_of(form: Form, parts: Mapping[str, Part]) -> Part:
    if form.task not in parts:
        raise DataError(f"None of the runs judges {form.task}; they judge {', '.join(parts)}.")
    return parts[form.task]
