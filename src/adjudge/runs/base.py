"""The model under a run's trained weights: where it lies, and whether a model elsewhere is the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adjudge.config import Config, RuntimeConfig, value_of
from adjudge.errors import ConfigError, RunError
from adjudge.models.sources.bundled import BUNDLED
from adjudge.models.sources.hub import split_hub_id
from adjudge.models.sources.random_models import is_random
from adjudge.runs.environment import dated, model_identity, recorded_model
from adjudge.system.console import note, warn

WEIGHTS = ".safetensors"
"""How the names of files with a model's weights end."""


def with_absolute_model(config: Config, key: str) -> Config:
    """Return the settings with the model of setting `key` by its whole path, if it is a folder.

    A run is then found again from any working directory. `key` is "" for a method without a model.
    """
    name = str(value_of(config, key)) if key else ""
    if not name or name in BUNDLED or is_random(name) or not Path(name).expanduser().is_dir():
        return config
    return with_model(config, key, str(Path(name).expanduser().absolute()))


def with_model(config: Config, key: str, name: str) -> Config:
    """Return the settings with another model in setting `key`.

    Code that was trusted by the old name is trusted by the new one.
    """
    before, (*group, last) = value_of(config, key), key.split(".")
    changed: Any = {last: name}
    for part in reversed(group):
        changed = {part: getattr(config, part).model_copy(update=changed)}
    if config.runtime.trust_remote_code == before:
        changed["runtime"] = config.runtime.model_copy(update={"trust_remote_code": name})
    return config.model_copy(update=changed)


def pinned(folder: Path, config: Config, key: str) -> Config:
    """Return the settings for loading the judge of a finished run, whose model setting `key` names.

    A model of the hub is loaded at the commit the run began with, whatever its name, branch or tag refers to now: the
    run's weights belong to that commit. A chat template that writes the date goes on writing that of the run.
    """
    config = dated(folder, config)
    recorded = recorded_model(folder)
    if "commit" not in recorded or not key or recorded["name"] != value_of(config, key):
        return config
    hub_id = split_hub_id(recorded["name"])
    repo = hub_id[0] if hub_id else recorded["name"]
    return with_model(config, key, f"{repo}@{recorded['commit']}")


def with_base(folder: Path, config: Config, key: str, recorded: Mapping[str, Any], model: str | None) -> Config:
    """Return the settings for judging with the run in `folder` and its base `model`, which may have moved.

    `recorded` is the model that the run was made with, as in its environment.json. Without a `model`, the run's own
    place must still be there. Raises RunError when the weights are others, or the place is gone; ConfigError for a run
    that needs no base model.
    """
    holds_all = not key or (folder / "encoder").is_dir() or (folder / "regression" / "config.json").is_file()
    if model is None:
        model_folder = Path(str(value_of(config, key))) if key else Path()
        if not holds_all and model_folder.is_absolute() and not model_folder.is_dir():
            raise RunError(
                f"{folder} was made with the model in {model_folder}, which is no longer there. "
                "If it has moved, name its new place with --model."
            )
        return config
    if holds_all:
        raise ConfigError(f"--model: {folder} holds everything it judges with, and has no base model beside it.")
    check_same_model(folder, recorded, model)
    return with_absolute_model(with_model(config, key, model), key)


def check_same_model(folder: Path, recorded: Mapping[str, Any], model: str) -> None:
    """Raise RunError when `model` has other weights than the model that a run was made with.

    Other files may differ, such as a tokenizer's settings; a warning then names them. Between a folder and a commit of
    the hub nothing can be compared, which is said. Raises ModelError when there is no such model.
    """
    from adjudge.models.sources.loading import locate

    locate(model, RuntimeConfig())  # an unknown name is an error of its own
    now = model_identity(model)
    commit = recorded.get("commit") or recorded.get("revision")
    if commit is not None and "commit" in now:
        if commit != now["commit"]:
            raise RunError(
                f"{model} is the commit {now['commit'][:12]}, but {folder} was made with {commit[:12]}. "
                f"Name the model as owner/name@{commit}."
            )
        return
    before, after = recorded.get("sha256") or {}, now.get("sha256") or {}
    if not before or not after:
        note(f"{folder} was made with {recorded.get('name', 'a model')}; that {model} is the same cannot be checked.")
        return
    changed = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    weights = [name for name in changed if name.endswith(WEIGHTS)]
    if weights:
        differences = "; ".join(_difference(name, before.get(name), after.get(name)) for name in weights[:3])
        raise RunError(
            f"{model} is not the model that {folder} was made with: {differences}. Name the folder of the same weights."
        )
    if files := [name for name in changed if name in before]:
        warn(
            f"{model} has the weights that {folder} was made with, but other files: {', '.join(files)}. "
            "Where these change the prompt, answers differ."
        )


def _difference(name: str, before: str | None, after: str | None) -> str:
    if before is None or after is None:
        return f"{name} is {'new' if before is None else 'missing'}"
    return f"{name} differs (sha256 {before[:12]}… then, {after[:12]}… here)"
