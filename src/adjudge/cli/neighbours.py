"""``adjudge tasks --export``: tasks for other evaluation programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

OPTIONS = ("model", "run", "split", "eval_rows")
"""Parameters of ``tasks`` that only an export reads."""


def export(kind: str, out: str, names: Sequence[str], options: dict[str, Any]) -> None:
    """Write the tasks, and print how many rows each has and how to run them there."""
    from adjudge.ship.neighbours.export import export_tasks

    for name, count in export_tasks(kind, out, names, **options).items():
        typer.echo(f"{name}: {count:,} rows")
    typer.echo(f"\nwritten: {out}. To run them:\n\n  {_command(kind, out, options)}")


def _command(kind: str, out: str, options: dict[str, Any]) -> str:
    if kind == "inspect":
        return f"inspect eval {Path(out) / 'adjudge_tasks.py'} --model PROVIDER/NAME"
    run = options["run"]
    adapter = f",peft={_adapter(run)}" if run is not None and _adapter(run) else ""
    return (
        f"lm-eval run --include_path {out} --tasks adjudge --model hf "
        f"--model_args pretrained={options['model'] or 'MODEL'}{adapter},dtype=float32"
    )


def _adapter(run: str) -> str:
    folders = (Path(run) / "adapter", Path(run))
    return next((str(folder) for folder in folders if (folder / "adapter_config.json").is_file()), "")
