"""``adjudge fetch``: download models and sentences before they are needed."""

from __future__ import annotations

from typing import Annotated

import typer

from adjudge.cli.options import examples

EPILOG = examples("adjudge fetch", "adjudge fetch smollm2-135m")


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("fetch", epilog=EPILOG)(fetch)


def fetch(
    what: Annotated[
        str, typer.Argument(metavar="WHAT", help="smollm2-135m, minilm-l6, vader (rated sentences), or all.")
    ] = "all",
) -> None:
    """Download the small model, the encoder and the rated sentences into the cache, once.

    Nothing is installed.
    """
    from adjudge.setup.fetch import fetch as fetch_into_cache

    for folder in fetch_into_cache(what):
        typer.echo(str(folder))
