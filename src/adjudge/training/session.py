"""A training loop that can be killed at any moment and taken up again as if nothing had happened.

A method hands over everything that its loop carries from step to step, and runs over ``session.steps(batches)``. After a step the session
writes a checkpoint when one is due (`adjudge.training.checkpoint`); on entering a run that is resumed it restores the newest. The logs are
cut back to where they were at the checkpoint, so that the steps that are done again are logged once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from adjudge.errors import GuardError, NotFiniteError, RunError
from adjudge.runs.folder import BEST, CHECKPOINTS, Run
from adjudge.system.console import note
from adjudge.system.files import write_json
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
from adjudge.training.stopping import StopRequest

HEAVY = ("trained", "optimizer", "scheduler")
"""What only an update changes; the rest is small, and changes from the moment a batch is drawn."""


class Stateful(Protocol):
    """What can be saved and restored: optimizers, schedulers, `Batches`, `Carried`."""

    def state_dict(self) -> Any:
        """Its state: JSON values and tensors, nested."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take the state."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Something that is saved by one function and restored by another, such as a generator."""

    state_dict: Callable[[], Any]
    load_state_dict: Callable[[Any], Any]


def drawn(generator: torch.Generator) -> Carried:
    """The state of a generator."""
    return Carried(generator.get_state, generator.set_state)


def trained(module: nn.Module) -> Carried:
    """The parameters of a module that are trained, by name. Restoring raises RunError when they are not those of the checkpoint."""
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}

    def load(state: Mapping[str, Tensor]) -> None:
        if {name: value.shape for name, value in state.items()} != {
            name: value.shape for name, value in parameters.items()
        }:
            raise RunError("The checkpoint was made with another model or other LoRA layers. Begin again with --force.")
        with torch.no_grad():
            for name, value in state.items():
                parameters[name].copy_(value)

    return Carried(lambda: {name: value.detach() for name, value in parameters.items()}, load)


class Session:
    """Everything that is carried from step to step, saved and restored as one. A context manager around the loop.

    `carried` must have "trained", "optimizer" and "scheduler". With `changes_within` a step makes several updates, so that what a step
    begins with is copied before it: a step that fails can then be done again. `validate` judges the rows that are held out and returns
    ``{"value": …}``, higher is better or None.
    """

    def __init__(
        self,
        run: Run,
        carried: Mapping[str, Stateful],
        *,
        changes_within: bool = False,
        validate: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.step = 0
        """Steps done, or the number of the step that is being done."""
        self.rows = 0
        """Rows learned from so far, repetitions counted."""
        self._run, self._config = run, run.config.checkpoint
        self._folder = run.folder / CHECKPOINTS
        self._carried: dict[str, Stateful] = {**carried, "rng": Carried(_rng_state, _set_rng_state)}
        self._changes_within = changes_within
        self._validate = validate
        self._best: float | None = None
        self._earlier_s = 0.0
        self._began = self._saved_at = time.monotonic()
        self._before: dict[str, Any] = {}
        self._copies: dict[str, Tensor] = {}
        self._batch: Sequence[Any] = ()
        self._updated = False
        self._last = 0
        self._stop = StopRequest()

    def __enter__(self) -> Session:
        found = newest_checkpoint(self._folder) if self._run.resumed else None
        if found is not None:
            self._restore(found[1])
            drop_newer(self._folder, found[0])
            note(f"going on after step {self.step} ({self._run.folder})")
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
        self._run.earlier_s = self._earlier_s
        if isinstance(error, NotFiniteError) and self._before:
            self._keep_failed(error)
        elif isinstance(error, GuardError):  # raised when all of the step is done but what follows each
            self._validate_if_due()
            self.save()
        elif kind is None:
            self._stop.grant()

    def steps(self, batches: Batches[Row]) -> Iterator[tuple[int, list[Row]]]:
        """Yield the batches that are left, each with the place of its task; after each, what is due is done.

        Raises KeyboardInterrupt or Terminated after the step in which a stop was asked for, with a checkpoint behind it.
        """
        left = iter(batches)
        self._last = len(batches)
        while True:
            self._remember()
            try:
                place, batch = next(left)
            except StopIteration:
                break
            self.step, self.rows, self._batch, self._updated = self.step + 1, self.rows + len(batch), batch, False
            yield place, batch
            self._updated = True
            self._end_step()
        if self._stop.wished:  # before the weights may be others
            self.save()
            self._stop.grant()
        self._take_best()

    def save(self) -> None:
        """Write a checkpoint of the state as it is between two steps; none of weights that are not finite: the step before is better."""
        tensors: dict[str, Tensor] = {}
        packed = pack(self._state(), tensors)
        if not _finite(tensors):
            return
        self._run.sync_logs()
        save_checkpoint(self._folder, self.step, packed, tensors)
        keep_newest(self._folder, self._config.keep)
        self._saved_at = time.monotonic()

    def _validate_if_due(self) -> None:
        every = self._config.validate_every
        if self._validate is not None and every is not None and (self.step % every == 0 or self.step == self._last):
            self._judge(self._validate())

    def _end_step(self) -> None:
        self._validate_if_due()
        if self._due() or self._stop.wished:
            self.save()
        self._stop.grant()

    def _due(self) -> bool:
        steps, seconds = self._config.every_steps, self._config.every_s
        return (steps is not None and self.step % steps == 0) or (
            seconds is not None and time.monotonic() - self._saved_at >= seconds
        )

    def _judge(self, found: Mapping[str, Any]) -> None:
        """Log what validation found, and keep the weights when they are the best so far."""
        self._run.log({"step": self.step, **found}, file="validation.jsonl")
        value = found["value"]
        if value is not None and (self._best is None or value > self._best):
            self._best = value
            tensors: dict[str, Tensor] = {}
            state = {"trained": self._carried["trained"].state_dict(), "value": value}
            save_checkpoint(self._folder, self.step, pack(state, tensors), tensors, name=BEST)

    def _take_best(self) -> None:
        if self._config.use == "best" and self._best is not None:
            try:
                step, state = load_checkpoint(self._folder / BEST)
            except DamagedError as error:
                raise RunError(
                    f"The best weights, {self._folder / BEST}, are damaged: {error}. Begin again with --force."
                ) from None
            self._carried["trained"].load_state_dict(state["trained"])
            note(f"taking the weights of step {step}, the best on the held-out rows ({state['value']:.3f}).")

    def _state(self) -> dict[str, Any]:
        return {**{name: part.state_dict() for name, part in self._carried.items()}, **self._rest()}

    def _rest(self) -> dict[str, Any]:
        """What the session itself knows."""
        return {
            "step": self.step,
            "rows": self.rows,
            "best": self._best,
            "seconds": self._earlier_s + time.monotonic() - self._began,
            "logs": self._run.log_sizes(),
            "identity": dict(self._run.identity),
        }

    def _restore(self, state: Mapping[str, Any]) -> None:
        if set(self._carried) - set(state):
            raise RunError("The checkpoint was written by another version of adjudge. Begin again with --force.")
        changed = [name for name, value in self._run.identity.items() if state["identity"].get(name) != value]
        if changed:
            raise RunError(
                f"{self._run.folder}: its checkpoint was made with other {' and '.join(changed)}. "
                "Put them back, or begin again with --force."
            )
        for name, part in self._carried.items():
            part.load_state_dict(state[name])
        self.step, self.rows, self._best, self._earlier_s = (
            state["step"],
            state["rows"],
            state["best"],
            state["seconds"],
        )
        self._run.rewind(state["logs"])

    def _remember(self) -> None:
        """Keep what the next step begins with, in case it has to be done again."""
        light = {name: part.state_dict() for name, part in self._carried.items() if name not in HEAVY}
        self._before = {**light, "step": self.step, "rows": self.rows, "logs": self._run.log_sizes()}
        if not self._changes_within:
            return
        tensors: dict[str, Tensor] = {}
        heavy = pack({name: self._carried[name].state_dict() for name in HEAVY}, tensors)
        if {name: tensor.shape for name, tensor in tensors.items()} != {
            name: copy.shape for name, copy in self._copies.items()
        }:
            self._copies = {name: tensor.clone() for name, tensor in tensors.items()}
        else:
            torch._foreach_copy_(list(self._copies.values()), list(tensors.values()))
        self._before["heavy"] = heavy

    def _keep_failed(self, error: NotFiniteError) -> None:
        """Leave what the failed step began with as a checkpoint, so that ``--resume`` replays it, and say which batch it was.

        Where the weights were not finite before it already, or the step was through and its judging failed, an older one is better.
        """
        tensors = dict(self._copies)
        heavy = self._before.pop("heavy", None)
        undone = heavy is not None or not self._updated
        if heavy is None:  # nothing was updated since the step began
            heavy = pack({name: self._carried[name].state_dict() for name in HEAVY}, tensors)
        finite = undone and _finite(tensors)
        record = {
            "step": self.step,
            "reason": str(error),
            "rows": [_row_id(row) for row in self._batch],
            "replays": finite,
        }
        write_json(self._run.folder / "failure.json", record)
        if finite:
            self._run.sync_logs()
            save_checkpoint(
                self._folder, self.step - 1, {**heavy, **pack({**self._rest(), **self._before}, tensors)}, tensors
            )


def _finite(tensors: Mapping[str, Tensor]) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


def _row_id(row: Any) -> str:
    """The id of a row of a batch, whatever a method makes of its rows."""
    found = row if hasattr(row, "id") else row[0]
    return str(found.id)


def _rng_state() -> dict[str, Any]:
    """The state of every global generator."""
    name, keys, place, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (str(name), np.asarray(keys).tolist(), int(place), int(has_gauss), float(gauss)),
    }


def _set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
