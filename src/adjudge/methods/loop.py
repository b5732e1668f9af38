"""The outer loop of all training methods: batches, steps, log, checkpoints, saving. It knows no loss.

A method iterates over it, computes its own loss inside, and ends each step with `Loop.log`. The loop registers all
state that must survive a kill. A method adds only its own state (`carry`).
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
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.evaluation.validation import hold_out, validator
from adjudge.methods.base import Method, Trained
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.collect import Rollout
from adjudge.rollout.prompted import PromptedTask
from adjudge.runs.folder import Run
from adjudge.system.console import Bar, progress
from adjudge.system.timing import collect_stages
from adjudge.tasks.spec import TaskSpec
from adjudge.training.batches import Batches
from adjudge.training.guards import check_weights
from adjudge.training.mixture import TaskRows
from adjudge.training.optim import build_optimizer
from adjudge.training.session import Session
from adjudge.training.state import Carried, Stateful, generator_state, trained_weights
from adjudge.training.watch import AnswerWatch
from adjudge.types import Example

SHOWN = ("loss", "reward", "right", "kl", "unreadable")
"""Figures of the log shown by the progress bar."""


class TrainingRow(Protocol):
    """A row as a method prepares it."""

    @property
    def id(self) -> str:
        """Return the row's id, used to name it in errors about its batch."""

    @property
    def tokens(self) -> int:
        """Return its length in tokens, by which padded batches are sorted."""


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
    """Iterates over the remaining steps. As a context manager, it resumes the run on entry.

    `tasks` are passed with each step, in the order of `parts`. `rows` are each task's rows as the method prepared them.
    `held_out` rows are judged by `judges` while training. `save` writes the trained weights into the run folder; messages
    call them `what`.
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
        several_updates_per_step: bool = False,
        parts: Mapping[str, Stateful] | None = None,
    ) -> None:
        seed = run.config.seed
        self.order = torch.Generator().manual_seed(seed)
        """Draws the order of the rows."""
        self.sampling = torch.Generator().manual_seed(seed + 1)
        """Draws the answers."""
        self.multi_task = len(specs) > 1
        self._run, self._module, self._dropout = run, module, dropout
        self._tasks, self._judges, self._specs, self._save, self._what = tasks, judges, specs, save, what
        self._total = sum(map(len, rows)) * settings.epochs
        self._batches = Batches(
            rows, settings.batch_size, settings.epochs, self.order, lambda row: row.tokens, padded=padded
        )
        self.optimizer, self._scheduler = build_optimizer(parameter_groups, settings.optimizer, len(self._batches))
        self._watches = [AnswerWatch(spec, run.config.guard, named=self.multi_task) for spec in specs]
        state: dict[str, Stateful] = {
            "trained": trained_weights(module),
            "optimizer": self.optimizer,
            "scheduler": self._scheduler,
            "batches": self._batches,
            "order": generator_state(self.order),
            "sampling": generator_state(self.sampling),
            **{f"watch {index}": watch for index, watch in enumerate(self._watches)},
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
            self._step_began = time.perf_counter()
            with collect_stages() as self._stages:
                yield Step(self._session.step, self._tasks[index], rows, index)

    def log(self, step: Step[TaskT, RowT], figures: Mapping[str, Any], rollout: Rollout | None = None) -> None:
        """End a step: log its figures (with those of the answers in `rollout`), and move the learning rate.

        Raises GuardError when the answers exceed a limit of `guard.stop_on`.
        """
        watch = self._watches[step.task_index]
        record: dict[str, Any] = {"step": step.number}
        if self.multi_task:
            record["task"] = self._specs[step.task_index].name
        record["rows" if rollout is None else "prompts"] = self._session.rows
        record |= figures
        if rollout is not None:
            record |= watch.see(rollout.golds, rollout.judgements)
        seconds = dict(self._stages) or time.perf_counter() - self._step_began
        self._scheduler.step()
        self._run.log(record, seconds=seconds)
        self._bar.advance(len(step.rows), **{name: record[name] for name in SHOWN if name in record})
        if rollout is not None:
            watch.check(record.get("kl", 0.0))

    def finish(self) -> Trained:
        """Save the trained weights, and return the judges.

        Raises NotFiniteError instead of saving weights with values that are not finite.
        """
        check_weights(self._module, self._what)
        self._save()
        return Trained(self._judges, self._session.rows, self._session.earlier_s)


class AdapterLoop(Loop[PromptedTask, RowT]):
    """The loop of a policy with trained LoRA layers."""

    policy: Policy


def adapter_loop(
    run: Run,
    parts: Sequence[TaskRows],
    settings: LoopConfig,
    rows_of: Callable[[PromptedTask, Sequence[Example]], Sequence[RowT]],
    *,
    samples: bool = False,
    value_lr: float | None = None,
    carry: Mapping[str, Stateful] | None = None,
) -> AdapterLoop[RowT]:
    """Return the loop that trains LoRA layers: fresh ones, or those of the run named by ``init``.

    `rows_of` prepares a task's rows. A method that `samples` answers runs without dropout (otherwise the ratio of the
    first update would not be 1) and makes several updates per step. With `value_lr` the value head is trained too.
    `carry` is the method's other state between steps. Raises ConfigError, DataError, ModelError, RunError.
    """
    config = run.config
    parts, held_out = hold_out(parts, config.checkpoint, config.seed)
    policy = _starting_policy(run)
    policy.train(not samples)
    tasks = [PromptedTask(policy, part.spec, config) for part in parts]
    rows = [rows_of(task, part.rows) for task, part in zip(tasks, parts, strict=True)]
    groups: list[dict[str, Any]] = [{"params": policy.adapter_parameters()}]
    if value_lr is not None:
        groups.append({"params": list(policy.value_head.parameters()), "lr": value_lr, "weight_decay": 0.0})
    # The passes that computed a kept prefix affect its last bits, so they belong to the state.
    kept_prefixes = Carried(policy.kept_prefixes, policy.keep_prefixes)

    def save() -> None:
        policy.save_adapter(run.folder / "adapter")
        policy.merge()

    loop = AdapterLoop(
        run,
        settings,
        policy,
        groups,
        tasks,
        rows,
        [PromptedJudge(task) for task in tasks],
        [part.spec for part in parts],
        held_out,
        save,
        what="the adapter",
        dropout=not samples,
        padded=not policy.packs,
        several_updates_per_step=samples,
        parts={"prefixes": kept_prefixes, **(carry or {})},
    )
    loop.policy = policy
    torch.manual_seed(config.seed)  # adapter dropout
    return loop


def adapter_method(train: Callable[[Run, Sequence[TaskRows]], Trained]) -> Method:
    """Return the method for a `train` function that saves an adapter in the run folder."""
    return Method(train, load_adapter_judges)


def load_adapter_judges(run: Run, specs: Sequence[TaskSpec]) -> list[PromptedJudge]:
    """Return the judges of a finished run with an adapter: one policy, prompted with each task."""
    policy = load_policy(run.config)
    policy.load_adapter(run.folder / "adapter", train=False)
    policy.merge()
    return [PromptedJudge(PromptedTask(policy, spec, run.config)) for spec in specs]


def _starting_policy(run: Run) -> Policy:
    policy = load_policy(run.config, adapter=run.start is None)
    if run.start is not None:
        policy.load_adapter(run.start.adapter, train=True)
    return policy
