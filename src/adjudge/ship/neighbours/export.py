"""Write tasks with their rows for another evaluation program, all of them or none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adjudge.config import Config, change, load_config
from adjudge.errors import ConfigError, DataError, RunError, nearest
from adjudge.experiments.evaluate import open_folder
from adjudge.experiments.rows import eval_rows_for
from adjudge.ship.neighbours import inspect_ai, lm_eval
from adjudge.ship.neighbours.asking import ask_model, ask_run, check_task, file_name
from adjudge.system.console import note
from adjudge.system.files import whole_folder
from adjudge.tasks import list_tasks, load_task
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

KINDS = ("lm-eval", "inspect")

Judged = Iterable[tuple[TaskSpec, Sequence[Example]]]
"""Tasks with the rows to judge."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The number of rows of each task, and the model whose prompts they have."""

    rows: dict[str, int]
    model: str


def export_tasks(
    kind: str,
    out: str | Path,
    names: Sequence[str] = (),
    *,
    model: str | None = None,
    run: str | None = None,
    prompt_style: str | None = None,
    data_dir: str | None = None,
    split: str | None = None,
    eval_rows: int | None = None,
) -> Exported:
    """Write the tasks `names` with the rows to judge to the new folder `out`.

    Without names these are the tasks of the run, or else all label tasks with files in `data_dir`. Prompts are those of
    the untrained `model`, or of the judge of a finished run. Raises ConfigError for an unknown kind, without names or
    rows, and for a task or judge that cannot be exported; RunError when `out` exists; what reading the data raises.
    """
    if kind not in KINDS:
        raise ConfigError(f"--export: there is no '{kind}'; there are {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if Path(out).exists():
        raise RunError(f"{out} is there already. Name another folder after --export {kind}.")
    if kind == "inspect" and (option := "--run" if run else "--model" if model else None):
        raise ConfigError(
            f"{option} has no effect on --export inspect: its rows are messages, and inspect eval names the model."
        )
    if run is None:
        config, specs = load_config(values={"prompt.style": prompt_style, "model": model}), _named(names)
    else:
        config, specs = _of_run(run, names, prompt_style, model)
    values = {"data.data_dir": data_dir, "data.split": split, "data.eval_rows": eval_rows}
    config = change(config, {key: value for key, value in values.items() if value is not None})
    with whole_folder(Path(out)) as folder:
        task_rows = _rows(config, specs)
        if kind == "inspect":
            counts = inspect_ai.write(folder, config, task_rows)
        else:
            askings = {} if run is None else {asking.spec.name: asking for asking in ask_run(run, model)}
            counts = {
                spec.name: lm_eval.write(folder, askings.get(spec.name) or ask_model(config, spec), examples)
                for spec, examples in task_rows
            }
        if not counts:
            raise ConfigError(f"No task in --data-dir {data_dir} is answered with a label and has rows to judge.")
    return Exported(counts, config.model)


def _named(names: Sequence[str]) -> list[TaskSpec]:
    """Return the tasks of these names.

    Raises ConfigError for one that cannot be exported beside the others.
    """
    specs = [load_task(name) for name in names]
    taken: dict[str, str] = {}
    for spec in specs:
        check_task(spec)
        if other := taken.get(file_name(spec)):
            raise ConfigError(f"{other} and {spec.name} would have the same files: export one of them, or each apart.")
        taken[file_name(spec)] = spec.name
    return specs


def _of_run(
    run: str, names: Sequence[str], prompt_style: str | None, model: str | None
) -> tuple[Config, list[TaskSpec]]:
    """Return the settings of a run, and its tasks, or those of them that are named."""
    if prompt_style is not None:
        raise ConfigError(f"--prompt-style was fixed when {run} was trained; with --run it cannot be changed.")
    opened, specs = open_folder(run, model=model)
    known = [spec.name for spec in specs]
    for name in names:
        if name not in known:
            raise ConfigError(f"{run} does not judge '{name}'; it judges {', '.join(known)}.{nearest(name, known)}")
    specs = [spec for spec in specs if not names or spec.name in names]
    for spec in specs:
        check_task(spec)
    return opened.config, specs


def _rows(config: Config, specs: Sequence[TaskSpec]) -> Iterator[tuple[TaskSpec, Sequence[Example]]]:
    if specs:
        yield from ((spec, eval_rows_for(config, spec)) for spec in specs)
        return
    if config.data.data_dir is None:
        raise ConfigError("--export needs rows: name tasks, or give --data-dir DIR for all with files in that folder.")
    for name in list_tasks():
        spec = load_task(name)
        if spec.source.files and not spec.is_number and not spec.several:
            try:
                rows = eval_rows_for(config, spec)
            except DataError as error:
                note(f"{name} is skipped: {error}")
            else:
                yield spec, rows
