"""The run folder: all files of a run, each written completely or not at all.

config.yaml             the settings of the run
status.json             {"state": "running" | "complete" | "interrupted" | "failed", "reason": …}
environment.json        what the result depends on besides the settings (see adjudge.runs.environment)
metrics.jsonl           one JSON object per training step
timings.jsonl           the seconds of each step, in a file of their own: only they differ between two equal runs
validation.jsonl        results on held-out rows while training, if `checkpoint.validate_every` asks for it
checkpoints/            while training: the newest checkpoints; ``best``, if there is one, is kept
failure.json            of a run stopped at a value that is not finite: the step, the reason, the rows of its batch
predictions/SPLIT.jsonl one JSON object per judged row
instruction.txt         the instruction that a search found; trials.jsonl has what it judged, search.json its candidates
comparisons.json        what a method that compares rows set on training rows
triples.tsv             the facts that a method answers from; facts.jsonl has what it asked of them, knowledge.jsonl
                        what it knew of each row
training.json           seconds and rows of the training (so a run can be evaluated again)
writer.jsonl            every call of a model that writes text, or of one behind an API (see adjudge.rollout.writer)
calibration.json        the temperature of its probabilities, if one was fitted (see adjudge.runs.calibration)
scores.json             the result: metrics with intervals, unreadable answers, seconds, memory
adapter/                LoRA adapter in peft's format (prompted methods), with value_head.safetensors
encoder/                a fine-tuned encoder in transformers' format
evaluations/            run folders of their own for other tasks, splits or ways to decode
task.yaml               a copy of the task, so the folder is complete by itself
tasks.yaml              in its place, for a run over several tasks: one YAML document per task
tasks/                  of a run over several tasks: the result of each, a run folder without the training
tracking/               of a run that reports to trackers (see adjudge.runs.tracking)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import yaml

from adjudge.config import Config, keys_of, parse_config, upgrade, value_of
from adjudge.errors import ConfigError, RunError, Terminated
from adjudge.runs.start import StartingPoint
from adjudge.runs.tracking import FOLDER as TRACKING
from adjudge.runs.tracking import Tracking
from adjudge.runs.work import TRIALS, WEIGHTS, has_trained, has_work, steps_logged
from adjudge.system.files import SURROGATES, Lock, is_locked, sweep, sync_file, sync_folder, write_json, write_text
from adjudge.system.yaml_text import read_yaml, write_yaml
from adjudge.types import Prediction

if TYPE_CHECKING:
    from adjudge.rewards.function import RewardFunction
    from adjudge.runs.reward_model import RewardModel

SCHEMA = 1

LOGS = ("metrics.jsonl", "timings.jsonl", "validation.jsonl")
"""Files with one appended record per step."""

CHECKPOINTS, BEST = "checkpoints", "best"
"""The folder of the checkpoints, and the name of the one with the best weights."""

SAME_RUN = (
    *("data.data_dir", "checkpoint.every_", "checkpoint.keep", "guard.", "tracking."),
    *("runtime.device", "runtime.shard_base"),
    *("api.key_variable", "api.concurrency", "api.timeout_s", "api.retries", "api.price_"),
)
"""Prefixes of settings in which a resumed run may differ from the stopped one."""

WRITER_LOG = "writer.jsonl"
"""The log of a writer's calls. Only `force` removes it: its answers may have been paid for."""

_WRITTEN = (
    *(
        "calibration.json",
        "training.json",
        "checkpoints",
        "status.json",
        "environment.json",
        *LOGS,
        "failure.json",
        "scores.json",
        "task.yaml",
    ),
    *("instruction.txt", "search.json", "trials.jsonl"),
    *("comparisons.json", "triples.tsv", "facts.jsonl", "knowledge.jsonl"),
    *("tasks.yaml", "demonstrations.jsonl", "demonstrations.safetensors", "label_priors.json"),
    *("report.html", "predictions"),
    *("adapter", "encoder", "regression", "evaluations", "tasks", TRACKING),
)
"""Files of a run, besides config.yaml, in the order of removal when it is replaced (records of progress first)."""


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises RunError with the file's name."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: there is no such file; is this a run folder?") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RunError(f"{path}: cannot be read: {error}") from None


