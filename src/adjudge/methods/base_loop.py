"""The outer loop of all training methods: batches, steps, log, checkpoints, saving. It knows no loss.

A method iterates over it, computes its loss inside, and ends each step with `Loop.log`. The loop registers all shared
state which must survive a kill; a method passes only its additional state (`carry`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import nn

from adjudge.config import LoopConfig
from adjudge.errors import ConfigError
from adjudge.evaluation.predict import Judge
from adjudge.evaluation.validation import validator
from adjudge.methods.base import Trained
from adjudge.rewards.learned import LEARNED
from adjudge.rollout.passes import RowsPerPass
from adjudge.runs.folder import Run
from adjudge.system.console import Bar, note, progress
from adjudge.system.parallel import rank, world_size
from adjudge.system.timing import collect_stages
from adjudge.tasks.spec import TaskSpec
from adjudge.training.batches import Batches
from adjudge.training.first_phase import FirstPhase
from adjudge.training.guards import check_weights
from adjudge.training.optim import build_optimizer
from adjudge.training.session import Session
from adjudge.training.state import Stateful, generator_state, trained_weights
from adjudge.training.watch import AnswerWatch
from adjudge.types import Example, Judgement, Value

SHOWN = ("loss", "reward", "right", "kl", "unreadable")
"""Figures of the log that the progress bar shows."""


class TrainingRow(Protocol):
    """A row as a method prepares it."""

    @property
    def id(self) -> str:
        """Return the row's id, which is reported when its batch fails."""

    @property
    def tokens(self) -> int:
        """Return the row's length, by which padded batches are sorted."""


class Answers(Protocol):
    """Judgements of training rows, sampled or the likeliest."""

    @property
    def golds(self) -> Sequence[Value | None]:
        """Return the right answers."""

    @property
    def judgements(self) -> Sequence[Judgement]:
        """Return the answers."""


TaskT = TypeVar("TaskT")
RowT = TypeVar("RowT", bound=TrainingRow)


@dataclass(frozen=True, slots=True)
class Step(Generic[TaskT, RowT]):
    """One batch, of one task."""

    number: int
    task: TaskT
    rows: list[RowT]
    task_index: int


