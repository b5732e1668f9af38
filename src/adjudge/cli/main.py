"""The verbs, and how an error or Ctrl-C ends one."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from adjudge.cli.interrupts import what_next
from adjudge.errors import AdjudgeError, Terminated
from adjudge.system.parallel import is_first, rank, world_size

TRAIN = "train"
"""The verb that several processes can do together."""
ERROR, INTERRUPTED, TERMINATED = 2, 130, 143
"""Exit codes: an error the user can correct, Ctrl-C, SIGTERM.

Exit code 1 is for failed cells, a negative result of `rerun` or `doctor`, and our own bugs.
"""
OUT_OF_MEMORY = (
    "memory ran out. Judge fewer rows at once (evaluation.batch_size=8), train with smaller passes "
    "(runtime.micro_batch_size=auto), shorten the texts (prompt.max_tokens=512), or take coarser weights "
    "(runtime.dtype=bfloat16, runtime.quantization=4bit). What was finished is kept; adjudge train goes on with "
    "--resume."
)


class Verbs(TyperGroup):
    """Ends a verb with one red paragraph instead of a traceback when the user can correct the cause."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. ``ADJUDGE_TRACEBACK=1`` lets errors through."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            word, code = ("terminated", TERMINATED) if isinstance(stop, Terminated) else ("interrupted", INTERRUPTED)
            folder = stop.args[0] if stop.args else None
            if is_first():
                _print_error(f"{word}{what_next(ctx.invoked_subcommand, sys.argv, folder)}")
            raise typer.Exit(code) from None
        except BrokenPipeError:
            raise  # the reader of our output is gone: nothing is wrong here
        except (AdjudgeError, OSError) as error:
            if os.environ.get("ADJUDGE_TRACEBACK"):
                raise
            _print_error(f"error: {error}{_advice(error)}")
            raise typer.Exit(ERROR) from None
        except (MemoryError, RuntimeError) as error:
            if os.environ.get("ADJUDGE_TRACEBACK") or not _is_out_of_memory(error):
                raise
            _print_error(f"error: {OUT_OF_MEMORY}\n{str(error)[:300]}")
            raise typer.Exit(ERROR) from None


def _check_launcher(verb: str | None) -> None:
    """Raise ConfigError for a verb that several processes would do several times over."""
    from adjudge.errors import ConfigError

    if world_size() > 1 and verb != TRAIN:
        raise ConfigError(
            f"torchrun and accelerate launch are for `adjudge {TRAIN}`; `adjudge {verb}` is one process. "
            "`adjudge compare --jobs N` has several runs at work."
        )


def _is_out_of_memory(error: BaseException) -> bool:
    if "torch" not in sys.modules:  # it takes seconds to import, and click ends a verb with a RuntimeError
        return isinstance(error, MemoryError)
    from adjudge.system.memory import is_out_of_memory

    return is_out_of_memory(error)


def _advice(error: Exception) -> str:
    """Return what to do about an error of the operating system, whose own message does not say it."""
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        return (
            ". The disk is full; files written before are intact. Free some space and repeat the command "
            "(adjudge train: with --resume)."
        )
    if code in (errno.EROFS, errno.EACCES, errno.EPERM):
        return ". Writing there is not permitted. Name another folder with --out, or change its permissions."
    return ""


def _print_error(text: str) -> None:
    from adjudge.system.console import console

    if world_size() > 1:
        text = f"process {rank()}: {text}"
    console.print(text, style="bold red", markup=False)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Make a language model judge text: prompt it, fine-tune it, or reinforce it. Compare such methods with each "
    "other and with a fine-tuned encoder, on the same rows, prompts and budget.",
    epilog="Begin with:\n\n`adjudge fetch`\n\n`adjudge compare --train-rows 200 --eval-rows 200`",
)


def _version(requested: bool) -> None:
    if requested:
        from adjudge.version import __version__

        typer.echo(f"adjudge {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    _check_launcher(ctx.invoked_subcommand)


def _add_verbs() -> None:
    from adjudge.cli import (
        audit,
        calibrate,
        cell,
        compare,
        continual,
        demo,
        doctor,
        evaluate,
        export,
        fetch,
        generate,
        methods,
        predict,
        prune,
        push,
        report,
        rerun,
        serve,
        settings,
        submit,
        tasks,
        train,
        tune,
    )

    judging = (compare, train, evaluate, calibrate, predict, serve, export, push, submit, report, rerun)
    others = (tune, audit, continual, prune, generate, methods, tasks, settings, demo, fetch, doctor)
    for module in (*judging, *others):
        module.add_to(app)
    cell.add_to(app)


_add_verbs()


def main() -> None:
    """Run the command ``adjudge``."""
    signal.signal(signal.SIGTERM, _terminate)
    app()


def _terminate(_number: int, _frame: object) -> None:
    raise Terminated
