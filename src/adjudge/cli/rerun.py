"""``adjudge rerun DIR``: do a run again, and compare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from adjudge.cli import options
from adjudge.cli.show import stdout

EPILOG = (
    "Examples:\n\n`adjudge rerun runs/vader-movies/sft-seed0`\n\n"
    "`adjudge rerun runs/sst2/glue-sst2/ppo/seed-0 --data-dir data --out runs/again`"
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("rerun", epilog=EPILOG)(rerun)


def rerun(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The folder of a complete run.")],
    out: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Folder of the new run.", show_default="DIR-rerun", rich_help_panel=options.PLACE
        ),
    ] = None,
    data_dir: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where the same data lie now.", show_default="as in the run")
    ] = None,
    force: options.Force = False,
) -> None:
    """Do a run again from its own settings and tasks, and say whether all came out equal: records, tensors, predictions, scores.

    Ends with exit code 1 when something differs. What differs between the two machines is said first.
    """
    from rich.table import Table
    from rich.text import Text

    from adjudge.experiments.rerun import compare_runs, environment_lines
    from adjudge.experiments.rerun import rerun as do_again

    first, second = Path(folder), do_again(folder, out, data_dir=data_dir, force=force)
    lines = environment_lines(first, second)
    console = stdout()
    shown = "The environment is the same." if not lines else f"The environment differs: {first} → {second}"
    console.print("\n".join([shown, *(f"  {line}" for line in lines)]), markup=False, soft_wrap=True)
    table = Table("part", "result", "what, or where first", box=None, pad_edge=False)
    parts = compare_runs(first, second)
    for part in parts:
        table.add_row(Text(part.name), Text("equal" if part.equal else "differs"), Text(part.said))
    console.print(table)
    wrong = sum(not part.equal for part in parts)
    console.print(
        f"{second}: {'all parts are' if not wrong else f'{wrong} of {len(parts)} parts are not'} equal.", markup=False
    )
    if wrong:
        raise typer.Exit(1)
