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

    exported = export_tasks(kind, out, names, **options)
    for name, count in exported.rows.items():
        typer.echo(f"{name}: {count:,} rows")
    command = _inspect(out) if kind == "inspect" else _lm_eval(out, exported.model, options["run"])
    typer.echo(f"\nwritten: {out}. To judge them there:\n\n  {command}")


def _inspect(out: str) -> str:
    return f"inspect eval {Path(out) / 'adjudge_tasks.py'} --model PROVIDER/NAME"


def _lm_eval(out: str, model: str, run: str | None) -> str:
    arguments = f"{_pretrained(model)},dtype=float32"
    folders = () if run is None else (Path(run) / "adapter", Path(run))
    if adapter := next((folder for folder in folders if (folder / "adapter_config.json").is_file()), None):
        arguments += f",peft={adapter}"
    return f"lm-eval run --include_path {out} --tasks adjudge --model hf --model_args {arguments}"


def _pretrained(model: str) -> str:
    """Return the arguments that name a model there: a revision of the hub's is one of its own."""
    from adjudge.models.sources.bundled import BUNDLED, bundled_folder
    from adjudge.models.sources.hub import hub_id_of

    if model in BUNDLED:
        return f"pretrained={bundled_folder(model)}"
    hub_id = hub_id_of(model)
    if hub_id is None or hub_id[1] is None:
        return f"pretrained={model}"
    return f"pretrained={hub_id[0]},revision={hub_id[1]}"
