"""What lies beside a run's trained weights, so that they judge elsewhere: judge.json and a model card.

The folder of the weights (``adapter/``, ``encoder/``, ``regression/``) can be moved or published by itself. judge.json
holds the tasks without their rows, and the settings that decide an answer. `read_judge` opens such a folder as a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adjudge.config import parse_config, upgrade
from adjudge.config.methods import MethodSettings, own_group
from adjudge.errors import ConfigError, ModelError, RunError
from adjudge.runs.calibration import read_calibration
from adjudge.runs.card import write_card
from adjudge.runs.environment import recorded_model
from adjudge.runs.folder import Run, read_json
from adjudge.runs.start import MODEL_FILES
from adjudge.runs.work import WEIGHTS
from adjudge.system.files import write_json
from adjudge.system.hub import hub_reason
from adjudge.tasks.spec import Source, TaskSpec
from adjudge.version import __version__

FILE = "judge.json"
SCHEMA = 1
_LEFT_BEHIND = ("task", "init", "data", "calibration", "checkpoint", "guard", "runtime")
"""Settings of the training and of its machine."""


def write_portable(run: Run, specs: Sequence[TaskSpec], results: Sequence[Mapping[str, Any]]) -> None:
    """Write judge.json and the model card beside the run's trained weights; nothing without weights.

    `results` are the scores of each task; none where nothing was judged.
    """
    for part in WEIGHTS:
        folder = run.folder / part
        if folder.is_dir():
            write_json(folder / FILE, judge_record(run, specs))
            write_card(folder, run, specs, results, base_of(run))


def judge_record(run: Run, specs: Sequence[TaskSpec]) -> dict[str, Any]:
    """Return the content of judge.json. It depends on training and calibration, not on the scores."""
    base = base_of(run)
    other_methods = [name for name in MethodSettings.model_fields if name != own_group(run.config.method)]
    settings = run.config.model_dump(mode="json", exclude={*_LEFT_BEHIND, *other_methods})
    settings = name_model(settings, base.get("name") or _without_place(run.config.model), before=run.config.model)
    settings["runtime"] = {"dtype": run.config.runtime.dtype, "quantization": run.config.runtime.quantization}
    return {
        "schema": SCHEMA,
        "adjudge": __version__,
        "base": base or None,
        "tasks": [_without_rows(spec) for spec in specs],
        "calibration": read_calibration(run.folder) or None,
        "settings": settings,
    }


def name_model(settings: Mapping[str, Any], name: str, *, before: str | None = None) -> dict[str, Any]:
    """Return the settings of a judge with its base model named anew, also where its method names it.

    With `before`, a model of the method that has another name is not the base; it loses its place on this machine.
    """
    group = own_group(settings["method"])
    own = settings.get(group)
    if not isinstance(own, dict) or "model" not in own:
        return {**settings, "model": name}
    same = before is None or own["model"] == before
    return {**settings, "model": name, group: {**own, "model": name if same else _without_place(own["model"])}}


def base_of(run: Run) -> dict[str, Any]:
    """Return the model under the trained weights; nothing for a method without one.

    ``name`` is what loads it: with its commit where it is on the hub, and without its place where it is a folder of
    this machine. ``hub`` is the id of the published model, if there is one. ``sha256`` has the hashes of its files.
    """
    from adjudge.models.sources.bundled import BUNDLED, published_name

    if is_portable(run.folder):
        return dict(read_json(run.folder / FILE).get("base") or {})
    model = recorded_model(run.folder)
    if not model:
        return {}
    name, commit = str(model["name"]), model.get("commit")
    base: dict[str, Any]
    if name in BUNDLED:
        base = {"name": name, "hub": published_name(name), "note": BUNDLED[name].note}
    elif commit is not None:
        hub = published_name(name)
        base = {"name": f"{hub}@{commit}", "hub": hub, "revision": commit}
    else:
        base = {"name": _without_place(name), "hub": None}
    return base | ({"sha256": model["sha256"]} if "sha256" in model else {})


def judge_folder(source: str | Path) -> Path:
    """Return the folder of a judge: `source` itself, or where a repository of the hub was fetched to.

    Only settings, tokenizer and safetensors are fetched. Raises ModelError when the repository cannot be fetched.
    """
    from adjudge.models.sources.hub import hub_id_of

    hub_id = hub_id_of(str(source))
    if hub_id is None:
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        return Path(snapshot_download(hub_id[0], revision=hub_id[1], allow_patterns=list(MODEL_FILES)))
    except (HTTPError, OSError, ValueError) as error:
        reason = hub_reason(error, "judge")
        raise ModelError(f"{source} is no folder here, and cannot be fetched from the hub: {reason}") from None


def is_portable(folder: Path) -> bool:
    """Return whether the folder is a judge that left its run."""
    return (folder / FILE).is_file() and not (folder / "config.yaml").is_file()


def read_judge(folder: Path, model: str | None = None) -> tuple[Run, list[TaskSpec]]:
    """Open a folder with a judge.json, as a run whose trained weights lie in the folder, and its tasks.

    `model` names the base model where it lies elsewhere. Raises RunError for a damaged or newer judge.json.
    """
    path = folder / FILE
    record = read_json(path)
    try:
        if record["schema"] > SCHEMA:
            raise RunError(f"{path} was written by a newer adjudge ({record['adjudge']}). Update adjudge.")
        specs = [TaskSpec.model_validate(task) for task in record["tasks"]]
        settings = dict(record["settings"])
        form = record.get("format")
        if form not in (None, "merged"):
            raise RunError(
                f"{folder} was exported as {form}, for other programs, and adjudge does not judge with it. Name the "
                "run, its adapter folder, or an export with --format merged."
            )
        if form == "merged":
            settings["model"] = str(folder)
        elif model is not None:
            settings = name_model(settings, model)
        config = parse_config(upgrade(settings))
    except (KeyError, TypeError, ValueError, ConfigError) as error:
        raise RunError(f"{path}: cannot be read as a judge: {error}") from None
    return Run(folder, config), specs


def _without_place(model: str) -> str:
    """Return the model's name; of a folder of this machine the last part of its path."""
    return Path(model).name if Path(model).expanduser().is_absolute() else model


def _without_rows(spec: TaskSpec) -> dict[str, Any]:
    """Return the task as JSON, without the places of its rows."""
    task = spec.model_copy(update={"source": Source()}).model_dump(mode="json", exclude_defaults=True)
    return task | {"source": {}}
