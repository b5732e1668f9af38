"""The verbs, and how an error or Ctrl-C ends one."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adjudge.errors import AdjudgeError

ERROR, INTERRUPTED = 2, 130
"""Exit codes: what the user can mend, and Ctrl-C. 1 is for failed cells, a `rerun` or `doctor` that says no, and for our own faults."""


class Verbs(TyperGroup):
    """Ends a verb with one red paragraph instead of a traceback when the user can mend the cause."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. ``ADJUDGE_TRACEBACK=1`` lets errors through."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            _say(f"interrupted; {stop.args[0]} is incomplete" if stop.args else "interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            raise  # the reader of our output is gone: nothing is wrong here
        except (AdjudgeError, PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            if os.environ.get("ADJUDGE_TRACEBACK"):
                raise
            _say(f"error: {error}")
            raise typer.Exit(ERROR) from None


def _say(text: str) -> None:
    from adjudge.console import console

    console.print(text, style="bold red", markup=False)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a language model judge text, and show fairly how well it does: prompting, SFT, PPO and a fine-tuned encoder "
    "on the same rows, prompts and budget.",
    epilog="Begin with:\n\n`adjudge fetch`\n\n`adjudge compare --train-rows 200 --eval-rows 200`",
)


def _version(wanted: bool) -> None:
    if wanted:
        from adjudge import __version__

        typer.echo(f"adjudge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    pass


def _add_verbs() -> None:
    from adjudge.cli import cell, compare, doctor, evaluate, fetch, predict, report, rerun, settings, submit, tasks, train

    for module in (compare, train, evaluate, predict, submit, report, rerun, tasks, fetch, doctor, settings, cell):
        module.add_to(app)


_add_verbs()


def main() -> None:
    """The entry point of the command ``adjudge``."""
    app()
