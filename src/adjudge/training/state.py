"""The state a training loop carries between steps: its parts, and a snapshot from before each step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from adjudge.errors import RunError
from adjudge.training.checkpoint import pack

WEIGHTS = ("trained", "optimizer", "scheduler")
"""The parts only an update changes. The others are small and change from the moment a batch is drawn."""


class Stateful(Protocol):
    """A part that can be saved and restored: an optimizer, a scheduler, `Batches`, a `Carried`."""

    def state_dict(self) -> Any:
        """Return its state: JSON values and tensors, nested."""

    def load_state_dict(self, state_dict: Any, /) -> Any:
        """Take over a state."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A part which one function saves and another restores, such as a generator."""

    state_dict: Callable[[], Any]
    load_state_dict: Callable[[Any], Any]


def generator_state(generator: torch.Generator) -> Carried:
    """Carry the state of a generator."""
    return Carried(generator.get_state, generator.set_state)


def global_generators() -> Carried:
    """Carry the state of every global generator."""
    return Carried(_rng_state, _set_rng_state)


def trained_weights(module: nn.Module) -> Carried:
    """Carry a module's trained parameters by name. Restoring raises RunError when names or shapes differ."""
    parameters = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}

    def load(state: Mapping[str, Tensor]) -> None:
        if _shapes(state) != _shapes(parameters):
            raise RunError("The checkpoint was made with another model or other LoRA layers. Begin again with --force.")
        with torch.no_grad():
            for name, value in state.items():
                parameters[name].copy_(value)

    return Carried(lambda: {name: parameter.detach() for name, parameter in parameters.items()}, load)


class Snapshot:
    """The state before a step, kept so that a failed step can be repeated.

    With `copy_weights` the weights are copied too. This is needed where a step makes several updates: one may fail
    after another has changed the weights.
    """

    def __init__(self, parts: Mapping[str, Stateful], *, copy_weights: bool) -> None:
        self._parts, self._copy_weights = parts, copy_weights
        self._small: dict[str, Any] | None = None
        self._packed_weights: dict[str, Any] = {}
        self._copies: dict[str, Tensor] = {}

    def take(self, session_values: Mapping[str, Any]) -> None:
        """Remember the state of all parts, and the session's own values (`session_values`)."""
        self._small = {name: part.state_dict() for name, part in self._parts.items() if name not in WEIGHTS} | dict(
            session_values
        )
        if self._copy_weights:
            tensors: dict[str, Tensor] = {}
            self._packed_weights = self._pack_weights(tensors)
            if _shapes(tensors) != _shapes(self._copies):
                self._copies = {name: tensor.clone() for name, tensor in tensors.items()}
            else:
                torch._foreach_copy_(list(self._copies.values()), list(tensors.values()))

    def as_checkpoint(
        self, session_values: Mapping[str, Any], *, updated: bool
    ) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the remembered state, ready for `save_checkpoint`.

        `session_values` fill in values which were not remembered. Returns None when nothing was remembered, when the
        weights are not finite, or when they were `updated` since without a copy.
        """
        if self._small is None or (updated and not self._copy_weights):
            return None
        tensors: dict[str, Tensor] = dict(self._copies)
        weights = self._packed_weights if self._copy_weights else self._pack_weights(tensors)
        if not all_finite(tensors):
            return None
        return {**weights, **pack({**session_values, **self._small}, tensors)}, tensors

    def _pack_weights(self, tensors: dict[str, Tensor]) -> dict[str, Any]:
        packed: dict[str, Any] = pack({name: self._parts[name].state_dict() for name in WEIGHTS}, tensors)
        return packed


def all_finite(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether every entry of the floating-point tensors is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values() if tensor.is_floating_point())


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _rng_state() -> dict[str, Any]:
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": random.getstate(),
        "numpy": (str(name), np.asarray(keys).tolist(), int(position), int(has_gauss), float(gauss)),
    }


def _set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
