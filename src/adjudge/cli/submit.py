"""``adjudge submit``: the zip that GLUE's or SuperGLUE's site asks for, written from runs, or checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from adjudge.cli.options import HOW, PLACE, ROWS, DataDir, Decode, option_of, split_list

CHECK = "A submission there is"

EPILOG = (
    "Examples:\n\n`adjudge submit --run runs/glue/*/sft/seed-0 --data-dir data --out glue.zip`\n\n"
    "`adjudge submit --run runs/rte --partial --data-dir data --out rte.zip --unreadable likeliest`\n\n"
    "`adjudge submit --check glue.zip`\n\n`adjudge submit --check CoLA.tsv`"
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
        typer.Option(
            metavar="DIR...", help="Run folders, one for each task.", show_default="none", rich_help_panel=ROWS
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,…",
            help="Only the files of these tasks.",
            show_default="all that the runs judge",
            rich_help_panel=ROWS,
        ),
    ] = None,
    data_dir: DataDir = None,
    decode: Decode = None,
    unreadable: Annotated[
        str | None,
        typer.Option(
            metavar="RULE,…",
            help="What stands for an answer that cannot be read: likeliest, majority, or an answer.",
            show_default="nothing: refuse",
            rich_help_panel=HOW,
        ),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Files may be missing, which no site takes.", rich_help_panel=HOW)
    ] = False,
    out: Annotated[
        str | None, typer.Option(metavar="FILE.zip", help="The submission.", show_default="none", rich_help_panel=PLACE)
    ] = None,
    check: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Say all that is wrong with a zip or one of its files.",
            show_default="none",
            rich_help_panel=CHECK,
        ),
    ] = None,
) -> None:
    """Write the zip that the site of GLUE or SuperGLUE asks for, judging the test rows with finished runs; or check one."""
    from adjudge.errors import ConfigError

    given = ctx.params
    if check is not None:
        wrong = [name for name in ("run", "more", "task", "data_dir", "decode", "unreadable", "out") if given[name]]
        if wrong:
            raise ConfigError(
                f"--check looks at a file that there is; it does not go with {'--run' if wrong[0] == 'more' else option_of(wrong[0])}."
            )
        _check(Path(check), partial=partial)
    elif not run:
        raise ConfigError(
            "Name the runs with --run DIR and the zip with --out FILE.zip; or a file to check with --check FILE."
        )
    elif out is None:
        raise ConfigError("Name the zip with --out FILE.zip.")
    else:
        _write(given)


def _check(path: Path, *, partial: bool) -> None:
    from adjudge.errors import DataError
    from adjudge.submission.check import check_submission

    problems = check_submission(path, partial=partial)
    if problems:
        raise DataError(
            f"{path} would be refused, or scored wrongly:\n" + "\n".join(f"  - {problem}" for problem in problems)
        )
    typer.echo(
        f"{path}: what is in it is right; --partial, so missing files were not looked for."
        if partial
        else f"{path}: nothing is wrong."
    )


def _write(given: Mapping[str, Any]) -> None:
    from adjudge.submission.submit import submit as make

    parts = make(
        [*given["run"], *(given["more"] or ())],
        given["out"],
        tasks=split_list(given["task"], "--task") if given["task"] is not None else None,
        data_dir=given["data_dir"],
        decode=given["decode"],
        unreadable=split_list(given["unreadable"], "--unreadable") if given["unreadable"] is not None else (),
        partial=given["partial"],
    )
    for part, file in parts:
        filled = f", {file.filled:,} unreadable: {given['unreadable']}" if file.filled else ""
        typer.echo(f"{part.form.file:<13} {part.form.rows:>7,} rows  {part.run.folder}{filled}")
    typer.echo(f"→ {given['out']}" + (" (--partial: the site wants every file)" if given["partial"] else ""))
