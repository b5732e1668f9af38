"""A training loop that can be killed at any moment and resumed as if nothing had happened.

The loop hands over every part it carries from step to step and runs over ``session.steps(batches)``. After a step the
session writes a checkpoint when one is due (`adjudge.training.checkpoint`). Entering a resumed run restores the newest
checkpoint and cuts the logs back to where they were then, so repeated steps are logged once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from torch import Tensor

from adjudge.errors import GuardError, NotFiniteError, RewardError, RunError
from adjudge.runs.folder import BEST, CHECKPOINTS, Run
from adjudge.system.console import note
from adjudge.system.files import write_json
from adjudge.system.parallel import gathered, is_first
from adjudge.training.batches import Batches, Row
from adjudge.training.checkpoint import (
    DamagedError,
    drop_newer,
    keep_newest,
    load_checkpoint,
    newest_checkpoint,
    pack,
    save_checkpoint,
)
from adjudge.training.state import Snapshot, Stateful, all_finite, global_generators
from adjudge.training.stopping import StopRequest

Validate = Callable[[], Mapping[str, Any]]
"""Judges held-out rows and returns ``{"value": …}``, higher is better, None where undefined."""


class Session:
    """The state carried from step to step, saved and restored as one. A context manager around the loop.

    `parts` must have "trained", "optimizer" and "scheduler". Say `several_updates_per_step` where a step makes several.
    """

    def __init__(
        self,
        run: Run,
        parts: Mapping[str, Stateful],
        *,
        several_updates_per_step: bool = False,
        validate: Validate | None = None,
    ) -> None:
        self.step = 0
        """Steps done, or the number of the step being done."""
        self.rows = 0
        """Rows learned from so far, repetitions counted."""
        self.earlier_s = 0.0
        """Seconds of training before the run was resumed."""
        self._run, self._config = run, run.config.checkpoint
        self._folder = run.folder / CHECKPOINTS
        self._parts: dict[str, Stateful] = {**parts, "rng": global_generators()}
        self._snapshot = Snapshot(self._parts, copy_weights=several_updates_per_step)
        self._validate = validate
        self._best: float | None = None
        self._began = self._saved_at = time.monotonic()
        self._batch: Sequence[Any] = ()
        self._step_is_done = False
        self._last = 0
        self._stop = StopRequest()

    def __enter__(self) -> Session:
        newest = newest_checkpoint(self._folder) if self._run.resumed else None
        if newest is not None:
            self._restore(newest[1])
            drop_newer(self._folder, newest[0])
            note(f"resuming after step {self.step} ({self._run.folder})")
        elif self._run.resumed:
            note("there is no checkpoint yet: beginning with the first step.")
            self._run.rewind({})
        self._began = self._saved_at = time.monotonic()
        self._stop.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.__exit__(kind, error, trace)
        if isinstance(error, NotFiniteError | RewardError):
            named = type(error)(f"Step {self.step}: {error}")
            self._keep_failed(named)
            raise named from error.__cause__
        if isinstance(error, GuardError):  # raised after the update: do the usual end-of-step work before stopping
            self._validate_if_due()
            self._save_before_the_end()
        elif kind is None:
            self._stop.agree()
            self._stop.raise_if_requested()

    def steps(self, batches: Batches[Row]) -> Iterator[tuple[int, list[Row]]]:
        """Yield the remaining batches, each with the index of its task, and do what is due after each.

        Raises KeyboardInterrupt or Terminated after the step in which a stop was requested, with a checkpoint written.
        """
        remaining = iter(batches)
        self._last = len(batches)
        while True:
            self._snapshot.take({"step": self.step, "rows": self.rows, "logs": self._run.log_sizes()})
            try:
                index, batch = next(remaining)
            except StopIteration:
                break
            self.step, self.rows, self._batch = self.step + 1, self.rows + len(batch), batch
            self._step_is_done = False
            yield index, batch
            self._step_is_done = True
            self._validate_if_due()
            self._stop.agree()
            if self._stop.requested:
                self._save_before_the_end()
            elif self._is_due():
                self.save()
            self._stop.raise_if_requested()
        self._stop.agree()
        if self._stop.requested:  # checkpoint first: `_take_best` replaces the weights
            self._save_before_the_end()
            self._stop.raise_if_requested()
        self._take_best()

    def save(self) -> None:
        """Write a checkpoint of the state between two steps; keep the one before when weights are not finite.

        Of several processes, the first one writes it: all have the same state.
        """
        if not is_first():
            return
        tensors: dict[str, Tensor] = {}
        packed = pack({**{name: part.state_dict() for name, part in self._parts.items()}, **self._own()}, tensors)
        if not all_finite(tensors):
            return
        self._run.sync_logs()
        save_checkpoint(self._folder, self.step, packed, tensors)
        keep_newest(self._folder, self._config.keep)
        self._saved_at = time.monotonic()

    def _save_before_the_end(self) -> None:
        """Write a checkpoint. The other processes wait: a launcher stops the first when one of them has ended."""
        self.save()
        gathered(None)

    def _is_due(self) -> bool:
        steps, seconds = self._config.every_steps, self._config.every_s
        return (steps is not None and self.step % steps == 0) or (
            seconds is not None and time.monotonic() - self._saved_at >= seconds
        )

    def _validate_if_due(self) -> None:
        """Judge the held-out rows, log the value, and keep the weights when they are the best so far."""
        every = self._config.validate_every
        if self._validate is None or every is None or not (self.step % every == 0 or self.step == self._last):
            return
        figures = self._validate()
        self._run.log({"step": self.step, **figures}, file="validation.jsonl")
        value = figures["value"]
        if value is not None and (self._best is None or value > self._best):
            self._best = value
            tensors: dict[str, Tensor] = {}
            state = {"trained": self._parts["trained"].state_dict(), "value": value}
            save_checkpoint(self._folder, self.step, pack(state, tensors), tensors, name=BEST)

    def _take_best(self) -> None:
        if self._config.use != "best" or self._best is None:
            return
        try:
            step, state = load_checkpoint(self._folder / BEST)
        except DamagedError as error:
            raise RunError(
                f"The best weights, {self._folder / BEST}, are damaged: {error}. Begin again with --force."
            ) from None
        self._parts["trained"].load_state_dict(state["trained"])
        note(f"taking the weights of step {step}, the best on the held-out rows ({state['value']:.3f}).")

    def _own(self) -> dict[str, Any]:
        """Return the session's own values: all of the state except the parts."""
        return {
            "step": self.step,
            "rows": self.rows,
            "best": self._best,
            "seconds": self.earlier_s + time.monotonic() - self._began,
            "logs": self._run.log_sizes(),
            "identity": dict(self._run.identity),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        if set(self._parts) - set(state):
            raise RunError("The checkpoint was written by another version of adjudge. Begin again with --force.")
        changed = [name for name, value in self._run.identity.items() if state["identity"].get(name) != value]
        if changed:
            raise RunError(
                f"{self._run.folder}: its checkpoint was made with different {' and '.join(changed)}. "
                "Put them back, or begin again with --force."
            )
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self.step, self.rows, self._best = state["step"], state["rows"], state["best"]
        self.earlier_s = state["seconds"]
        self._run.rewind(state["logs"])

    def _keep_failed(self, error: NotFiniteError | RewardError) -> None:
        """Write failure.json with the failed batch's rows, and the state before the step as a checkpoint.

        ``--resume`` then repeats the step. No checkpoint is written when an older one is better: the weights were
        already not finite, or the step was complete and judging held-out rows failed.
        """
        began_with = self._snapshot.as_checkpoint(self._own(), updated=self._step_is_done)
        rows = [str(row.id) for row in self._batch]
        record = {"step": self.step, "reason": str(error), "rows": rows, "replays": began_with is not None}
        write_json(self._run.folder / "failure.json", record)
        if began_with is not None:
            self._run.sync_logs()
            save_checkpoint(self._folder, self.step - 1, *began_with)
