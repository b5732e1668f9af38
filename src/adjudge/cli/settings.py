"""``adjudge settings``: every setting with its default and what it does."""

from __future__ import annotations

from typing import Annotated

import typer

from adjudge.cli.options import Preset
from adjudge.cli.show import stdout

EPILOG = "Examples:\n\n`adjudge settings ppo`\n\n`adjudge settings lr --preset paper`\n\nthen `adjudge train ppo ppo.clip=0.1`"


def add_to(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("settings", epilog=EPILOG)(settings)


def settings(
    part: Annotated[
        str | None, typer.Argument(metavar="[PART]", help="Only keys that contain this, as in ppo or lr.")
    ] = None,
    preset: Preset = "default",
) -> None:
    """List the settings: key, value and meaning. Give any of them to a verb as KEY=VALUE, or in a --config file."""
    import yaml
    from rich.table import Table
    from rich.text import Text

    from adjudge.config import keys_of, load_config, value_of
    from adjudge.errors import ConfigError

    config = load_config(preset=preset)
    shown = Table("key", "value", "meaning", box=None, pad_edge=False)
    for key, meaning in keys_of().items():
        if part is None or part in key:
            value = (
                yaml.safe_dump(value_of(config, key), default_flow_style=True, width=1000)
                .removesuffix("\n...\n")
                .strip()
            )
            shown.add_row(Text(key), Text(value), Text(meaning))
    if not shown.row_count:
        raise ConfigError(f"No setting has '{part}' in its name. `adjudge settings` lists every one.")
    stdout().print(shown)
