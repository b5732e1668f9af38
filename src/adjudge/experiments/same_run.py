"""Whether a folder holds the run that is about to be done, and whether that run can go on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adjudge.config import Config
from adjudge.errors import ModelError, RunError
from adjudge.methods.settings import model_of
from adjudge.rewards.function import FUNCTIONS
from adjudge.runs.base import WEIGHTS
from adjudge.runs.environment import FILE, model_identity, recorded_model
from adjudge.runs.folder import CHECKPOINTS, Run, differences, read_json
from adjudge.runs.reward_model import REWARD_MODEL
from adjudge.runs.start import StartingPoint
from adjudge.runs.tasks import read_tasks, same_task
from adjudge.runs.work import has_work
from adjudge.system.files import sha256_of
from adjudge.tasks.reading.kept_rows import place_of
from adjudge.tasks.spec import TaskSpec


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes two runs the same: settings, tasks, rows, reward functions and the adapter to start from."""

    config: Config
    specs: Sequence[TaskSpec]
    rows_sha256: str
    functions: Mapping[str, Any]
    """What it is rewarded by: the hashes of the reward functions and of a reward model, as runs record them."""
    start: StartingPoint | None = None

    def recorded(self) -> dict[str, Any]:
        """Return what training.json records of it."""
        return {"rows_sha256": self.rows_sha256, **self.functions}


def goes_on(folder: Path, identity: Identity, *, resume: bool) -> bool:
    """Return whether the run in `folder` goes on, is complete included; if not, its files may be replaced.

    Changes no file. Raises RunError when the folder holds work of another run, when the run needs `resume`, or when
    what it left cannot be continued. A folder without a run is fine.
    """
    if not (folder / "config.yaml").is_file():
        return False
    run = Run.open(folder)
    if differences(run.config, identity.config):
        return run.goes_on(identity.config, resume=resume)
    if difference := difference_of(run, identity):
        if not has_work(folder):
            return False
        use = "Put back what changed" if resume else "Name another --out"
        raise RunError(f"{folder} holds a run of {difference}. {use}, or add --force to replace it.")
    if resume and run.recorded_status()[0] == "complete":
        return True
    if not run.goes_on(identity.config, resume=resume):
        return False
    if not (folder / "training.json").is_file():
        _check_checkpoint(run, identity)
    return True


def difference_of(run: Run, identity: Identity) -> str:
    """Return how a run differs from the one to do, as in ``other settings (seed 0 → 1)``; or nothing."""
    changed = differences(run.config, identity.config)
    if changed:
        return f"other settings ({', '.join(changed)})"
    if any((run.folder / name).is_file() for name in ("task.yaml", "tasks.yaml")):
        specs = read_tasks(run.folder)
        if len(specs) != len(identity.specs) or not all(map(same_task, specs, identity.specs)):
            return "another version of the task"
    made_from = _recorded(run.folder)
    if made_from.get("rows_sha256", identity.rows_sha256) != identity.rows_sha256:
        return f"other rows ({_changed_file(run.folder)})"
    if made_from and (changed_reward := _changed_reward(made_from, identity)):
        return changed_reward
    adapter = made_from.get("init", {}).get("sha256", {}).get("adapter_model.safetensors", "")
    if identity.start is not None and adapter not in ("", identity.start.adapter_sha256):
        return f"another adapter ({identity.start.adapter} changed)"
    return _changed_model(run, identity.config)


def _changed_model(run: Run, config: Config) -> str:
    """Return which weights of a model on this machine are not those that the run began with; or nothing.

    Of a model that is gone, or was named otherwise, nothing can be told. One of the hub is resumed at its commit.
    """
    before, name = recorded_model(run.folder), model_of(config)
    if before.get("name") != name or not before.get("sha256"):
        return ""
    try:
        now = model_identity(name).get("sha256")
    except ModelError:
        return ""
    hashes = {file: digest for file, digest in before["sha256"].items() if file.endswith(WEIGHTS)}
    changed = [file for file, digest in hashes.items() if now and now.get(file) != digest]
    return f"other weights of the model ({', '.join(changed)} of {name} changed)" if changed else ""


def _changed_reward(made_from: Mapping[str, Any], identity: Identity) -> str:
    """Return which reward functions, or which reward model, are not those of the run; or nothing."""
    functions = identity.functions.get(FUNCTIONS, {})
    if made_from.get(FUNCTIONS, {}) != functions:
        names = sorted(set(functions.items()) ^ set(made_from.get(FUNCTIONS, {}).items()))
        return f"other reward functions ({', '.join(dict.fromkeys(name for name, _ in names))} changed)"
    before, now = made_from.get(REWARD_MODEL, {}), identity.functions.get(REWARD_MODEL, {})
    if before.get("sha256") != now.get("sha256"):
        return f"another reward model ({now.get('folder') or before.get('folder')} changed)"
    return ""


def _environment(folder: Path) -> dict[str, Any]:
    """Return what a run recorded of its environment; nothing before it began."""
    return dict(read_json(folder / FILE)) if (folder / FILE).is_file() else {}


def _recorded(folder: Path) -> dict[str, Any]:
    """Return rows, reward functions and starting point as a run recorded them.

    There is nothing before it began to train.
    """
    environment = _environment(folder)
    record = dict(environment.get("data", {}))
    record |= {name: environment[name] for name in ("init", FUNCTIONS, REWARD_MODEL) if name in environment}
    if (folder / "training.json").is_file():
        record |= read_json(folder / "training.json")
    return record


def _changed_file(folder: Path) -> str:
    """Return which data file of a run is not as it was, with the recorded start of its hash."""
    for task in _environment(folder).get("data", {}).get("tasks", {}).values():
        for name, digest in task.get("files", {}).items():
            path = place_of(Path(name), folder)
            if not path.is_file():
                return f"{path} is gone; its SHA-256 was {digest[:12]}…"
            if (now := sha256_of(path)) != digest:
                return f"{path} changed: its SHA-256 was {digest[:12]}… and is {now[:12]}…"
    return "the data changed"


def _check_checkpoint(run: Run, identity: Identity) -> None:
    """Raise RunError when the newest checkpoint is damaged, made from other rows, or its logs were cut."""
    from adjudge.training.checkpoint import newest_packed

    state = newest_packed(run.folder / CHECKPOINTS)
    if state is None:
        return
    if state.get("identity", {}).get("rows", identity.rows_sha256) != identity.rows_sha256:
        raise RunError(
            f"{run.folder} holds a run of other rows ({_changed_file(run.folder)}). "
            "Put back what changed, or add --force to replace it."
        )
    run.check_logs(state.get("logs", {}))
