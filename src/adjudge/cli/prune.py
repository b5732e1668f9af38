"""``adjudge prune --model M --ratio R --out DIR``: a smaller model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adjudge.cli import options, own_data
from adjudge.cli.method_names import EXAMPLE

if TYPE_CHECKING:
    from adjudge.compress.prune import Calibration, Pruning
    from adjudge.config import Config

EPILOG = options.examples(
    "adjudge prune --task vader/movies --ratio 0.25 --out models/small",
    "adjudge prune --model Qwen/Qwen2.5-0.5B-Instruct --ratio mlp=0.3,heads=0.5 --data my.csv --text text --label label"
    " --out models/small",
    f"adjudge train {EXAMPLE} --model models/small --task vader/movies",
)
WHAT = "What is pruned"


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("prune", epilog=EPILOG)(prune)


def prune(
    ctx: typer.Context,
    ratio: Annotated[
        str,
        typer.Option(
            metavar="R",
            help="Share of the MLP channels and heads that goes, as in 0.25, or one each, as in mlp=0.5,heads=0.34.",
            rich_help_panel=WHAT,
        ),
    ],
    out: Annotated[
        str, typer.Option(metavar="DIR", help="Folder for the model; must not exist.", rich_help_panel=options.PLACE)
    ],
    overrides: options.Overrides = None,
    model: options.Model = None,
    criterion: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How groups are scored: taylor (the loss's change), magnitude, random, or saap (SAAP-style).",
            rich_help_panel=WHAT,
        ),
    ] = "taylor",
    kinds: Annotated[
        str, typer.Option(metavar="KIND,…", help="mlp, heads, or both.", rich_help_panel=WHAT)
    ] = "mlp,heads",
    importance: Annotated[
        str,
        typer.Option(
            metavar="FORM", help="Score single weights (element) or whole rows (vector).", rich_help_panel=WHAT
        ),
    ] = "element",
    second_order: Annotated[
        bool,
        typer.Option("--second-order", help="With taylor: subtract the diagonal Fisher's term.", rich_help_panel=WHAT),
    ] = False,
    padded: Annotated[
        bool,
        typer.Option(
            "--padded",
            help="With saap: layers lose different shares, and are filled with zeros to the widest.",
            rich_help_panel=WHAT,
        ),
    ] = False,
    rows: Annotated[
        int, typer.Option(min=1, metavar="N", help="Rows to take gradients on.", rich_help_panel=options.ROWS)
    ] = 32,
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Take gradients on the lines of a text file instead.", rich_help_panel=options.ROWS
        ),
    ] = None,
    task: options.Task = None,
    data_dir: options.DataDir = None,
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
    seed: options.Seed = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    dtype: Annotated[
        str,
        typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 weights.", rich_help_panel=options.PLACE),
    ] = "float32",
) -> None:
    """Cut the least important MLP channels and heads out of a Llama or Qwen2 model.

    The result is an ordinary model folder: every verb takes it as --model, and plain transformers loads it. It has lost
    something; train it to get it back. Gradients are taken on the task's training rows.
    """
    from adjudge.compress.prune import check_pruning, describe, load_for_pruning
    from adjudge.compress.prune import prune as prune_model
    from adjudge.system.console import note

    settings = options.build_config(ctx.params)
    pruning = _pruning(ctx.params, settings)
    check_pruning(pruning, settings.model, Path(out))
    network, tokenizer = load_for_pruning(settings.model, settings.runtime)
    note(f"{settings.model}: {describe(network)}")
    calibration = _calibration(ctx.params, settings, pruning, network, tokenizer)
    pruned = prune_model(network, tokenizer, settings.model, pruning, calibration, out)
    for name, (before, after) in pruned.widths.items():
        note(f"{name}: {before:,} → {after:,} per layer")
    note(f"parameters: {pruned.parameters_before:,} → {pruned.parameters:,} ({-100 * pruned.share:.1f} %)")
    note(f"written: {out}")
    note(f"train what was lost with: adjudge train {EXAMPLE} --model {out} --task …")


def _pruning(params: Mapping[str, Any], settings: Config) -> Pruning:
    from adjudge.compress.prune import Pruning, parse_ratios
    from adjudge.errors import ConfigError

    if params["importance"] not in ("element", "vector"):
        raise ConfigError(f"--importance '{params['importance']}': write element or vector.")
    if params["second_order"] and params["criterion"] != "taylor":
        raise ConfigError("--second-order is for --criterion taylor.")
    return Pruning(
        parse_ratios(params["ratio"], options.split_list(params["kinds"], "--kinds")),
        params["criterion"],
        elementwise=params["importance"] == "element",
        second_order=params["second_order"],
        padded=params["padded"],
        seed=settings.seed,
        dtype=params["dtype"],
    )


def _calibration(
    params: Mapping[str, Any], settings: Config, pruning: Pruning, network: Any, tokenizer: Any
) -> Calibration:
    """Return the rows on which gradients are taken; none where the criterion needs none."""
    from adjudge.compress.calibration import corpus_rows, task_rows
    from adjudge.compress.prune import Calibration
    from adjudge.errors import ConfigError

    if params["corpus"] is not None:
        if any(params[name] is not None for name in ("task", "data", "dataset")):
            raise ConfigError("--corpus takes the place of --task, --data and --dataset: give one of them.")
        if pruning.criterion not in ("magnitude", "random"):
            return corpus_rows(tokenizer, params["corpus"], params["rows"], settings.prompt.max_tokens)
    spec = own_data.only_task(params, settings, "prune")
    if pruning.criterion in ("magnitude", "random"):
        return Calibration()
    return task_rows(network, tokenizer, settings, spec, params["rows"])
