"""The trackers: how each opens a run, takes a step, and keeps scores and files.

Only their public calls are used, with one exception (`Trackio.last_step`). Tried with tensorboardX 2.6.5,
trackio 0.43.0, wandb 0.31.0 and mlflow-skinny 3.17.2.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from adjudge.system.yaml_text import write_yaml

DEFAULT_PROJECT = "adjudge"

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """What a tracker is told of a run when it begins."""

    folder: Path
    id: str
    """Eight hexadecimal digits, the same after a resume."""
    resumed: bool
    """True if an earlier process may have sent some of its steps."""
    project: str | None
    name: str
    group: str
    """Equal for the seeds of one method on one task."""
    settings: Mapping[str, Any]
    """Dotted key to value."""


class Adapter(Protocol):
    """One tracker. Every call may raise anything; the run is then no longer reported to it."""

    def __init__(self, run: TrackedRun) -> None:
        """Open the tracked run, or take it up again."""

    def where(self) -> str:
        """Return where the user finds the tracked run."""

    def last_step(self) -> int | None:
        """Return the last step that the tracker holds, or None when it cannot tell."""

    def step(self, step: int, figures: Figures) -> None:
        """Take the figures of one step."""

    def flush(self) -> None:
        """Deliver the steps so far, as far as the tracker lets its callers wait for that."""

    def end(self, last: int, scores: Figures, files: Sequence[Path], state: str) -> None:
        """Take the scores, at the step `last`, and the files, and close the run."""


class TensorBoard:
    """Event files in the run folder, or below $TENSORBOARD_LOGGING_DIR.

    A resumed run writes its event file anew: a file cannot lose the steps that the run repeats.
    """

    def __init__(self, run: TrackedRun) -> None:
        from tensorboardX import SummaryWriter

        shared = os.environ.get("TENSORBOARD_LOGGING_DIR")
        parts = (Path(shared), run.project or "", f"{run.name}-{run.id}") if shared else ()
        self._folder = Path(*parts) if parts else run.folder / "tracking" / "tensorboard"
        for earlier in self._folder.glob(f"events.out.tfevents.*.{run.id}"):
            earlier.unlink()
        self._writer: Any = SummaryWriter(str(self._folder), filename_suffix=f".{run.id}")
        settings = write_yaml(dict(run.settings))
        self._writer.add_text("settings", "".join(f"    {line}\n" for line in settings.splitlines()))

    def where(self) -> str:
        return str(self._folder)

    def last_step(self) -> int | None:
        return 0

    def step(self, step: int, figures: Figures) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        self._writer.flush()

    def end(self, last: int, scores: Figures, files: Sequence[Path], state: str) -> None:
        self.step(last, scores)
        self._writer.close()


class Trackio:
    """A run of trackio: on this machine, or in the Space or on the server of its environment variables."""

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self._project = run.project or os.environ.get("TRACKIO_PROJECT") or DEFAULT_PROJECT
        self._name = run.name
        known = run.folder / "tracking" / "trackio.id"
        options = {"project": self._project, "group": run.group, "config": dict(run.settings), "embed": False}
        self._run: Any = trackio.init(name=run.name, resume="allow" if run.resumed else "never", **options)
        if run.resumed and known.is_file() and known.read_text(encoding="utf-8") != str(self._run.id):
            # trackio finds the run to take up by its name, and another run has been given the same one since.
            self._run.finish()
            self._run = trackio.init(name=f"{run.name}-{run.id}", resume="allow", **options)
        known.write_text(str(self._run.id), encoding="utf-8")

    def where(self) -> str:
        return f"the project {self._project}, run {self._run.name} (trackio show --project {self._project})"

    def last_step(self) -> int | None:
        upcoming = getattr(self._run, "_next_step", None)  # there is no public name for it
        return None if upcoming is None else max(0, int(upcoming) - 1)

    def step(self, step: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=step)

    def flush(self) -> None:
        """Return at once: trackio sends by itself, every half second."""

    def end(self, last: int, scores: Figures, files: Sequence[Path], state: str) -> None:
        if scores:
            self._run.log(dict(scores), step=last)
        for path in files:
            self._run.log_artifact(path, name=artefact_name(self._run.name, path), type="report")
        self._run.finish()


class WeightsAndBiases:
    """A run of Weights & Biases; WANDB_MODE=offline keeps it on this machine."""

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self._wandb: Any = wandb
        project = run.project or os.environ.get("WANDB_PROJECT") or DEFAULT_PROJECT
        self._run: Any = wandb.init(
            project=project,
            name=run.name,
            group=run.group,
            id=run.id,
            resume="allow",
            config=dict(run.settings),
            settings=wandb.Settings(console="off"),
        )

    def where(self) -> str:
        return self._run.url or f"{Path(self._run.dir).parent} (offline; wandb sync sends it)"

    def last_step(self) -> int | None:
        return int(self._run.step) - 1 if self._run.resumed else None

    def step(self, step: int, figures: Figures) -> None:
        self._run.log(dict(figures), step=step)

    def flush(self) -> None:
        """Return at once: wandb sends by itself, and keeps what it could not send."""

    def end(self, last: int, scores: Figures, files: Sequence[Path], state: str) -> None:
        self._run.summary.update(dict(scores))
        for path in files:
            artefact = self._wandb.Artifact(artefact_name(self._run.id, path), type="report")
            artefact.add_file(str(path))
            self._run.log_artifact(artefact)
        self._run.finish(exit_code=0 if state == "complete" else 1)


class MLflow:
    """A run in an MLflow experiment, at $MLFLOW_TRACKING_URI or where MLflow keeps runs by itself."""

    STATES: Mapping[str, str] = {"complete": "FINISHED", "failed": "FAILED"}
    """Our state to MLflow's; any other is KILLED."""

    def __init__(self, run: TrackedRun) -> None:
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric = Metric
        self._client: Any = MlflowClient()
        self._experiment = run.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_PROJECT
        known = run.folder / "tracking" / "mlflow.id"
        if run.resumed and known.is_file():
            self._id = known.read_text(encoding="utf-8")
            self._client.update_run(self._id, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(self._experiment)
        number = experiment.experiment_id if experiment else self._client.create_experiment(self._experiment)
        created = self._client.create_run(number, run_name=run.name, tags={"group": run.group, "adjudge": run.id})
        self._id = str(created.info.run_id)
        known.write_text(self._id, encoding="utf-8")
        params = [Param(key, str(value)) for key, value in run.settings.items()]
        for part in _parts(params, 100):  # MLflow's limit for one call
            self._client.log_batch(self._id, params=part)

    def where(self) -> str:
        return f"the experiment {self._experiment}, run {self._id}"

    def last_step(self) -> int | None:
        names = [name for name in self._client.get_run(self._id).data.metrics if not name.startswith("eval/")]
        histories = (self._client.get_metric_history(self._id, name) for name in names)
        return max((metric.step for history in histories for metric in history), default=0)

    def step(self, step: int, figures: Figures) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self._metric(name, value, now_ms, step) for name, value in figures.items()]
        for part in _parts(metrics, 1000):  # MLflow's limit for one call
            self._client.log_batch(self._id, metrics=part)

    def flush(self) -> None:
        """Return at once: every call was answered by the server."""

    def end(self, last: int, scores: Figures, files: Sequence[Path], state: str) -> None:
        self.step(last, scores)
        for path in files:
            self._client.log_artifact(self._id, str(path))
        self._client.set_terminated(self._id, status=self.STATES.get(state, "KILLED"))


ADAPTERS: Mapping[str, type[Adapter]] = {
    "trackio": Trackio,
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def artefact_name(run: str, path: Path) -> str:
    """Return a name of letters, digits, dots and dashes: ``vader-movies-sft-seed0-report.html``."""
    return "".join(letter if letter.isalnum() or letter in "-._" else "-" for letter in f"{run}-{path.name}")


def _parts(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))
