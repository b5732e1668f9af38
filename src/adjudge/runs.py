"""The run folder: everything a run leaves behind, each file written whole or not at all.

config.yaml             the settings of the run
status.json             {"state": "running" | "complete" | "interrupted" | "failed", "reason": …}
environment.json        what the result depends on beside the settings: versions, machine, model, rows (see adjudge.environment)
metrics.jsonl           one JSON object a training step
predictions/SPLIT.jsonl one JSON object a judged row
training.json           what the training took: seconds, rows (so that a run can be evaluated again)
scores.json             the result: metrics with intervals, unreadable answers, seconds, memory
adapter/                LoRA adapter in peft's format (prompted methods), value_head.safetensors beside it
encoder/                a fine-tuned encoder in transformers' format
evaluations/            run folders of their own for other tasks, splits or ways to decode
task.yaml               the task as it was, so that the folder stands alone
tasks.yaml              instead, of a run over several tasks: one YAML document a task
tasks/                  of a run over several tasks: the result of each, a run folder without the training
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from adjudge.config import Config, parse_config
from adjudge.errors import ConfigError, RunError
from adjudge.types import Prediction

SCHEMA = 1

SURROGATES = "backslashreplace"
"""A lone surrogate has no UTF-8; as a backslash escape it is JSON that reads back as it was."""


def write_text(path: Path, text: str) -> None:
    """Write a file aside, sync it, then rename it into place: it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", errors=SURROGATES, newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """Write JSON (UTF-8, indented, no NaN) as `write_text` does."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises RunError that names the file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; is this a run folder?") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


class Run:
    """One run folder. Open a new one with `Run.create`, a finished one with `Run.open`.

    As a context manager it leaves "complete" behind, "interrupted" after Ctrl-C, or "failed" with the reason.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.config = config

    @classmethod
    def create(cls, folder: str | Path, config: Config, *, force: bool = False) -> Run:
        """Make the folder for a run of `config`.

        Raises RunError when the folder holds a run of another configuration or a complete run, unless `force`: then what a
        run writes is removed first (other files stay). A folder of other files is refused, `force` or not.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file, not a folder. Name another --out.")
        used = folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())
        if used and not (folder / "config.yaml").is_file():
            # --force does not reach here: clearing a folder that we did not make could delete anything.
            raise RunError(f"{folder} is not empty and is no run folder. Name another --out.")
        if used and not force:
            if cls.open(folder).config != config:
                raise RunError(f"{folder} holds a run of another configuration. Name another --out, or add --force to replace it.")
            if cls.open(folder).state == "complete":
                raise RunError(f"{folder} holds this very run, complete. Add --force to do it again.")
        run = cls(folder, config)
        run._clear()
        write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        run.set_state("running")
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open an existing run folder. Raises RunError when it is none."""
        folder = Path(folder)
        path = folder / "config.yaml"
        if not path.is_file():
            raise RunError(f"{folder} is no run folder: it has no config.yaml.")
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if not isinstance(tree, dict):
            raise RunError(f"{path}: holds no settings.")
        try:
            return cls(folder, parse_config(tree))
        except ConfigError as error:
            raise RunError(f"{path}: was written by another version of adjudge, or changed: {error}") from None

    @property
    def state(self) -> str:
        """``running``, ``complete``, ``interrupted`` or ``failed``."""
        return self.status()[0]

    def status(self) -> tuple[str, str]:
        """State and reason. Without a status file the run was stopped while it was set up: ``interrupted``."""
        path = self.folder / "status.json"
        if not path.is_file():
            return "interrupted", "stopped while it was set up"
        record = read_json(path)
        if not isinstance(record, dict) or "state" not in record:
            raise RunError(f"{path}: holds no state.")
        return str(record["state"]), str(record.get("reason", ""))

    def set_state(self, state: str, reason: str = "") -> None:
        """Record how far the run is."""
        write_json(self.folder / "status.json", {"state": state, "reason": reason})

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is None:
            self.set_state("complete")
        elif issubclass(kind, KeyboardInterrupt):
            self.set_state("interrupted", "stopped by the user; the run is incomplete")
        else:
            self.set_state("failed", f"{kind.__name__}: {error}")

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one record to metrics.jsonl."""
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8", errors=SURROGATES) as file:
            file.write(json.dumps(dict(record), ensure_ascii=False, allow_nan=False) + "\n")

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, in order; empty when the method logs none."""
        return list(read_jsonl(self.folder / "metrics.jsonl"))

    def write_predictions(self, split: str, predictions: Iterable[Prediction]) -> None:
        """Write the judged rows of one split."""
        write_text(self.folder / "predictions" / f"{split}.jsonl", "".join(map(prediction_line, predictions)))

    def predictions(self, split: str) -> list[Prediction]:
        """Read the judged rows of one split; empty when there are none."""
        return [Prediction(**record) for record in read_jsonl(self.folder / "predictions" / f"{split}.jsonl")]

    def write_scores(self, scores: Mapping[str, Any]) -> None:
        """Write scores.json."""
        write_json(self.folder / "scores.json", {"schema": SCHEMA, **scores})

    def scores(self) -> dict[str, Any]:
        """Read scores.json. Raises RunError when the run was not evaluated."""
        return dict(read_json(self.folder / "scores.json"))

    def _clear(self) -> None:
        import shutil

        self.folder.mkdir(parents=True, exist_ok=True)
        for name in (
            "status.json",
            "environment.json",
            "metrics.jsonl",
            "scores.json",
            "training.json",
            "task.yaml",
            "tasks.yaml",
            "demonstrations.jsonl",
            "report.html",
        ):
            (self.folder / name).unlink(missing_ok=True)
        for name in ("predictions", "adapter", "encoder", "evaluations", "tasks"):
            if (self.folder / name).is_dir():
                shutil.rmtree(self.folder / name)


def prediction_line(p: Prediction) -> str:
    """A judged row as a line of predictions/SPLIT.jsonl, line end included."""
    record = {
        "id": p.id,
        "fields": dict(p.fields),
        "gold": p.gold,
        "value": p.value,
        "text": p.text,
        "probabilities": dict(p.probabilities),
        **({"group": p.group} if p.group else {}),
        **({"tags": dict(p.tags)} if p.tags else {}),
    }
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def read_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the records of a JSON-lines file; nothing when it does not exist. Raises RunError that names the line."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise RunError(f"{path}:{number}: is not JSON: {error}") from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
