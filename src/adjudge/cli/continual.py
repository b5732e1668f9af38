"""``adjudge continual``: one task after another, and what is forgotten on the way."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options
from adjudge.cli.method_names import EXAMPLE

EPILOG = options.examples(
    "adjudge continual --tasks vader/movies,vader/tweets --train-rows 200 --eval-rows 200",
    "adjudge continual --tasks glue/sst2,glue/mrpc,glue/cola --data-dir data --train-rows 300 "
    f"--strategy sequential,replay=0.1,separate,multi --method {EXAMPLE} --out runs/stream",
)
WHAT = "The stream"


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("continual", epilog=EPILOG)(continual)


def continual(
    ctx: typer.Context,
    tasks: Annotated[
        str, typer.Option(metavar="NAME,…", help="Tasks in their order: names or .yaml files.", rich_help_panel=WHAT)
    ],
    overrides: options.Overrides = None,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="Method of every stage; it trains an adapter.", rich_help_panel=WHAT)
    ] = EXAMPLE,
    strategy: Annotated[
        str,
        typer.Option(
            metavar="NAME,…",
            help="sequential (one adapter goes on), replay=SHARE (and repeats rows of earlier tasks), separate (an "
            "adapter per task), multi (all at once), l3 (L3-style: each task from the nearest before it).",
            rich_help_panel=WHAT,
        ),
    ] = "sequential",
    order: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME,…",
            help="Another order of the same tasks; several with several --order.",
            show_default="that of --tasks",
            rich_help_panel=WHAT,
        ),
    ] = None,
    data_dir: options.DataDir = None,
    train_rows: options.TrainRows = None,
    eval_rows: options.EvalRows = None,
    split: options.Split = None,
    model: options.Model = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="N,…", help="Seeds; a stream per seed.", show_default="0", rich_help_panel=options.HOW),
    ] = None,
    preset: options.Preset = "default",
    config: options.ConfigFile = None,
    prompt_style: options.PromptStyle = None,
    decode: options.Decode = None,
    init: options.Init = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="For l3: the base of an earlier stream, to begin with.", rich_help_panel=WHAT),
    ] = None,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            help="Folder for the stages and the matrix.",
            rich_help_panel=options.PLACE,
        ),
    ] = "runs/continual",
) -> None:
    """Train on one task after another, and judge all tasks after every stage.

    Writes the matrix of all tasks after every stage, with what was kept, forgotten and carried over. --train-rows
    counts per task. Given again, the same command goes on where it was.
    """
    from adjudge.experiments.continual import check_method, plan_streams, run_streams
    from adjudge.report.stream import (
        figure_lines,
        matrix_table,
        render_stream,
        stream_markdown,
        stream_title,
        transfer_lines,
    )
    from adjudge.system.console import console, note
    from adjudge.system.files import write_text
    from adjudge.tasks import load_task

    name = check_method(method)
    settings = options.build_config({**ctx.params, "method": name})
    specs = [load_task(each) for each in options.split_list(tasks, "--tasks")]
    streams = plan_streams(
        settings,
        specs,
        options.split_list(strategy, "--strategy"),
        [options.split_list(each, "--order") for each in order or ()],
        options.parse_seeds(seeds) if seeds is not None else [settings.seed],
        Path(out),
    )
    command = shlex.join(["adjudge", *sys.argv[1:]])
    matrix = run_streams(settings, streams, Path(out), base=None if base is None else Path(base), command=command)
    for stream in matrix["runs"]:
        note(f"\n{stream_title(stream)}")
        console.print(matrix_table(stream))
        for line in (*figure_lines(stream), *transfer_lines(stream)):
            note(line)
    write_text(Path(out) / "matrix.md", stream_markdown(matrix))
    note(f"\nmatrix:     {Path(out) / 'matrix.json'}")
    note(f"report:     {render_stream(matrix, Path(out) / 'report.html')}")
