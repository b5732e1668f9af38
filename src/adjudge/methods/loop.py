"""The outer loop of all training methods: batches, steps, log, checkpoints, saving. It knows no loss.

A method iterates over it, computes its loss inside, and ends each step with `Loop.log`. The loop registers all shared
state which must survive a kill; a method passes only its additional state (`carry`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import nn

from adjudge.config import EmbeddingConfig, LoopConfig, PolicyGradientConfig, WarmStartConfig
from adjudge.errors import ConfigError
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.evaluation.validation import hold_out, validator
from adjudge.methods.base import Method, Trained
from adjudge.methods.rewarding import add_rewarders, load_adapter_tasks
from adjudge.models.policy import Policy, load_policy
from adjudge.rewards.learned import LEARNED
from adjudge.rollout.collect import Rollout
from adjudge.rollout.passes import RowsPerPass
from adjudge.rollout.prompted import PromptedTask, taught_row
from adjudge.runs.folder import Run
from adjudge.system.console import Bar, note, progress
from adjudge.system.parallel import rank, world_size
from adjudge.system.timing import collect_stages
from adjudge.tasks.spec import TaskSpec
from adjudge.training.batches import Batches
from adjudge.training.guards import check_weights
from adjudge.training.mixture import TaskRows, sampling_labels
from adjudge.training.optim import NO_FIRST_PHASE, FirstPhase, build_optimizer
from adjudge.training.session import Session
from adjudge.training.state import Carried, Stateful, generator_state, trained_weights
from adjudge.training.updates import teach
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
        first_phase: FirstPhase = NO_FIRST_PHASE,
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
        self.first_steps = first_phase.steps(len(self._batches))
        """Number of steps in the first phase."""
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


class AdapterLoop(Loop[PromptedTask, RowT]):
    """The loop of methods which train a policy's LoRA layers.

    With a warm start, the first steps fine-tune on the right answers. The policy is then the reference, the optimizer
    starts anew, and the method gets the remaining steps.
    """

    policy: Policy
    teach: Callable[[Step[PromptedTask, RowT]], Mapping[str, float]] | None = None
    """Does a step of the warm start and returns its figures."""
    iterations: int = 1
    """Times the reference is renewed from the policy, the start included."""

    def iteration_of(self, step: Step[PromptedTask, RowT]) -> int:
        """Return which iteration a step is in, counted from 0. The steps after the warm start are shared out evenly."""
        return (step.number - self.first_steps - 1) * self.iterations // self._own_steps

    def begins_iteration(self, step: Step[PromptedTask, RowT]) -> bool:
        """Return whether a step is the first of an iteration. If it is a later one, move the reference."""
        done = step.number - self.first_steps - 1
        begins = done == 0 or self.iteration_of(step) != (done - 1) * self.iterations // self._own_steps
        if begins and done:
            self.policy.freeze_reference()
        return begins

    def check_iterations(self) -> None:
        """Raise ConfigError for more iterations than steps after the warm start."""
        if self.iterations > self._own_steps:
            raise ConfigError(
                f"{self.iterations} iterations need as many steps after the warm start, and there are only "
                f"{self._own_steps}: use fewer iterations, more epochs, or smaller batches."
            )

    @property
    def _own_steps(self) -> int:
        return len(self._batches) - self.first_steps

    def log(self, step: Step[PromptedTask, RowT], figures: Mapping[str, Any], rollout: Answers | None = None) -> None:
        """End a step as `Loop.log` does, with the tokens that were sampled, and the parts of the rewards.

        Methods log tokens sampled for anything but their answers as ``extra_tokens``.
        """
        rewarder = step.task.rewarder
        parts = rewarder.figures() if rewarder is not None and rollout is not None else {}
        if isinstance(rollout, Rollout):
            parts["sampled_tokens"] = int(rollout.mask_BR.sum()) + figures.get("extra_tokens", 0)
        if world_size() > 1:
            # A process whose share of a batch was empty ran no pass with gradient, which would have dropped the prefix
            # of the old weights; and each process keeps another prefix, while a checkpoint holds the first one's.
            self.policy.forget_prefix(reference=True)
        super().log(step, {**figures, **parts}, rollout)

    def __iter__(self) -> Iterator[Step[PromptedTask, RowT]]:
        for step in super().__iter__():
            if self.teach is None or step.number > self.first_steps:
                yield step
                continue
            self.log(step, {**self.teach(step), "lr": self.lr})
            if step.number == self.first_steps:
                self.policy.freeze_reference()
                self.optimizer.state.clear()


def adapter_loop(
    run: Run,
    parts: Sequence[TaskRows],
    settings: LoopConfig,
    rows_of: Callable[[PromptedTask, Sequence[Example]], Sequence[RowT]],
    *,
    samples: bool = False,
    value_lr: float | None = None,
    value_bias: bool = True,
    iterations: int = 1,
    embeddings: EmbeddingConfig | None = None,
    carry: Mapping[str, Stateful] | None = None,
    judge_of: Callable[[PromptedTask], Judge] = PromptedJudge,
    add_to: Callable[[Policy], Sequence[dict[str, Any]]] | None = None,
) -> AdapterLoop[RowT]:
    """Build the loop for training LoRA layers: new layers, or the layers of the run named by ``init``.

    `rows_of` prepares a task's rows. With `samples` (the method samples answers) dropout is off, so that the first
    update's ratio is 1, a step may make several updates, and the settings may ask for a warm start. With `value_lr` the
    value head is trained too, without `value_bias` its weight alone. With several `iterations` the reference moves
    (`AdapterLoop.begins_iteration`). `embeddings` are added to the layers. `add_to` adds the method's own modules to
    the policy and returns their parameter groups. `carry` holds the method's additional state; `judge_of` makes its
    judges. Raises ConfigError, DataError, ModelError, RunError.
    """
    config = run.config
    parts, held_out = hold_out(parts, config.checkpoint, config.seed)
    policy = _starting_policy(run, embeddings)
    policy.train(not samples)
    tasks = [PromptedTask(policy, part.spec, config) for part in parts]
    rows = [rows_of(task, part.rows) for task, part in zip(tasks, parts, strict=True)]
    groups: list[dict[str, Any]] = [{"params": policy.adapter_parameters()}]
    if value_lr is not None:
        policy.value_head.bias.requires_grad_(value_bias)
        head = [parameter for parameter in policy.value_head.parameters() if parameter.requires_grad]
        groups.append({"params": head, "lr": value_lr, "weight_decay": 0.0})
    if add_to is not None:
        groups += add_to(policy)
    # The last bits of a kept prefix depend on the pass which computed it, so prefixes belong to the state. They are
    # restored after the weights and the reference, with which they are computed again.
    kept_prefixes = Carried(policy.kept_prefixes, policy.keep_prefixes)
    first_phase = NO_FIRST_PHASE
    carried: dict[str, Stateful] = {}
    if isinstance(settings, PolicyGradientConfig):
        carried |= add_rewarders(run, settings.reward, tasks, parts)
    if isinstance(settings, WarmStartConfig) and _has_warm_start(run, settings):
        first_phase = FirstPhase(settings.warm_start, settings.warm_start_lr)
    if iterations > 1 or first_phase is not NO_FIRST_PHASE:
        carried["reference"] = Carried(policy.reference_state, policy.load_reference_state)

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
        [judge_of(task) for task in tasks],
        [part.spec for part in parts],
        held_out,
        save,
        what="the adapter",
        dropout=not samples,
        padded=not policy.packs,
        labels=sampling_labels(parts, config.data),
        several_updates_per_step=samples,
        first_phase=first_phase,
        parts={**carried, "prefixes": kept_prefixes, **(carry or {})},
    )
    loop.policy, loop.iterations = policy, iterations
    loop.check_iterations()
    if isinstance(settings, WarmStartConfig):
        loop.teach = partial(_teach, loop, settings)
    torch.manual_seed(config.seed)  # adapter dropout
    return loop


def _has_warm_start(run: Run, settings: WarmStartConfig) -> bool:
    """Return whether the run begins with SFT. A run with ``init`` does not: it goes on from one.

    With ``prompt.analysis=before`` neither: rows have no analyses, and answers alone would teach to skip them.
    """
    if run.start is not None or settings.warm_start == 0:
        return False
    if run.config.prompt.analysis == "before":
        note("no warm start: the rows have no analyses to teach (prompt.analysis=before).")
        return False
    return True


def _teach(loop: AdapterLoop[Any], settings: WarmStartConfig, step: Step[PromptedTask, Any]) -> dict[str, float]:
    rows = [taught_row(step.task, row) for row in step.rows]
    return teach(loop.policy, loop.optimizer, rows, settings.micro_batch_size, settings.optimizer.max_grad_norm)


def adapter_method(train: Callable[[Run, Sequence[TaskRows]], Trained]) -> Method:
    """Return the method of a `train` function which saves an adapter in the run folder."""
    return Method(train, load_adapter_judges)


def load_adapter_judges(run: Run, specs: Sequence[TaskSpec]) -> list[PromptedJudge]:
    """Return the judges of a finished adapter run: one policy, prompted with each task."""
    return [PromptedJudge(task) for task in load_adapter_tasks(run, specs)]


def _starting_policy(run: Run, embeddings: EmbeddingConfig | None) -> Policy:
    policy = load_policy(run.config, adapter=run.start is None)
    if run.start is not None:
        policy.load_adapter(run.start.adapter, train=True)
    if embeddings is not None:
        policy.add_embeddings(embeddings, run.config.seed)
    return policy
