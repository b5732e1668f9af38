"""The loop that trains a policy's LoRA layers: the policy, its reference, rewards and a warm start.

Most methods iterate over it (`adapter_loop`). It knows no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import torch

from adjudge.config import EmbeddingConfig, LoopConfig, PolicyGradientConfig, WarmStartConfig
from adjudge.errors import ConfigError
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.evaluation.validation import hold_out
from adjudge.methods.base import Method, Trained
from adjudge.methods.base_loop import Answers, Loop, Step, TrainingRow
from adjudge.methods.for_tasks import all_numbers
from adjudge.methods.rewarding import add_rewarders, load_adapter_tasks
from adjudge.models.policy import Policy, load_policy
from adjudge.rollout.collect import Rollout
from adjudge.rollout.prompted import PromptedTask, taught_row
from adjudge.runs.folder import Run
from adjudge.system.console import note
from adjudge.system.parallel import on_first, world_size
from adjudge.tasks.spec import TaskSpec
from adjudge.training.first_phase import FirstPhase, commonest_share
from adjudge.training.mixture import TaskRows, sampling_labels
from adjudge.training.state import Carried, Stateful
from adjudge.training.updates import teach
from adjudge.types import Example

RowT = TypeVar("RowT", bound=TrainingRow)


class AdapterLoop(Loop[PromptedTask, RowT]):
    """The loop of methods which train a policy's LoRA layers.

    With a warm start, the first steps fine-tune on the right answers, for longer than planned where that has not taught
    anything yet. The policy is then the reference, the optimizer starts anew, and the method gets the remaining steps.
    """

    policy: Policy
    teach: Callable[[Step[PromptedTask, RowT]], Mapping[str, float]] | None = None
    """Does a step of the warm start and returns its figures."""
    iterations: int = 1
    """Times the reference is renewed from the policy, the start included."""

    def iteration_of(self, step: Step[PromptedTask, RowT]) -> int:
        """Return which iteration a step is in, counted from 0.

        The steps after the warm start are shared out evenly.
        """
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
        return self.steps - self.first_steps

    def log(self, step: Step[PromptedTask, RowT], figures: Mapping[str, Any], rollout: Answers | None = None) -> None:
        """End a step as `Loop.log` does, with the tokens that were sampled, and the parts of the rewards.

        Methods log tokens sampled for anything but their answers as ``extra_tokens``.
        """
        rewarder = step.task.rewarder
        # Only the first process scores answers, and every process watches the figures.
        parts = on_first(rewarder.figures) if rewarder is not None and rollout is not None else {}
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
            assert self.first_phase is not None
            figures = self.teach(step)
            why = self.first_phase.see(step.number, self.steps, step.task_index, len(step.rows), figures["right"])
            if why is not None:
                note(f"{self._run.config.method}: {why}")
            self.log(step, {**figures, "lr": self.lr})
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
    if isinstance(settings, WarmStartConfig):
        settings = settings.decided(numbers=all_numbers([part.spec for part in parts]))
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
    first_phase = None
    carried: dict[str, Stateful] = {}
    if isinstance(settings, PolicyGradientConfig):
        carried |= add_rewarders(run, settings.reward, tasks, parts)
    if isinstance(settings, WarmStartConfig) and _has_warm_start(run, settings):
        common = [commonest_share(example.gold for example in part.rows) for part in parts]
        share, limit = settings.warm_start or 0.0, settings.warm_start_limit or 0.0
        first_phase = FirstPhase(share, settings.warm_start_lr, limit, left=iterations, common=common)
    if iterations > 1 or first_phase is not None:
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
