"""Write tasks with their rows for another evaluation program, all of them or none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from adjudge.config import Config, load_config
from adjudge.errors import ConfigError, DataError, RunError, nearest
from adjudge.experiments.evaluate import open_folder
from adjudge.experiments.rows import eval_rows_for
from adjudge.methods.registry import get_entry
from adjudge.ship.neighbours import inspect_ai, lm_eval
from adjudge.ship.neighbours.asking import ask_model, ask_run, check_task, chosen_rows, file_name
from adjudge.system.console import note
from adjudge.system.files import whole_folder
from adjudge.tasks import list_tasks, load_task
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example

KINDS = ("lm-eval", "inspect")


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
) -> dict[str, int]:
    """Write the tasks `names` to the new folder `out`; return the number of rows of each.

    Without names these are the tasks of the run, or else all label tasks with files in `data_dir`. Prompts are those of
    the untrained `model`, or of the judge of a finished run. Raises ConfigError for an unknown kind, without names or
    rows, and for a task or judge that cannot be exported; RunError when `out` exists; what reading the data raises.
    """
    if kind not in KINDS:
        raise ConfigError(f"--export: there is no '{kind}'; there are {', '.join(KINDS)}.{nearest(kind, KINDS)}")
    if Path(out).exists():
        raise RunError(f"{out} is there already. Name another folder after --export {kind}.")
    config, specs = _asked(names, run, prompt_style, model)
    config = chosen_rows(config, data_dir=data_dir, split=split, eval_rows=eval_rows)
    with whole_folder(Path(out)) as folder:
        counts = (_lm_eval if kind == "lm-eval" else _inspect)(folder, config, _rows(config, specs), run, model)
        if not counts:
            raise ConfigError("No task can be exported: none is answered with a label and has rows in --data-dir.")
    return counts


def _asked(
    names: Sequence[str], run: str | None, prompt_style: str | None, model: str | None
) -> tuple[Config, Sequence[TaskSpec]]:
    """Return the settings, and the tasks that are named; none for all with rows."""
    if run is None:
        config = load_config(values={"prompt.style": prompt_style, "model": model})
        specs = [load_task(name) for name in names]
    else:
        if prompt_style is not None:
            raise ConfigError(f"--prompt-style was fixed when {run} was trained; with --run it cannot be changed.")
        opened, specs = open_folder(run, model=model)
        config = opened.config
        if unknown := [name for name in names if name not in {spec.name for spec in specs}]:
            raise ConfigError(f"{run} does not judge {unknown[0]}; it judges {', '.join(spec.name for spec in specs)}.")
        specs = [spec for spec in specs if not names or spec.name in names]
    for spec in specs:
        check_task(spec)
    known = [file_name(spec) for spec in specs]
    if twice := next((spec.name for spec, name in zip(specs, known, strict=True) if known.count(name) > 1), None):
        raise ConfigError(f"{twice} is named twice, or another task has its name in files. Export it apart.")
    return config, specs


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
                yield spec, eval_rows_for(config, spec)
            except DataError as error:
                note(f"{name} is skipped: {error}")


def _lm_eval(
    folder: Path,
    config: Config,
    rows: Iterator[tuple[TaskSpec, Sequence[Example]]],
    run: str | None,
    model: str | None,
) -> dict[str, int]:
    askings = {} if run is None else {asking.spec.name: asking for asking in ask_run(run, model)}
    return {
        spec.name: lm_eval.write(folder, askings.get(spec.name) or ask_model(config, spec), examples)
        for spec, examples in rows
    }


def _inspect(
    folder: Path,
    config: Config,
    rows: Iterator[tuple[TaskSpec, Sequence[Example]]],
    run: str | None,
    _model: str | None,
) -> dict[str, int]:
    if run is not None and get_entry(config.method).rows == "demonstrations":
        raise ConfigError(f"{run}: its demonstrations are not exported for inspect. Export its tasks without --run.")
    counts, functions = {}, []
    for spec, examples in rows:
        functions.append(inspect_ai.write_rows(folder, spec, config, examples))
        counts[spec.name] = len(examples)
    inspect_ai.write_file(folder, functions)
    return counts
