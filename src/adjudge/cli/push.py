"""``adjudge push --run DIR OWNER/NAME``: publish a judge on the hub."""

from __future__ import annotations

from typing import Annotated

import typer

from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import examples

EPILOG = examples(
    f"adjudge push --run runs/vader-movies/{EXAMPLE}-seed0 owner/name",
    f"adjudge push --run runs/vader-movies/{EXAMPLE}-seed0 owner/name --public",
)


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("push", epilog=EPILOG)(push)


def push(
    repo: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository; it is created when it is missing.")],
    run: Annotated[str, typer.Option(metavar="DIR", help="A finished run folder, or a judge that left its run.")],
    public: Annotated[bool, typer.Option("--public", help="Create a public repository, not a private one.")] = False,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="OWNER/NAME",
            help="The base model on the hub, where the run has it in a folder.",
            show_default="as recorded",
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option(metavar="BRANCH", help="Branch to write to.", show_default="main")
    ] = None,
) -> None:
    """Publish a judge on the hub: weights, tokenizer, judge.json and a model card with its figures.

    Rows are never uploaded. `adjudge.open_judge("owner/name")` opens it anywhere.
    """
    from adjudge.ship.push import push_judge

    typer.echo(push_judge(run, repo, public=public, base=base, revision=revision))
