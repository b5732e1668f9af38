"""The options that several verbs share, and how they become a configuration and tasks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjudge.cli.completion import complete_setting, complete_tasks
from adjudge.cli.method_names import STARTERS, either, with_model
from adjudge.config.machine import TRACKERS

if TYPE_CHECKING:
    from adjudge.config import Config

ROWS, OWN, HOW, PLACE = "Rows", "Your own data", "How", "Where the results go"
"""Titles of the panels in a help page."""


Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|FILE.yaml",
        help="Task to judge; `adjudge tasks` lists them.",
        show_default="vader/movies",
        autocompletion=complete_tasks,
        rich_help_panel=ROWS,
    ),
]
Tasks = Annotated[
    str | None,
    typer.Option(
        "--task",
        metavar="NAME,…",
        help="One task or several: names (`adjudge tasks` lists them) or .yaml files.",
        show_default="vader/movies",
        autocompletion=complete_tasks,
        rich_help_panel=ROWS,
    ),
]
Mixture = Annotated[
    str | None,
    typer.Option(
        metavar="SHARES",
        help="Shares of several tasks in the training rows of one adapter: proportional (by size), equal, "
        "temperature=T (by size^(1/T)), or rows=A,B (of each task).",
        show_default="proportional; in a comparison equal",
        rich_help_panel=ROWS,
    ),
]
DataDir = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", help="Folder with GLUE or SuperGLUE in the official download layout.", rich_help_panel=ROWS
    ),
]
TrainRows = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of training rows, drawn by the seed. When `train` takes several tasks: of all together.",
        show_default="all",
        rich_help_panel=ROWS,
    ),
]
Shots = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Few rows: K training rows of each label, drawn by the seed.",
        show_default="all rows",
        rich_help_panel=ROWS,
    ),
]
EvalRows = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of judged rows, the same ones for every method and seed.",
        show_default="all",
        rich_help_panel=ROWS,
    ),
]
Folds = Annotated[
    int | None,
    typer.Option(
        metavar="K",
        help="Cross-validation for small data: K folds, each judged by a run that learns from the others.",
        show_default="no folds; the dev rows are judged",
        rich_help_panel=ROWS,
    ),
]
Split = Annotated[
    str | None, typer.Option(metavar="NAME", help="Split to judge.", show_default="dev", rich_help_panel=ROWS)
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
        help="A second table, to judge.",
        show_default="a fifth of --data is held out",
        rich_help_panel=OWN,
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        metavar="COL[,COL]",
        help="Column with the text to judge, or several columns; "
        r"a comma in a name is '\\,', and data.text is a key in an object.",
        rich_help_panel=OWN,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="COL",
        help="Column with the right answer; with --kind several or passes also COL,COL, with yes or no each.",
        rich_help_panel=OWN,
    ),
]
Labels = Annotated[
    str | None,
    typer.Option(
        metavar="RAW=WORD,…",
        help="Labels in order, each with its answer word, as in 0=Bad,1=Good. Labels with one word are joined; "
        r"a comma in a label is '\\,'.",
        show_default="as in the data",
        rich_help_panel=OWN,
    ),
]
Separator = Annotated[
    str | None,
    typer.Option(
        metavar="CHAR",
        help="What separates the columns of a CSV file: comma, semicolon, tab, pipe or any character.",
        show_default="as its header tells",
        rich_help_panel=OWN,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Encoding of the text, such as cp1252, latin-1 or utf-16.",
        show_default="utf-8, or as the file's byte-order mark tells",
        rich_help_panel=OWN,
    ),
]
Kind = Annotated[
    str | None,
    typer.Option(
        metavar="labels|ordered|number|several|passes",
        help="Whether the label column holds classes, classes in an order, a number, or several labels a|b: answered "
        "in words (several) or asked label by label (passes).",
        show_default="numbers with decimals, or more than 10 whole numbers, are a number",
        rich_help_panel=OWN,
    ),
]
Instruction = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What the model is asked, in your words; name every answer word in it.",
        show_default="Judge the LABEL of the TEXT below. Answer …",
        rich_help_panel=OWN,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="ID|DIR|api:NAME",
        help="Causal language model: a bundled one, a hub id, a folder, or api:NAME behind the API at api.base_url.",
        show_default="smollm2-135m",
        rich_help_panel=HOW,
    ),
]


def _consent(ctx: typer.Context, given: bool) -> bool:
    """Let rows leave this machine while the verb runs."""
    if given:
        from adjudge.models.chat_api import consent

        ctx.with_resource(consent())
    return given


SendRows = Annotated[
    bool,
    typer.Option(
        "--send-rows",
        help="Rows may leave this machine for a model behind an API (api:NAME); number and price are said first.",
        callback=_consent,
        rich_help_panel=HOW,
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="ID|DIR",
        help="Where the base model is now, if it has moved; its weights must be the same.",
        show_default="as recorded",
        rich_help_panel=HOW,
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        metavar="ID|DIR",
        help=f"Model for the method {either(with_model('encoder.model'))}.",
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
    str | None, typer.Option("--config", metavar="FILE.yaml", help="File with settings.", rich_help_panel=HOW)
]
PromptStyle = Annotated[
    str | None,
    typer.Option(
        metavar="chat|paper",
        help="Prompts in the model's chat template, or in the paper's plain form.",
        show_default="chat",
        rich_help_panel=HOW,
    ),
]


def _decode(default: str) -> Any:
    return typer.Option(
        metavar="greedy|labels|mean",
        help="Read the generated answer strictly, or take the most likely label; mean: of a number its mean too.",
        show_default=default,
        rich_help_panel=HOW,
    )


Decode = Annotated[str | None, _decode("greedy")]
RunDecode = Annotated[str | None, _decode("as the run was made")]
Init = Annotated[
    str | None,
    typer.Option(
        metavar="RUN", help=f"Start {either(STARTERS)} from the adapter of this finished run.", rich_help_panel=HOW
    ),
]
RewardFuncs = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:NAME,…",
        help="Your own reward functions, in place of right and wrong. Their files run.",
        rich_help_panel=HOW,
    ),
]
ReportTo = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,…",
        help=f"Experiment trackers to report to: {', '.join(TRACKERS)}.",
        show_default="none",
        rich_help_panel=PLACE,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier run in this folder.", rich_help_panel=PLACE)]
ReplaceFile = Annotated[
    bool, typer.Option("--force", help="Replace the file of --out, if there is one.", rich_help_panel=PLACE)
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue a stopped run with the same settings. The result is that of a run without a stop.",
        rich_help_panel=PLACE,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Run nothing: estimate time and memory from three measured batches per method.",
        rich_help_panel=PLACE,
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Any setting, as in lora.r=8; `adjudge settings` lists them.",
        show_default=False,
        autocompletion=complete_setting,
    ),
]
JudgingSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Settings of the machine and of judging: runtime.*, evaluation.batch_size, data.bad_rows.",
        show_default=False,
    ),
]


SETTING_OF = {
    "method": "method",
    "model": "model",
    "seed": "seed",
    "mixture": "data.mixture",
    "data_dir": "data.data_dir",
    "train_rows": "data.train_rows",
    "shots": "data.shots",
    "eval_rows": "data.eval_rows",
    "split": "data.split",
    "folds": "data.folds",
    "encoder": "encoder.model",
    "adapter": "adapter.folder",
    "prompt_style": "prompt.style",
    "decode": "evaluation.decode",
    "init": "init",
    "report_to": "tracking.report_to",
}
"""The setting of each parameter that gives one."""


def examples(*commands: str) -> str:
    """Return the end of a help page: example commands, one per line."""
    title = "Examples:" if len(commands) > 1 else "Example:"
    return "\n\n".join([title, *(f"`{command}`" for command in commands)])


def build_config(params: Mapping[str, Any], defaults: Mapping[str, Any] | None = None) -> Config:
    """Build the configuration from the parameters of a verb (``ctx.params``).

    Later sources win: the verb's `defaults`, preset, --config file, KEY=VALUE, options. Raises ConfigError.
    """
    from adjudge.config import load_config

    values = {setting: params.get(name) for name, setting in SETTING_OF.items()}
    if params.get("reward_funcs") is not None:
        from adjudge.methods.settings import function_settings

        values |= function_settings(tuple(split_list(params["reward_funcs"], "--reward-funcs")))
    overrides = params["overrides"] or ()
    return load_config(
        preset=params["preset"], file=params["config"], overrides=overrides, values=values, defaults=defaults
    )


def given_settings(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the KEY=VALUE arguments of a verb. Raises ConfigError for one of another form."""
    from adjudge.config import parse_override

    return dict(parse_override(text) for text in params["overrides"] or ())


def option_for(setting: str) -> str:
    """Return the option that gives a setting, or the setting as KEY=VALUE where there is none."""
    return next((option_of(name) for name, key in SETTING_OF.items() if key == setting), f"{setting}=VALUE")


def option_of(name: str) -> str:
    """Return a parameter's name as it is typed on the command line."""
    return f"--{name.replace('_', '-')}"


def split_list(text: str, option: str) -> list[str]:
    r"""Split ``"a,b"``; a comma after a backslash is part of a name.

    Raises ConfigError when a part is empty.
    """
    from adjudge.errors import ConfigError

    parts = [part.replace(r"\,", ",").strip() for part in re.split(r"(?<!\\),", text)]
    if not all(parts):
        raise ConfigError(f"{option} '{text}' has an empty part: write a,b without an extra comma.")
    return parts


def parse_seeds(text: str) -> list[int]:
    """Parse ``"0,1,2"``. Raises ConfigError for a part that is not a whole number from 0."""
    from adjudge.errors import ConfigError

    parts = split_list(text, "--seeds")
    for part in parts:
        if not part.isascii() or not part.isdigit():
            raise ConfigError(f"--seeds '{text}': '{part}' is no whole number from 0. Write them as 0,1,2.")
    return [int(part) for part in parts]
