"""The tasks that a verb's parameters name: built-in ones, a user's table, or a data set of the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjudge.cli.options import OWN, option_of, split_list

if TYPE_CHECKING:
    from adjudge.config import Config
    from adjudge.tasks.spec import TaskSpec

OF_TABLE = ("dev", "separator", "encoding")
"""The parameters that describe a table of the user alone."""

OWN_ROWS = ("text", "label", "labels", "instruction", "kind", *OF_TABLE)
"""The parameters that describe the table of ``--data``, or the data set of ``--dataset``."""

Dataset = Annotated[
    str | None,
    typer.Option(
        metavar="OWNER/NAME[:CONFIG]",
        help="A data set of the hub, or a folder in its layout. Needs --text and --label.",
        rich_help_panel=OWN,
    ),
]
DatasetConfig = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Configuration of the data set, where it has several.", rich_help_panel=OWN),
]


def chosen_tasks(params: Mapping[str, Any], config: Config) -> list[TaskSpec]:
    """Return the tasks that the parameters of a verb name.

    They come from the user's own table, from a data set, from --task, or from the configuration.
    Raises ConfigError when the parameters contradict each other, TaskError and DataError as the tasks do.
    """
    from adjudge.tasks import with_slices

    return [with_slices(spec, config.data.slices) for spec in _named_tasks(params, config)]


def _named_tasks(params: Mapping[str, Any], config: Config) -> list[TaskSpec]:
    from adjudge.errors import ConfigError
    from adjudge.tasks import infer_task, load_task

    named = [option_of(name) for name in ("task", "data", "dataset") if params[name] is not None]
    if len(named) > 1:
        raise ConfigError(f"{' and '.join(named)} both say which rows: give one of them.")
    if params["dataset"] is None and params["dataset_config"] is not None:
        raise ConfigError("--dataset-config belongs to a data set: name it with --dataset OWNER/NAME.")
    if params["dataset"] is not None:
        return [_of_dataset(params, config)]
    if params["data"] is None:
        without_data = [option_of(name) for name in OWN_ROWS if params[name] is not None]
        if without_data:
            raise ConfigError(f"{without_data[0]} describes your own table: name the table with --data FILE.")
        names = params["task"] if params["task"] is not None else config.task
        return [load_task(name) for name in split_list(names, "--task")]
    text, label = _columns(params)
    others = {name: params[name] for name in OWN_ROWS if name not in ("text", "label", "labels")}
    return [infer_task(params["data"], text, label, _labels(params), **others, bad_rows=config.data.bad_rows)]


def _of_dataset(params: Mapping[str, Any], config: Config) -> TaskSpec:
    """Return the task of the data set that the parameters name. Raises ConfigError and DataError."""
    from adjudge.errors import ConfigError
    from adjudge.experiments.own_rows import dataset_task

    if of_table := [option_of(name) for name in OF_TABLE if params[name] is not None]:
        raise ConfigError(f"{of_table[0]} is for a table (--data FILE); a data set has splits and a form of its own.")
    return dataset_task(
        params["dataset"],
        [] if params["text"] is None else split_list(params["text"], "--text"),
        params["label"],
        config=params["dataset_config"],
        labels=_labels(params),
        instruction=params["instruction"],
        kind=params["kind"],
        bad_rows=config.data.bad_rows,
    )


def _label(params: Mapping[str, Any]) -> str | list[str]:
    """Return the label column; where a row can have several labels, a list of columns with yes and no."""
    from adjudge.tasks.infer import SETS

    label: str = params["label"]
    return split_list(label, "--label") if params["kind"] in SETS and "," in label else label


def _columns(params: Mapping[str, Any]) -> tuple[list[str], str | list[str]]:
    """Return the names of the columns with the text and the right answer.

    Raises ConfigError where they are missing.
    """
    from adjudge.errors import ConfigError, DataError
    from adjudge.tasks import column_names, table_format

    if params["text"] is None or params["label"] is None:
        try:
            names = column_names(params["data"], table_format(params["separator"], params["encoding"]))
            columns = f"The columns of {params['data']}: {names}."
        except DataError as error:
            columns = str(error)
        raise ConfigError(f"--data needs --text COL (the text to judge) and --label COL (the right answer). {columns}")
    return split_list(params["text"], "--text"), _label(params)


def _labels(params: Mapping[str, Any]) -> list[str] | None:
    return split_list(params["labels"], "--labels") if params["labels"] is not None else None


def only_task(params: Mapping[str, Any], config: Config, verb: str) -> TaskSpec:
    """Return the one task that the parameters name.

    Raises ConfigError for several, and the errors of `chosen_tasks`.
    """
    from adjudge.errors import ConfigError

    specs = chosen_tasks(params, config)
    if len(specs) > 1:
        raise ConfigError(f"{verb} takes one task; `adjudge compare` takes several.")
    return specs[0]
