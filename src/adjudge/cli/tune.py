"""``adjudge tune``: search the settings of methods on held-out training rows."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjudge.cli import options, own_data
from adjudge.cli.completion import complete_method
from adjudge.cli.method_names import ADAPTERS, EXAMPLE

if TYPE_CHECKING:
    from adjudge.methods.search_space import Choices, Range

EPILOG = options.examples(
    f"adjudge tune {EXAMPLE} --task vader/movies --train-rows 200 --trials 8",
    f"adjudge tune {EXAMPLE},{ADAPTERS[1]},encoder --data reviews.csv --text text --label label --budget 2h",
    f"adjudge tune {EXAMPLE} --task vader/movies --search {EXAMPLE}.optimizer.lr=1e-4..1e-3 "
    f"--search {EXAMPLE}.batch_size=8,16",
)
WHAT = "The search"
_UNITS_S = {"h": 3600, "m": 60, "s": 1}


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("tune", epilog=EPILOG)(tune)


def tune(
    ctx: typer.Context,
    methods: Annotated[
        str,
        typer.Argument(metavar="METHOD,…", help="Methods to tune.", autocompletion=complete_method),
    ],
    overrides: options.Overrides = None,
    trials: Annotated[
        int, typer.Option(metavar="N", help="Trials of each method; the first is its default.", rich_help_panel=WHAT)
    ] = 12,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin no round of trials after this time of them, as in 90m or 2h.",
            show_default="no limit",
            rich_help_panel=WHAT,
        ),
    ] = None,
    search: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A..B|KEY=A,B",
            help="A setting to search: between two numbers, on a logarithmic scale, or among some values.",
            show_default="rate, passes, warm start, KL, as the method has them",
            rich_help_panel=WHAT,
        ),
    ] = None,
    hold_out: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Training rows that trials are judged on, and do not learn from.",
            show_default="300, at most a third",
            rich_help_panel=WHAT,
        ),
    ] = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
    train_rows: options.TrainRows = None,
    data: options.Data = None,
    dataset: own_data.Dataset = None,
    dataset_config: own_data.DatasetConfig = None,
    dev: options.Dev = None,
    instruction: options.Instruction = None,
    text: options.Text = None,
    label: options.Label = None,
    labels: options.Labels = None,
    kind: options.Kind = None,
    separator: options.Separator = None,
    encoding: options.Encoding = None,
    model: options.Model = None,
    encoder: options.Encoder = None,
    seed: options.Seed = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    reward_funcs: options.RewardFuncs = None,
    send_rows: options.SendRows = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder for the search.", show_default="runs/tune-TASK", rich_help_panel=options.PLACE
        ),
    ] = None,
) -> None:
    """Search the settings of methods on held-out training rows: the same rows and as many trials for each.

    No row of the dev split is read, so a comparison with --tuned DIR is still fair. Given again, the same command goes
    on where it was; more --trials extend it.
    """
    from adjudge.config import change
    from adjudge.experiments.tune import all_failed
    from adjudge.experiments.tune import tune as run_search
    from adjudge.experiments.what_was_read import report_own_table
    from adjudge.report.tuned import tuned_lines, tuned_table
    from adjudge.runs.default_folder import search_folder
    from adjudge.system.console import console, warn

    settings = options.build_config(ctx.params)
    if hold_out is not None:
        settings = change(settings, {"data.hold_out": hold_out})
    names = options.split_list(methods, "METHOD")
    spec = own_data.only_task(ctx.params, settings, "tune")
    report_own_table(spec, settings)
    folder = Path(out) if out is not None else search_folder(spec)
    tuned = run_search(
        settings,
        spec,
        names,
        folder,
        trials=trials,
        budget_s=None if budget is None else seconds(budget),
        search=dict(parse_search(each) for each in search or ()),
        command=shlex.join(["adjudge", *sys.argv[1:]]),
    )
    console.print(tuned_table(tuned))
    for line in tuned_lines(tuned):
        typer.echo(line)
    failed = all_failed(tuned)
    typer.echo(folder / "tuned.json")
    if found := [name for name in names if name not in failed]:
        typer.echo("\njudge them with rows they were not chosen on:")
        rows = f"--tuned {shlex.quote(str(folder))}{_same_rows(ctx.params)}"
        typer.echo(f"  adjudge compare --methods {','.join(found)} {rows}")
    if failed:
        warn(f"every trial of {', '.join(failed)} failed; {folder} has their messages.")
        raise typer.Exit(1)


def seconds(text: str) -> float:
    """Return the seconds of a time such as ``2h``, ``90m`` or ``1h30m``. Raises ConfigError."""
    from adjudge.errors import ConfigError

    parts = re.findall(r"(\d+(?:\.\d+)?)([hms])", text.strip())
    if not parts or "".join(map("".join, parts)) != text.strip():
        raise ConfigError(f"--budget '{text}' is no time: write 2h, 90m or 1h30m.")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def parse_search(text: str) -> tuple[str, Range | Choices]:
    """Return the setting and the values of ``KEY=A..B`` or ``KEY=A,B``. Raises ConfigError."""
    from adjudge.errors import ConfigError
    from adjudge.methods.search_space import given_space

    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not values:
        raise ConfigError(f"--search '{text}': write KEY=A..B for a range, or KEY=A,B for some values.")
    is_range = ".." in values
    return key, given_space(key, values if is_range else _values(key, options.split_list(values, "--search")))


def _values(key: str, texts: Sequence[str]) -> list[Any]:
    from adjudge.config import parse_override

    return [parse_override(f"{key}={text}")[1] for text in texts]


def _same_rows(params: dict[str, Any]) -> str:
    """Return the options of the command that name its rows and its model, for the next command."""
    names = ("task", "data_dir", "train_rows", "data", "dataset", "dataset_config", "dev", *own_data.OWN_ROWS, "model")
    given = {name: params[name] for name in dict.fromkeys(names) if params.get(name) is not None}
    return "".join(f" {options.option_of(name)} {shlex.quote(str(value))}" for name, value in given.items())
