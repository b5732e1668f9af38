"""The task of labelled rows from Python or the command line: a file, a frame, a pair, or splits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from adjudge.errors import ConfigError, DataError
from adjudge.tasks import column_names, infer_task, load_task, with_slices
from adjudge.tasks.reading.given_table import Given, given_columns, given_splits, given_table
from adjudge.tasks.reading.hub_dataset import dataset_origin, fetch_dataset
from adjudge.tasks.reading.kept_rows import with_table, written_rows
from adjudge.tasks.spec import TaskSpec


@contextmanager
def own_task(data: Any, **options: Any) -> Iterator[TaskSpec]:
    """Yield the task of the user's own rows.

    `data` is the path of a table, or labelled rows as `adjudge.tasks.reading.given_table` takes them; these lie in a
    file while the task is in use, and a run copies it into its folder. `options` are those of `infer_task`; ``text``
    may be one name, and of rows that are a pair, names are not needed. Raises what `infer_task` raises.
    """
    text, label, dev = as_names(options.pop("text", None)), options.pop("label", None), options.pop("dev", None)
    more: Sequence[str] = options.pop("slices", ())
    if isinstance(data, str | Path):
        if not text or label is None:
            raise DataError(
                f"{data}: name its columns: text='COLUMN' (the text to judge), label='COLUMN' (the answer)."
            )
        if dev is not None and not isinstance(dev, str | Path):
            raise DataError("data is a file, so dev is a file too: give both as files or both as rows.")
        yield infer_task(data, text, label, dev=dev, **options)
        return
    if isinstance(dev, str | Path):
        raise DataError("dev is a file, so data is a file too: give both as files or both as rows.")
    for option in ("separator", "encoding"):
        if options.get(option) is not None:
            raise ConfigError(f"{option} is for a file; the rows that are given need none.")
    columns = [*label] if isinstance(label, list | tuple) else []  # of yes and no, one per label
    given = _given(data, dev, text, columns[0] if columns else label, [*columns[1:], *more])
    first = given["train"]
    with written_rows({split: each.table for split, each in given.items()}) as files:
        spec = infer_task(
            files["train"], first.text, label if columns else first.label, dev=files.get("dev"), **options
        )
        yield with_table(spec, {"test": str(files["test"].resolve())} if "test" in files else {})


def _given(data: Any, dev: Any, text: Sequence[str], label: str | None, more: Sequence[str]) -> dict[str, Given]:
    """Return the rows of each split, all with the columns of the training rows, and with `more`."""
    splits = given_splits(data, dev)
    given = {"train": given_table(splits.pop("train"), text, label, more=more)}
    for split, rows in splits.items():
        given[split] = given_table(
            rows, given["train"].text, given["train"].label, more=more, source=f"rows of {split}"
        )
    return given


Task = str | Path | TaskSpec
"""A task by its name or file, or the task itself."""


class OwnRows(NamedTuple):
    """What `adjudge.train` and its kin are told of a user's own rows."""

    data: Any
    dataset: str | None
    text: str | Sequence[str] | None
    label: str | None
    dev: Any
    labels: Sequence[str] | Mapping[str, str] | None
    kind: str | None
    instruction: str | None


@contextmanager
def chosen_tasks(
    task: Task | Sequence[Task] | None, own: Mapping[str, Any], overrides: Mapping[str, Any] | None = None
) -> Iterator[list[TaskSpec]]:
    """Yield the named tasks, or the one of the user's own rows: ``own["data"]``, with its options.

    `overrides` are settings as `adjudge.train` takes them. Raises ConfigError for both, and for none.
    """
    overrides = overrides or {}
    slices = as_names(overrides.get("data__slices"))
    slices = [name.strip() for part in slices for name in part.split(",")]
    with _named_tasks(task, own, overrides.get("data__bad_rows"), slices) as specs:
        yield [with_slices(spec, slices) for spec in specs]


@contextmanager
def _named_tasks(
    task: Task | Sequence[Task] | None, options: Mapping[str, Any], bad_rows: Any, slices: Sequence[str]
) -> Iterator[list[TaskSpec]]:
    given = {name: value for name, value in options.items() if value is not None}
    if "data" in given and "dataset" in given:
        raise ConfigError("data and dataset both say which rows: give one of them.")
    if "data" not in given and "dataset" not in given:
        if given:
            raise ConfigError(f"{next(iter(given))} describes rows of your own: give them with data=.")
        if task is None:
            raise ConfigError("Name a task, or give rows of your own: data=ROWS, text='COLUMN', label='COLUMN'.")
        yield [as_task(task)] if isinstance(task, Task) else [as_task(each) for each in task]
        return
    if task is not None:
        raise ConfigError("task and data both say which rows: give one of them.")
    if "dataset" in given:
        if "dev" in given:
            raise ConfigError("dev is for data; a data set has splits of its own.")
        text = as_names(given.pop("text", None))
        yield [
            dataset_task(given.pop("dataset"), text, given.pop("label", None), bad_rows=bad_rows or "error", **given)
        ]
        return
    with own_task(given.pop("data"), bad_rows=bad_rows or "error", slices=slices, **given) as spec:
        yield [spec]


def as_task(task: Task) -> TaskSpec:
    """Return a task given by name, by file, or as a task."""
    return task if isinstance(task, TaskSpec) else load_task(task)


@contextmanager
def file_to_judge(data: Any, text: Sequence[str], label: str | None, spec: TaskSpec) -> Iterator[Path]:
    """Yield the file of labelled rows to judge with an existing task.

    It is the given path, or a file that the given rows are written to. Columns of rows are those of the task (or its
    fields' names) unless `text` and `label` name others.
    """
    if isinstance(data, str | Path):
        yield Path(data)
        return
    if isinstance(data, Mapping):
        raise DataError("Of a mapping of splits, give the one to judge: data=splits['test'].")
    columns = given_columns(data)
    names = list(text) or [
        column if column in columns or not columns else field for field, column in spec.fields.items()
    ]
    given = given_table(data, names, label or spec.label)
    with written_rows({"train": given.table}) as files:
        yield files["train"]


def dataset_task(
    name: str, text: Sequence[str], label: str | None, *, config: str | None = None, **options: Any
) -> TaskSpec:
    """Return the task of a hub data set (``owner/name``, ``owner/name:config``) or a folder in its layout.

    `text` and `label` name its columns; the rows to judge are those of validation, else of test, else a fifth of train.
    `options` are those of `infer_task`. Raises DataError where its rows cannot be read, or have no such columns.
    """
    origin, files = fetch_dataset(dataset_origin(name, config))
    if not text or label is None:
        raise DataError(
            f"{name}: say which columns hold the text and the right answer: --text COL and --label COL. "
            f"The columns: {column_names(files['train'])}."
        )
    called = Path(origin.path).name if Path(origin.path).is_dir() else origin.path
    called += f":{origin.config}" if origin.config else ""
    spec = infer_task(files["train"], text, label, dev=files.get("dev"), name=called, **options)
    record = {"dataset": origin, "test": str(files["test"].resolve()) if "test" in files else None}
    return with_table(spec, record)


def as_names(text: str | Sequence[str] | None) -> list[str]:
    """Return one column name, several or none as a list."""
    return [] if text is None else [text] if isinstance(text, str) else list(text)
