"""The demo: the compared methods on rated movie sentences, from nothing to a report."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any

from adjudge.config import load_config
from adjudge.errors import ConfigError, nearest
from adjudge.experiments.compare import compare
from adjudge.methods.registry import COMPARED
from adjudge.runs.environment import usable_cores
from adjudge.setup.fetch import fetch
from adjudge.system.console import note
from adjudge.tasks import load_task

FOLDERS = {"full": Path("runs/demo"), "smoke": Path("runs/demo-smoke")}
"""The budgets, each with settings in budgets/NAME.yaml, and the folders of their results."""


def demo(
    budget: str, out: Path | None = None, overrides: Iterable[str] = (), *, jobs: int | None = None, command: str = ""
) -> tuple[dict[str, Any], Path]:
    """Fetch what the demo needs, compare the methods, and return the table and its folder.

    Two runs are made side by side, or `jobs`: a small model's step leaves a second core idle half of the time.
    Raises ConfigError for an unknown budget or setting, and the errors of `fetch` and `compare`.
    """
    if budget not in FOLDERS:
        raise ConfigError(f"There is no budget '{budget}'.{nearest(budget, FOLDERS)}")
    with resources.as_file(resources.files("adjudge.setup") / "budgets" / f"{budget}.yaml") as file:
        config = load_config(file=file, overrides=overrides)
    folder = out or FOLDERS[budget]
    note("==> fetching the small model, the encoder and the rated sentences (once)")
    fetch("all")
    rows = config.data
    note(
        f"==> comparing {', '.join(COMPARED)} on {config.task}: {rows.train_rows} training rows, "
        f"{rows.eval_rows} rows judged, seed {config.seed}"
    )
    specs, at_a_time = [load_task(config.task)], min(2, usable_cores()) if jobs is None else jobs
    return compare(config, specs, COMPARED, [config.seed], folder, jobs=at_a_time, command=command), folder