class Run:
    """One run folder. Open a new one with `Run.create`, a finished one with `Run.open`.

    As a context manager it records "complete" at the end, "interrupted" after Ctrl-C or SIGTERM, or "failed" with the
    reason. From `create` to the end of the block no other process can work in the folder.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.config = config
        self.resumed = False
        """True if training goes on from the newest checkpoint, where there is one."""
        self.start: StartingPoint | None = None
        """The run whose adapter training starts from."""
        self.reward_functions: Sequence[RewardFunction] = ()
        """The user's reward functions that training loaded."""
        self.reward_model: RewardModel | None = None
        """The reward model that training learns from."""
        self.tracking: Tracking | None = None
        """The trackers the run reports to."""
        self.identity: Mapping[str, str] = {}
        """What must be the same when the run is resumed, such as the rows: name to fingerprint."""
        self._lock = Lock(folder)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: Config,
        *,
        force: bool = False,
        resume: bool = False,
        rows_sha256: str = "",
        start: StartingPoint | None = None,
        reward_functions: Sequence[RewardFunction] = (),
        reward_model: RewardModel | None = None,
    ) -> Run:
        """Create and lock the folder for a run of `config`; with `resume`, continue a stopped run in it.

        Raises RunError when the folder holds a run of another configuration or a complete run, unless `force`. With
        `force`, the files of a run are removed first (other files are kept), and so are those of a run that did no
        work (see `adjudge.runs.work`). A folder of other files is refused, `force` or not, and so is one in which
        another process works. With `resume`, a folder without a run starts a new one. What is refused changes no file.
        """
        folder = Path(folder)
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file, not a folder. Name another --out.")
        used = not is_unused(folder)
        if used and not (folder / "config.yaml").is_file():
            # --force does not apply here: clearing a folder of other files could delete anything.
            raise RunError(f"{folder} is not empty and is no run folder. Name another --out.")
        run = cls(folder, config)
        run.start = start
        run.reward_functions, run.reward_model = reward_functions, reward_model
        run.identity = {
            "rows": rows_sha256,
            **({"adapter in init": start.adapter_sha256} if start else {}),
            **{f"reward function {function.name}": function.sha256 for function in reward_functions},
            **{f"reward model {name}": sha256 for name, sha256 in (reward_model.files if reward_model else {}).items()},
        }
        run._lock.acquire()
        try:
            if used and not force and cls.open(folder).goes_on(config, resume=resume):
                run.resumed = True
                run._sweep()
            else:
                run._clear()
                if force:
                    (folder / WRITER_LOG).unlink(missing_ok=True)
            write_text(folder / "config.yaml", write_yaml(config.model_dump(mode="json")))
            run.set_state("running")
        except BaseException:
            run._lock.release()
            raise
        return run

    def goes_on(self, config: Config, *, resume: bool) -> bool:
        """Return whether this run goes on as a run of `config`; if not, its files may be replaced.

        Raises RunError when neither is right: it did some work with other settings, is complete, or was trained and
        there is no `resume`.
        """
        changed = differences(self.config, config)
        if changed and has_work(self.folder):
            use = "Resume it with the settings it has" if resume else "Name another --out"
            raise RunError(
                f"{self.folder} holds a run of another configuration ({', '.join(changed)}). "
                f"{use}, or add --force to replace it."
            )
        state = self.recorded_status()[0]
        if state == "complete" and not changed:
            raise RunError(f"{self.folder} already holds this run, complete. Add --force to repeat it.")
        if not resume and has_trained(self.folder):
            how = "killed" if state == "running" else state
            searches = (self.folder / TRIALS).is_file()  # and makes no steps
            done = "" if searches else f" after {steps_logged(self.folder)} steps"
            raise RunError(
                f"{self.folder} already holds this run, {how}{done}. "
                "Add --resume to continue it, or --force to begin again."
            )
        return resume and not changed

    @classmethod
    def open(cls, folder: str | Path) -> Run:
        """Open an existing run folder. Raises RunError when it is not a run folder."""
        folder = Path(folder)
        path = folder / "config.yaml"
        if not path.is_file():
            raise RunError(f"{folder} is no run folder: it has no config.yaml.")
        try:
            tree = read_yaml(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise RunError(f"{path}: cannot be read: {error}") from None
        if not isinstance(tree, dict):
            raise RunError(f"{path}: holds no settings.")
        try:
            return cls(folder, parse_config(upgrade(tree)))
        except ConfigError as error:
            raise RunError(f"{path}: was written by another version of adjudge, or changed: {error}") from None

    def part(self, name: str) -> Path:
        """Return the folder of trained weights called `name`.

        In a judge that left its run (see `adjudge.runs.portable`) the weights lie in the folder itself.
        """
        inside = self.folder / name
        return self.folder if not inside.is_dir() and (self.folder / "judge.json").is_file() else inside

    @property
    def state(self) -> str:
        """Return ``running``, ``complete``, ``interrupted`` or ``failed``."""
        return self.status()[0]

    def status(self) -> tuple[str, str]:
        """Return state and reason as recorded, but ``interrupted`` for a running state without a process."""
        state, reason = self.recorded_status()
        if state == "running" and not is_locked(self.folder):
            return "interrupted", "its process ended without a word (killed?); the run is incomplete"
        return state, reason

    def recorded_status(self) -> tuple[str, str]:
        """Return state and reason as the run's process recorded them.

        Without a status file, the run was stopped during its setup.
        """
        path = self.folder / "status.json"
        if not path.is_file():
            return "interrupted", "stopped while it was set up"
        record = read_json(path)
        if not isinstance(record, dict) or "state" not in record:
            raise RunError(f"{path}: holds no state.")
        return str(record["state"]), str(record.get("reason", ""))

    def set_state(self, state: str, reason: str = "") -> None:
        """Record the state of the run."""
        write_json(self.folder / "status.json", {"state": state, "reason": reason})

    def __enter__(self) -> Run:
        self._lock.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            if kind is None:
                self.set_state("complete")
            elif issubclass(kind, Terminated):
                self.set_state("interrupted", "stopped by SIGTERM; the run is incomplete")
            elif issubclass(kind, KeyboardInterrupt):
                self.set_state("interrupted", "stopped by the user; the run is incomplete")
            else:
                self.set_state("failed", f"{kind.__name__}: {error}")
        except OSError:
            if kind is None:
                raise
            # The disk is full or gone: the original error already says so, and this one must not hide it.
        finally:
            self._lock.release()

    def log(
        self,
        record: Mapping[str, Any],
        *,
        seconds: Any = None,
        about_rows: Mapping[str, int] | None = None,
        file: str = "metrics.jsonl",
    ) -> None:
        """Append a record to metrics.jsonl (or another log).

        The `seconds` of each part, and figures `about_rows` of the step, go to timings.jsonl.
        """
        self._append(file, record)
        if seconds is not None:
            self._append("timings.jsonl", {"step": record["step"], "seconds": seconds, **(about_rows or {})})
        if self.tracking is not None:
            self.tracking.logged()

    def _append(self, name: str, record: Mapping[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8", errors=SURROGATES, newline="") as file:
            file.write(json.dumps(dict(record), ensure_ascii=False, allow_nan=False) + "\n")

    def log_sizes(self) -> dict[str, int]:
        """Return the sizes of the logs in bytes, for `rewind`."""
        return {name: path.stat().st_size for name in LOGS if (path := self.folder / name).is_file()}

    def sync_logs(self) -> None:
        """Sync the logs to disk before a checkpoint records their sizes."""
        for name in LOGS:
            if (self.folder / name).is_file():
                sync_file(self.folder / name)
        sync_folder(self.folder)

    def check_logs(self, sizes: Mapping[str, int]) -> None:
        """Raise RunError when a log is shorter than it was in `log_sizes`."""
        for name, size in sizes.items():
            current = self.log_sizes().get(name, 0)
            if current < size:
                raise RunError(
                    f"{self.folder / name} has {current} bytes, and had {size} at the checkpoint: it was changed. "
                    "Begin again with --force."
                )

    def rewind(self, sizes: Mapping[str, int]) -> None:
        """Cut the logs back to the sizes in `log_sizes`. Raises RunError when one is shorter."""
        self.check_logs(sizes)
        for name, current in self.log_sizes().items():
            if current > sizes.get(name, 0):
                os.truncate(self.folder / name, sizes.get(name, 0))

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
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in _WRITTEN:
            path = self.folder / name
            if path.is_dir():  # a tracker's process may still write into its own folder
                shutil.rmtree(path, ignore_errors=name == TRACKING)
            else:
                path.unlink(missing_ok=True)
        self._sweep()

    def _sweep(self) -> None:
        """Remove the half-written files of a killed process."""
        sweep(self.folder, ("config.yaml", "rows-*.parquet", *_WRITTEN))
        sweep(self.folder / "predictions", ("*",))
        for part in WEIGHTS:  # judge.json and the model card
            sweep(self.folder / part, ("*",))


def is_unused(folder: Path) -> bool:
    """True if the folder does not exist, or holds only hidden files (a lock, or files set aside)."""
    return not folder.is_dir() or all(path.name.startswith(".") for path in folder.iterdir())


def differences(one: Config, other: Config) -> list[str]:
    """Return the settings in which two runs differ: ``ppo.clip 0.2 → 0.1``.

    Those of `SAME_RUN` do not count: the place of the data (the rows themselves are compared), how often a checkpoint
    is written, which warnings are given, and who else is told.
    """
    changed = [(key, value_of(one, key), value_of(other, key)) for key in keys_of() if not key.startswith(SAME_RUN)]
    return [f"{key} {before} → {after}" for key, before, after in changed if before != after]


def prediction_line(p: Prediction) -> str:
    """Return a judged row as a line of predictions/SPLIT.jsonl, line end included."""
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
    """Yield the records of a JSON-lines file; nothing when it does not exist.

    Raises RunError with the line.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise RunError(f"{path}:{number}: is not JSON: {error}") from None
