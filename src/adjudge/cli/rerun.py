"""``adjudge rerun DIR``: repeat a run and compare the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options
from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.show import stdout

EPILOG = options.examples(
    f"adjudge rerun runs/vader-movies/{EXAMPLE}-seed0",
    f"adjudge rerun runs/sst2/glue-sst2/{EXAMPLE}/seed-0 --data-dir data --out runs/again",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("rerun", epilog=EPILOG)(rerun)


def rerun(
    ctx: typer.Context,
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder of a complete run.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings of the machine: runtime.*.", show_default=False),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder for the new run.", show_default="DIR-rerun", rich_help_panel=options.PLACE
        ),
    ] = None,
    data_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder where the same data are now.", show_default="as in the run"),
    ] = None,
    reward_funcs: options.RewardFuncs = None,
    report_to: options.ReportTo = None,
    send_rows: options.SendRows = False,
    force: options.Force = False,
) -> None:
    """Repeat a run from its own settings and tasks, and report whether everything came out equal.

    It reports to no tracker unless --report-to names one.

    First the differences between the two environments are listed, then the result for each part: records, tensors,
    predictions, scores. The exit code is 1 when something differs.
    """
    from rich.table import Table
    from rich.text import Text

    from adjudge.experiments.rerun import compare_runs, environment_lines
    from adjudge.experiments.rerun import rerun as repeat_run

    functions = options.split_list(reward_funcs, "--reward-funcs") if reward_funcs is not None else []
    first = Path(folder)
    second = repeat_run(
        *(folder, out),
        data_dir=data_dir,
        force=force,
        reward_funcs=functions,
        report_to=report_to,
        settings=options.given_settings(ctx.params),
    )
    lines = environment_lines(first, second)
    console = stdout()
    title = f"The environment differs: {first} → {second}" if lines else "The environment is the same."
    console.print("\n".join([title, *(f"  {line}" for line in lines)]), markup=False, soft_wrap=True)
    table = Table("part", "result", "details, or the first difference", box=None, pad_edge=False)
    parts = compare_runs(first, second)
    for part in parts:
        table.add_row(Text(part.name), Text("equal" if part.equal else "differs"), Text(part.detail))
    console.print(table)
    different = sum(not part.equal for part in parts)
    verdict = f"{different} of {len(parts)} parts are not equal." if different else "all parts are equal."
    console.print(f"{second}: {verdict}", markup=False)
    if different:
        raise typer.Exit(1)