class Loop(Generic[TaskT, RowT]):
    """Iterates over the remaining steps. A context manager, which resumes the run on entry.

    `tasks`, `rows`, `judges`, `specs` and `held_out` have one entry per task, in the same order. A step gets its entry
    of `tasks`. `rows` are prepared by the method, and `held_out` rows are judged by `judges` while training. `labels`
    are those of the rows by id, to draw every label equally often. `save` writes the trained weights, called `what` in
    messages, into the run folder.
    """

    def __init__(
        self,
        run: Run,
        settings: LoopConfig,
        module: nn.Module,
        parameter_groups: Sequence[dict[str, Any]],
        tasks: Sequence[TaskT],
        rows: Sequence[Sequence[RowT]],
        judges: Sequence[Judge],
        specs: Sequence[TaskSpec],
        held_out: Sequence[Sequence[Example]],
        save: Callable[[], None],
        *,
        what: str = "the encoder",
        dropout: bool = True,
        padded: bool = True,
        labels: Sequence[Mapping[str, Value | None]] | None = None,
        several_updates_per_step: bool = False,
        first_phase: FirstPhase | None = None,
        parts: Mapping[str, Stateful] | None = None,
    ) -> None:
        seed = run.config.seed
        self.order = torch.Generator().manual_seed(seed)
        """Draws the order of the rows."""
        self.sampling = torch.Generator().manual_seed(seed + 1)
        """Draws the answers."""
        self.multi_task = len(specs) > 1
        self.tasks, self.rows = tasks, rows
        self._run, self._module, self._dropout = run, module, dropout
        self._judges, self._specs, self._save, self._what = judges, specs, save, what
        passes = settings.passes(sum(-(-len(part) // settings.batch_size) for part in rows))
        if passes > settings.epochs:
            note(f"{run.config.method}: {passes} passes over the rows, for at least {settings.min_steps} steps.")
        self._total = sum(map(len, rows)) * passes
        self._batches = Batches(
            *(rows, settings.batch_size, passes, self.order, lambda row: row.tokens),
            padded=padded,
            labels=None
            if labels is None
            else [[by_id[row.id] for row in part] for by_id, part in zip(labels, rows, strict=True)],
        )
        self.first_phase = first_phase
        self.optimizer, self._scheduler = build_optimizer(
            parameter_groups, settings.optimizer, len(self._batches), first_phase
        )
        if settings.batch_size < world_size():
            raise ConfigError(
                f"{run.config.method}.batch_size is {settings.batch_size}, fewer than the {world_size()} processes "
                "that share each batch. Raise it, or start fewer processes."
            )
        self._passes = RowsPerPass(run.config.runtime, lambda: self.optimizer.zero_grad(set_to_none=True))
        self._watches = [AnswerWatch(spec, run.config.guard, named=self.multi_task) for spec in specs]
        state: dict[str, Stateful] = {
            "trained": trained_weights(module),
            "optimizer": self.optimizer,
            "scheduler": self._scheduler,
            "batches": self._batches,
            "order": generator_state(self.order),
            "sampling": generator_state(self.sampling),
            **{f"watch {index}": watch for index, watch in enumerate(self._watches)},
            **({"passes": self._passes} if self._passes.auto else {}),
            **({"first phase": first_phase} if first_phase is not None and first_phase.may_go_on(self.steps) else {}),
            **(parts or {}),
        }
        self._session = Session(
            run,
            state,
            several_updates_per_step=several_updates_per_step,
            validate=validator(specs, judges, held_out),
        )
        self._open = ExitStack()
        self._stages: dict[str, float] = {}
        self._step_began = 0.0

    @property
    def steps(self) -> int:
        """Return the number of steps in the run."""
        return len(self._batches)

    @property
    def first_steps(self) -> int:
        """Return the number of steps in the first phase, as it is known by now."""
        return self.first_phase.steps(self.steps) if self.first_phase is not None else 0

    @property
    def lr(self) -> float:
        """Return the learning rate of the step."""
        return float(self._scheduler.get_last_lr()[0])

    def __enter__(self) -> Self:
        self._open.enter_context(self._session)
        self._bar: Bar = self._open.enter_context(progress(self._run.config.method, self._total))
        self._bar.advance(self._session.rows)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Step[TaskT, RowT]]:
        for index, rows in self._session.steps(self._batches):
            self._module.train(self._dropout)
            if world_size() > 1:  # dropout: other masks in each process, and none that depends on earlier steps
                torch.manual_seed((self._run.config.seed * 1_000_003 + self._session.step) * 4096 + rank())
            self._step_began = time.perf_counter()
            with collect_stages() as self._stages, self._passes.current():
                yield Step(self._session.step, self.tasks[index], rows, index)

    def log(self, step: Step[TaskT, RowT], figures: Mapping[str, Any], rollout: Answers | None = None) -> None:
        """End a step: log its figures, with those of any answers (`rollout`), and step the scheduler.

        Raises GuardError when the answers cross a limit named in `guard.stop_on`.
        """
        watch = self._watches[step.task_index]
        record: dict[str, Any] = {"step": step.number}
        if self.multi_task:
            record["task"] = self._specs[step.task_index].name
        record["rows" if rollout is None else "prompts"] = self._session.rows
        record |= figures
        if rollout is not None:
            record |= watch.see(rollout.golds, rollout.judgements, record.get("rewards", {}).get(LEARNED))
        seconds = dict(self._stages) or time.perf_counter() - self._step_began
        self._scheduler.step()
        about_rows = {"tokens": sum(row.tokens for row in step.rows)}
        if self._passes.auto:
            about_rows["rows_per_pass"] = self._passes.size or len(step.rows)
        self._run.log(record, seconds=seconds, about_rows=about_rows)
        self._bar.advance(len(step.rows), **{name: record[name] for name in SHOWN if name in record})
        if rollout is not None:
            watch.check(record.get("kl", 0.0))

    def finish(self) -> Trained:
        """Save the trained weights, and return the judges.

        Raises NotFiniteError, and saves nothing, when weights are not finite.
        """
        check_weights(self._module, self._what)
        self._save()
        return Trained(self._judges, self._session.rows, self._session.earlier_s)
