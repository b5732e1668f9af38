"""What is done already in the folder of a run that is resumed, and whether it is the same run."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.system.console import note
from adjudge.errors import RunError
from adjudge.system.files import sha256_of
from adjudge.runs.folder import BEST, CHECKPOINTS, Run, differences, read_json


def finished_scores(folder: str | Path, config: Config, rows: str) -> dict[str, Any] | None:
    """The scores of a run that is complete already, so that resuming it changes nothing; None when there is something to do.

    Raises RunError when it was made from other rows (a run of other settings is left to `Run.create`).
    """
    if not (Path(folder) / "scores.json").is_file():
        return None
    run = Run.open(folder)
    if run.state != "complete" or differences(run.config, config):
        return None
    check_rows(run, rows)
    note(f"{run.folder} is complete; there is nothing to resume.")
    return run.scores()


def finished_training(run: Run, rows: str) -> dict[str, Any] | None:
    """What training.json says when the training of a resumed run was complete, so that only the judging is left. Raises RunError."""
    if not run.resumed or not (run.folder / "training.json").is_file():
        return None
    check_rows(run, rows)
    note(f"{run.folder}: the training is complete; judging.")
    return dict(read_json(run.folder / "training.json"))


def check_rows(run: Run, rows: str) -> None:
    """Raise RunError when a finished training was of other rows."""
    if read_json(run.folder / "training.json").get("rows_sha256") != rows:
        raise RunError(f"{run.folder} was made from other rows: the data changed. Begin again with --force, or put the data back.")


def init_identity(config: Config) -> dict[str, str]:
    """The fingerprint of the adapter that PPO starts from: it is the reference, and must not change under a run."""
    if config.init is None:
        return {}
    path = Path(config.init) / "adapter" / "adapter_model.safetensors"
    return {"adapter in init": sha256_of(path)} if path.is_file() else {}


def drop_checkpoints(run: Run) -> None:
    """Remove what only an incomplete run needs: its checkpoints (the best weights, where they were kept, stay), and why it failed once."""
    folder = run.folder / CHECKPOINTS
    if (folder / BEST).is_dir():
        for path in folder.glob("step-*"):
            shutil.rmtree(path, ignore_errors=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    (run.folder / "failure.json").unlink(missing_ok=True)
