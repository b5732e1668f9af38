"""``adjudge settings``: every setting with its value and its meaning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from adjudge.cli.method_names import EXAMPLE
from adjudge.cli.options import Preset, examples
from adjudge.cli.show import LOG_COLUMNS, stdout

if TYPE_CHECKING:
    from adjudge.config import Config

EPILOG = examples("adjudge settings lora", "adjudge settings lr --preset paper", f"adjudge train {EXAMPLE} lora.r=8")


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("settings", epilog=EPILOG)(settings)


def settings(
    part: Annotated[
        str | None, typer.Argument(metavar="[PART]", help="Only keys that contain this, as in lora or lr.")
    ] = None,
    preset: Preset = "default",
) -> None:
    """List the settings: key, value and meaning.

    Give any of them to a verb as KEY=VALUE, or in a --config file. `adjudge methods NAME` lists those of one method.
    """
    from adjudge.config import keys_of, load_config
    from adjudge.errors import ConfigError

    keys = {key: meaning for key, meaning in keys_of().items() if part is None or part in key}
    if not keys:
        raise ConfigError(f"No setting has '{part}' in its name. `adjudge settings` lists all of them.")
    show_settings(load_config(preset=preset), keys)


def show_settings(config: Config, keys: Mapping[str, str], columns: int = LOG_COLUMNS) -> None:
    """Print the values of `keys` (key → meaning) in a table.

    Without a terminal the table is `columns` wide.
    """
    import yaml
    from rich.table import Column, Table
    from rich.text import Text

    from adjudge.config import value_of

    others = [Column(name, overflow="fold") for name in ("value", "meaning")]
    table = Table(Column("key", no_wrap=True), *others, box=None, pad_edge=False)
    for key, meaning in keys.items():
        value = yaml.safe_dump(value_of(config, key), default_flow_style=True, width=1000)
        table.add_row(Text(key), Text(value.removesuffix("\n...\n").strip()), Text(meaning))
    stdout(columns).print(table)
