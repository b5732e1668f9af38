"""The verbs, and how an error or Ctrl-C ends one."""

from __future__ import annotations

import errno
import os
import signal
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adjudge.errors import AdjudgeError, Terminated

ERROR, INTERRUPTED, TERMINATED = 2, 130, 143
"""Exit codes: what the user can mend, Ctrl-C, and SIGTERM. 1 is for failed cells, a `rerun` or `doctor` that says no, and our own faults."""


class Verbs(TyperGroup):
    """Ends a verb with one red paragraph instead of a traceback when the user can mend the cause."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. ``ADJUDGE_TRACEBACK=1`` lets errors through."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            word, code = ("terminated", TERMINATED) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
            _say(
                f"{word}; {stop.args[0]} is incomplete. The same command goes on there; adjudge train with --resume instead of --force."
                if stop.args
                else word
            )
            raise typer.Exit(code) from None
        except BrokenPipeError:
            raise  # the reader of our output is gone: nothing is wrong here
        except (AdjudgeError, OSError) as error:
            if os.environ.get("ADJUDGE_TRACEBACK"):
                raise
            _say(f"error: {error}{_what_to_do(error)}")
            raise typer.Exit(ERROR) from None


def _what_to_do(error: Exception) -> str:
    """What to do about an error of the system, where its own words do not say it."""
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        return ". The disk is full; what was written before is whole. Free some space and give the command again (adjudge train with --resume)."
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ". Nothing may be written there. Name another folder with --out, or change its permissions."
    return ""


def _say(text: str) -> None:
    from adjudge.system.console import console

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
        from adjudge.version import __version__

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
    from adjudge.cli import (
        cell,
        compare,
        doctor,
        evaluate,
        fetch,
        predict,
        report,
        rerun,
        settings,
        submit,
        tasks,
        train,
    )

    for module in (compare, train, evaluate, predict, submit, report, rerun, tasks, fetch, doctor, settings, cell):
        module.add_to(app)


_add_verbs()


def main() -> None:
    """The entry point of the command ``adjudge``."""
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated
