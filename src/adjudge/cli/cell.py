"""``adjudge cell``: run the cells of a comparison, described on standard input. Not for people.

See `adjudge.experiments.process`.
"""

from __future__ import annotations

import sys

import typer


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("cell", hidden=True)(cell)


def cell() -> None:
    """Run the cells that standard input describes."""
    from adjudge.errors import AdjudgeError, Terminated
    from adjudge.experiments.process import serve

    try:
        serve(sys.stdin)
    except AdjudgeError:
        raise typer.Exit(2) from None  # the run folder holds the reason; the calling process reports it
    except Terminated:
        raise typer.Exit(143) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
