"""The options that several verbs share, and how they become a configuration and tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adjudge.config import Config
    from adjudge.tasks.spec import TaskSpec

ROWS, OWN, HOW, PLACE = "Rows", "Your own data", "How", "Where the results go"

Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.yaml",
        help="Task; `adjudge tasks` lists them.",
        show_default="vader/movies",
        rich_help_panel=ROWS,
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME,…",
        help="One task or several; names or .yaml files.",
        show_default="vader/movies",
        rich_help_panel=ROWS,
    ),
]
Mixture = Annotated[
    str | None,
    typer.Option(
        metavar="proportional|equal|temperature=T",
        help="Shares of several tasks in the training rows of one adapter: by size, alike, or by size^(1/T).",
        show_default="proportional; in a comparison equal",
        rich_help_panel=ROWS,
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder with GLUE in the official download layout.", rich_help_panel=ROWS),
]
TrainRows = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Training rows, drawn by the seed; for `train` on several tasks, of all together.",
        show_default="all",
        rich_help_panel=ROWS,
    ),
]
EvalRows = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Rows judged, the same for every method and seed.", show_default="all", rich_help_panel=ROWS
    ),
]
Split = Annotated[
    str | None, typer.Option(metavar="NAME", help="Split that is judged.", show_default="dev", rich_help_panel=ROWS)
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Your table: CSV, TSV, JSONL or Parquet. Needs --text and --label.", rich_help_panel=OWN
    ),
]
Dev = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="A second table to judge.",
        show_default="a fifth of --data is kept apart",
        rich_help_panel=OWN,
    ),
]
Text = Annotated[
    str | None,
    typer.Option(metavar="COL[,COL]", help="Column with the text, or columns with the texts.", rich_help_panel=OWN),
]
Label = Annotated[str | None, typer.Option(metavar="COL", help="Column with the right answer.", rich_help_panel=OWN)]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="RAW=WORD,…",
        help="Labels in order, with answer words, as in 0=Bad,1=Good.",
        show_default="as in the data",
        rich_help_panel=OWN,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="ID|DIR", help="Causal language model.", show_default="smollm2-135m", rich_help_panel=HOW),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="ID|DIR",
        help="Encoder that the method `encoder` trains.",
        show_default="minilm-l6",
        rich_help_panel=HOW,
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of the run.", show_default="0", rich_help_panel=HOW)]
Preset = Annotated[
    str,
    typer.Option(
        metavar="default|paper", help="Our settings, or the constants of arXiv 2410.11020.", rich_help_panel=HOW
    ),
]
ConfigFile = Annotated[
    str | None, typer.Option("--config", metavar="FILE.yaml", help="Settings from a file.", rich_help_panel=HOW)
]
PromptStyle = Annotated[
    str | None,
    typer.Option(
        metavar="chat|paper",
        help="The model's chat template, or the reference's plain form.",
        show_default="chat",
        rich_help_panel=HOW,
    ),
]
Decode = Annotated[
    str | None,
    typer.Option(
        metavar="greedy|labels",
        help="Read a generated answer strictly, or take the likeliest label.",
        show_default="greedy",
        rich_help_panel=HOW,
    ),
]
Init = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="SFT run that `ppo` starts from.", show_default="none", rich_help_panel=HOW),
]
Force = Annotated[bool, typer.Option("--force", help="Replace a run of other settings.", rich_help_panel=PLACE)]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Go on with a run of these settings that was stopped, as if it had not been.",
        rich_help_panel=PLACE,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Any setting, as in ppo.clip=0.1; `adjudge settings` lists them.", show_default=False
    ),
]


SETTING_OF = {
    "method": "method",
    "model": "model",
    "seed": "seed",
    "mixture": "data.mixture",
    "data_dir": "data.data_dir",
    "train_rows": "data.train_rows",
    "eval_rows": "data.eval_rows",
    "split": "data.split",
    "encoder": "encoder.model",
    "prompt_style": "prompt.style",
    "decode": "evaluation.decode",
    "init": "init",
}
"""The setting that a verb's parameter gives, for those that give one."""
OWN_TABLE = ("text", "label", "labels", "dev")
"""The parameters that describe the table which ``--data`` names."""


def build_config(given: Mapping[str, Any]) -> Config:
    """Preset, file, ``key=value``, then the options: `given` are the parameters of a verb (``ctx.params``). Raises ConfigError."""
    from adjudge.config import load_config

    values = {setting: given.get(name) for name, setting in SETTING_OF.items()}
    return load_config(preset=given["preset"], file=given["config"], overrides=given["overrides"] or (), values=values)


def chosen_tasks(given: Mapping[str, Any], config: Config) -> list[TaskSpec]:
    """The tasks that are asked for: the user's own table, or those named, or the configuration's.

    `given` are the parameters of a verb. Raises ConfigError when they contradict each other, TaskError and DataError as the tasks do.
    """
    from adjudge.errors import ConfigError
    from adjudge.tasks import infer_task, load_task

    names, data = given["task"], given["data"]
    text, label, labels, dev = (given[name] for name in OWN_TABLE)
    if data is None:
        alone = [option_of(name) for name in OWN_TABLE if given[name] is not None]
        if alone:
            raise ConfigError(f"{alone[0]} describes your own table: name it with --data FILE.")
        return [load_task(name) for name in split_list(names if names is not None else config.task, "--task")]
    if names is not None:
        raise ConfigError("--task and --data both say which rows: give one of them.")
    if text is None or label is None:
        raise ConfigError("--data needs --text COL (the text to judge) and --label COL (the right answer).")
    listed = split_list(labels, "--labels") if labels is not None else None
    return [infer_task(data, split_list(text, "--text"), label, listed, dev)]


def only_task(given: Mapping[str, Any], config: Config, verb: str) -> TaskSpec:
    """The one task that is asked for. Raises ConfigError when there are several, and as `chosen_tasks`."""
    from adjudge.errors import ConfigError

    specs = chosen_tasks(given, config)
    if len(specs) > 1:
        raise ConfigError(f"{verb} takes one task; `adjudge compare` takes several.")
    return specs[0]


def option_of(name: str) -> str:
    """A parameter's name as it is written on the command line."""
    return f"--{name.replace('_', '-')}"


def split_list(text: str, option: str) -> list[str]:
    """Split ``"a,b"``. Raises ConfigError when a part is empty."""
    from adjudge.errors import ConfigError

    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ConfigError(f"{option} '{text}' has an empty part: write a,b without a comma too many.")
    return parts


def parse_seeds(text: str) -> list[int]:
    """Read ``"0,1,2"``. Raises ConfigError for what is no whole number from 0."""
    from adjudge.errors import ConfigError

    parts = split_list(text, "--seeds")
    for part in parts:
        if not part.isascii() or not part.isdigit():
            raise ConfigError(f"--seeds '{text}': '{part}' is no whole number from 0. Write them as 0,1,2.")
    return [int(part) for part in parts]
