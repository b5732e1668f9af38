"""``adjudge methods``: list the methods, or describe one with its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import Preset, examples, option_for
from adjudge.cli.settings import show_settings
from adjudge.cli.show import PAGE_COLUMNS, stdout

if TYPE_CHECKING:
    from adjudge.methods.registry import Entry

EPILOG = examples("adjudge methods", f"adjudge methods {EXAMPLE}", f"adjudge methods {EXAMPLE} --preset paper")

LEARNS_FROM = {
    "none": "nothing: it is not trained",
    "demonstrations": "training rows shown as examples in the prompt; it is not trained",
    "all": "the training rows",
}


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("methods", epilog=EPILOG)(methods)


def methods(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The method to describe.")] = None,
    preset: Preset = "default",
) -> None:
    """List the methods, or describe one with its settings.

    The list says for each method whether it is trained, its paper, and the groups of settings it reads.
    """
    if name is None:
        _list()
    else:
        _describe(name, preset)


def _list() -> None:
    from rich.table import Table
    from rich.text import Text

    from adjudge.methods.registry import METHODS

    table = Table("method", "what it is", "trained", "source", box=None, pad_edge=False)
    for entry in METHODS.values():
        description = Text.assemble(entry.summary, (f"\nsettings: {', '.join(entry.settings)}", "dim"))
        table.add_row(Text(entry.name), description, "yes" if entry.trains else "no", Text(entry.source))
    stdout(PAGE_COLUMNS).print(table)


def _describe(name: str, preset: str) -> None:
    from rich.table import Table
    from rich.text import Text

    from adjudge.config import keys_of, load_config
    from adjudge.methods.registry import get_entry

    entry = get_entry(name)
    table = Table.grid(padding=(0, 2))
    for fact, text in _facts(entry).items():
        table.add_row(Text(f"  {fact}:"), Text(text))
    typer.echo(entry.name)
    stdout(PAGE_COLUMNS).print(table)
    typer.echo("\nIts settings, as KEY=VALUE (data, evaluation and runtime are for every method):\n")
    keys = {key: meaning for key, meaning in keys_of().items() if key.partition(".")[0] in entry.settings}
    show_settings(load_config(preset=preset), keys, PAGE_COLUMNS)


def _facts(entry: Entry) -> dict[str, str]:
    from adjudge.methods.registry import MULTI

    facts = {
        "what it is": entry.summary,
        "source": entry.source,
        "learns from": LEARNS_FROM[entry.rows],
        "model": f"named by {option_for(entry.model)}" if entry.model else "none",
        "run it with": f"adjudge train {entry.name}" if entry.trains else _evaluating(entry),
    }
    if entry.trains_adapter:
        facts["several tasks"] = f"one adapter for all of them; in a comparison it is {MULTI}{entry.name}"
    if entry.trains_adapter:
        facts["starts"] = "from the model, or with --init from a finished run"
    return facts


def _evaluating(entry: Entry) -> str:
    return " ".join([f"adjudge evaluate --method {entry.name}", *(f"{key}=…" for key in entry.needs)])
