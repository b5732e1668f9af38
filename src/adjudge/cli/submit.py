"""``adjudge submit``: write the zip for GLUE's or SuperGLUE's site from runs, or check one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import (
    HOW,
    PLACE,
    ROWS,
    BaseModel,
    DataDir,
    RunDecode,
    SendRows,
    examples,
    option_of,
    split_list,
)

CHECK = "Check an existing submission"

EPILOG = examples(
    f"adjudge submit --run runs/glue/*/{EXAMPLE}/seed-0 --data-dir data --out glue.zip",
    "adjudge submit --run runs/rte --partial --out rte.zip --unreadable likeliest",
    "adjudge submit --check glue.zip",
    "adjudge submit --check CoLA.tsv",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("submit", epilog=EPILOG)(submit)


def submit(
    ctx: typer.Context,
    more: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR]...", help="More run folders.", show_default=False)
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="DIR...", help="Run folders, one for each task.", rich_help_panel=ROWS),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Write only the files of these tasks.",
            show_default="all tasks of the runs",
            rich_help_panel=ROWS,
        ),
    ] = None,
    data_dir: DataDir = None,
    model: BaseModel = None,
    decode: RunDecode = None,
    send_rows: SendRows = False,
    unreadable: Annotated[
        str | None,
        typer.Option(
            metavar="RULE,…",
            help="Replacement for an unreadable answer: likeliest, majority, or an answer.",
            show_default="none: refuse to write",
            rich_help_panel=HOW,
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Allow missing files. No site accepts such a zip.", rich_help_panel=HOW)
    ] = False,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.zip", help="File for the submission.", rich_help_panel=PLACE)
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="List every problem of a zip or of one of its files.",
            rich_help_panel=CHECK,
        ),
    ] = None,
) -> None:
    """Write the zip for the site of GLUE or SuperGLUE, or check one.

    The test rows are judged with finished runs, one for each task.
    """
    from adjudge.errors import ConfigError

    params = ctx.params
    if check is not None:
        unused = [
            name for name in ("run", "more", "task", "data_dir", "model", "decode", "unreadable", "out") if params[name]
        ]
        if unused:
            raise ConfigError(
                "--check reads an existing file; it does not go with "
                f"{'--run' if unused[0] == 'more' else option_of(unused[0])}."
            )
        _check(Path(check), partial=partial)
    elif not run:
        raise ConfigError(
            "Name the runs with --run DIR and the zip with --out FILE.zip; or a file to check with --check FILE."
        )
    elif out is None:
        raise ConfigError("Name the zip with --out FILE.zip.")
    else:
        _write(params)


def _check(path: Path, *, partial: bool) -> None:
    from adjudge.errors import DataError
    from adjudge.submission.check import check_submission

    problems = check_submission(path, partial=partial)
    if problems:
        raise DataError(
            f"{path} would be refused, or scored wrongly:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )
    typer.echo(
        f"{path}: its content is right; --partial, so missing files were not looked for."
        if partial
        else f"{path}: nothing is wrong."
    )


def _write(params: Mapping[str, Any]) -> None:
    from adjudge.submission.submit import submit as make

    parts = make(
        [*params["run"], *(params["more"] or ())],
        params["out"],
        tasks=split_list(params["task"], "--task") if params["task"] is not None else None,
        data_dir=params["data_dir"],
        decode=params["decode"],
        model=params["model"],
        unreadable=split_list(params["unreadable"], "--unreadable") if params["unreadable"] is not None else (),
        partial=params["partial"],
    )
    for part, file in parts:
        filled = f", {file.filled:,} unreadable: {params['unreadable']}" if file.filled else ""
        typer.echo(f"{part.form.file:<13} {part.form.rows:>7,} rows  {part.run.folder}{filled}")
    typer.echo(f"→ {params['out']}" + (" (--partial: the site wants every file)" if params["partial"] else ""))
