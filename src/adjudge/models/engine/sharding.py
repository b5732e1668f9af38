"""The frozen base divided over processes (``runtime.shard_base``), where it does not fit one card.

Each process holds an equal part of the weights of every decoder layer, and of the embeddings. A layer's weights are
gathered when it runs, and again when its backward pass needs them; one layer is whole at a time. Adapters, value head
and everything else that is trained stay whole in every process. This is the division of FSDP2 (ZeRO-3) for weights that
have no gradients.

FSDP2's own `fully_shard` gathers in a fixed order: all processes must run the same passes. Here they do not. Shares of
rows differ in size, answers in length, a prefix may be kept in one process alone, and some passes are the first
process's. So a process *announces* the unit whose weights it needs, and all of them answer, whatever they need
themselves. One that needs none, because it waits for the others' results, answers until all are waiting
(`adjudge.system.parallel.serve_before_meeting`). Methods therefore know nothing of all this.

A weight outside of its unit's pass is NaN: a mistake would stop the run, and not go unnoticed.

Source: arXiv 1910.02054 (ZeRO), section 5.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from adjudge.errors import ModelError
from adjudge.models.layers import decoder_layers
from adjudge.system.memory import return_freed_memory
from adjudge.system.parallel import (
    announced,
    gather_parts,
    gathered,
    have_joined,
    rank,
    serve_before_meeting,
    world_size,
)

NOTHING = -1
"""What a process announces that needs no weights."""
ALIGNED = 64
"""Weights begin at multiples of this in the gathered memory, which kernels like."""
_UNIT = "_sharded_unit"


class Flat:
    """Weights of one dtype, one after the other in memory, of which this process keeps its part."""

    def __init__(self, weights: Sequence[nn.Parameter], device: torch.device) -> None:
        """Keep this process's part of the weights on `device`. The whole weights are gone afterwards."""
        self.weights = list(weights)
        self.shapes = [weight.shape for weight in weights]
        starts, length = [], 0
        for weight in weights:
            starts.append(length)
            length += -(-weight.numel() // ALIGNED) * ALIGNED
        self.starts = starts
        part = -(-length // world_size())
        whole = torch.zeros(part * world_size(), dtype=weights[0].dtype)
        for start, weight in zip(starts, weights, strict=True):
            whole[start : start + weight.numel()] = weight.detach().reshape(-1).cpu()
        self.part = whole[rank() * part : (rank() + 1) * part].clone().to(device)
        """This process's part."""
        self._absent = [torch.full((1,), torch.nan, dtype=whole.dtype, device=device).expand(s) for s in self.shapes]
        self.drop()

    @property
    def nbytes(self) -> int:
        """Return the size of the whole weights."""
        return sum(shape.numel() for shape in self.shapes) * self.part.element_size()

    def room(self) -> Tensor:
        """Return memory for the whole weights as one vector, without their numbers."""
        return self.part.new_empty(len(self.part) * world_size())

    def gather(self, whole: Tensor) -> None:
        """Fill memory with the weights, with the parts of all processes: each must call this."""
        gather_parts(whole, self.part)

    def put(self, whole: Tensor) -> None:
        """Let the parameters show these weights."""
        for weight, start, shape in zip(self.weights, self.starts, self.shapes, strict=True):
            weight.data = whole[start : start + shape.numel()].view(shape)

    def drop(self) -> None:
        """Let the parameters show NaN."""
        for weight, absent in zip(self.weights, self._absent, strict=True):
            weight.data = absent


@dataclass(frozen=True, slots=True)
class _Kept:
    """A weight, or a view of one, kept for the backward pass: it is gathered again when needed."""

    unit: Unit
    index: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    def tensor(self) -> Tensor:
        """Return the tensor."""
        self.unit.hold()
        return self.unit.wholes[self.index].as_strided(self.size, self.stride, self.offset)


class Unit:
    """Weights that are gathered together: those of a decoder layer, or of embeddings.

    `modules` are what reads them.
    """

    def __init__(self, number: int, modules: Sequence[nn.Module], flats: Sequence[Flat], exchange: Exchange) -> None:
        self.number, self.flats, self._exchange = number, flats, exchange
        self.wholes: list[Tensor] = []
        """The gathered weights of each flat; none while they are not here."""
        self._hooks: list[saved_tensors_hooks | None] = []
        for module in modules:
            setattr(module, _UNIT, self)
            module.register_forward_pre_hook(self._before)
            module.register_forward_hook(self._after, always_call=True)

    def hold(self) -> None:
        """Have the weights here, gathered if they are not. Those of another unit are dropped."""
        self._exchange.hold(self)

    def drop(self) -> None:
        """Forget the gathered weights."""
        self.wholes = []
        for flat in self.flats:
            flat.drop()

    def put(self, wholes: Sequence[Tensor]) -> None:
        """Take gathered weights."""
        self.wholes = list(wholes)
        for flat, whole in zip(self.flats, wholes, strict=True):
            flat.put(whole)

    def _before(self, _module: nn.Module, _arguments: Any) -> None:
        self.hold()
        hooks = saved_tensors_hooks(self._keep, _fetch) if torch.is_grad_enabled() else None
        if hooks is not None:
            hooks.__enter__()
        self._hooks.append(hooks)

    def _after(self, _module: nn.Module, _arguments: Any, _output: Any) -> None:
        hooks = self._hooks.pop() if self._hooks else None  # none where gathering itself failed
        if hooks is not None:
            hooks.__exit__(None, None, None)

    def _keep(self, tensor: Tensor) -> Tensor | _Kept:
        """Return what autograd keeps in place of a tensor: of the weights only where they are."""
        address = tensor.untyped_storage().data_ptr()
        for index, whole in enumerate(self.wholes):
            if whole.untyped_storage().data_ptr() == address:
                return _Kept(self, index, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
        return tensor


def _fetch(kept: Tensor | _Kept) -> Tensor:
    return kept.tensor() if isinstance(kept, _Kept) else kept


class Exchange:
    """Gathers the units of all models, in rounds in which every process takes part."""

    def __init__(self) -> None:
        self._units: WeakValueDictionary[int, Unit] = WeakValueDictionary()
        self._count = 0
        self._held: Unit | None = None

    def add(self, modules: Sequence[nn.Module], flats: Sequence[Flat]) -> Unit:
        """Return a new unit. All processes must add the same ones in the same order."""
        unit = self._units[self._count] = Unit(self._count, modules, flats, self)
        self._count += 1
        return unit

    @torch.no_grad()
    def hold(self, unit: Unit) -> None:
        """Gather a unit, unless it is the one that is here already, and drop that one."""
        if self._held is unit and unit.wholes:
            return
        if not have_joined():
            raise ModelError("the base is divided over processes that have left; load it again, in one process.")
        if self._held is not None:
            self._held.drop()
        self._held = None
        wholes = [flat.room() for flat in unit.flats]  # where memory runs out, no other process waits for this one yet
        self._round(unit.number, wholes)
        unit.put(wholes)
        self._held = unit

    @torch.no_grad()
    def serve(self) -> None:
        """Take part in the others' rounds until no process needs weights."""
        while self._round(NOTHING, []):
            pass

    def _round(self, needed: int, wholes: Sequence[Tensor]) -> bool:
        """Announce the unit that this process needs, and gather what any process needs, its own into `wholes`.

        Returns False where none needs anything.
        """
        numbers = sorted(set(announced(needed)) - {NOTHING})
        for number in numbers:
            flats = self._units[number].flats
            for flat, whole in zip(flats, wholes if number == needed else [each.room() for each in flats], strict=True):
                flat.gather(whole)
        return bool(numbers)


_exchange = Exchange()


@dataclass(frozen=True, slots=True)
class Sharded:
    """A base that is divided, and how much of it this process holds."""

    units: list[Unit]
    whole_bytes: int
    """Size of all weights."""
    held_bytes: int
    """Size of what this process holds of them between passes."""
    largest_bytes: int
    """Size of the largest unit, which is gathered while it runs."""


def shard(model: Any, name: str, device: torch.device) -> Sharded:
    """Divide a frozen model over the processes, and move what each keeps to its device.

    The model given lies on the CPU. Every process must call this at the same place in its work, before adapters are
    added. Raises ModelError for a model whose layers are of unknown kinds, or which another process has otherwise.
    """
    units, divided = [], set[int]()
    for modules in _divisions(model, name):
        weights = _weights(modules)
        if any(id(weight) in divided for weight in weights):
            raise ModelError(f"{name}: runtime.shard_base is not possible, since its layers share weights.")
        divided |= {id(weight) for weight in weights}
        dtypes = dict.fromkeys(weight.dtype for weight in weights)
        flats = [Flat([weight for weight in weights if weight.dtype == dtype], device) for dtype in dtypes]
        units.append(_exchange.add(modules, flats))
    rest = [parameter for parameter in model.parameters() if id(parameter) not in divided]
    for parameter in rest:
        parameter.data = parameter.data.to(device)
    for module in model.modules():
        for key, buffer in module.named_buffers(recurse=False):
            setattr(module, key, buffer.to(device))
    rest_bytes = sum(parameter.nbytes for parameter in rest)
    sizes = [sum(flat.nbytes for flat in unit.flats) for unit in units]
    held = rest_bytes + sum(flat.part.nbytes for unit in units for flat in unit.flats)
    if len({tuple(others) for others in gathered(sizes)}) > 1:
        raise ModelError(f"{name}: the processes have models of different sizes; give all machines the same files.")
    serve_before_meeting(_exchange.serve)
    return_freed_memory()
    return Sharded(units, rest_bytes + sum(sizes), held, max(sizes))


def hold_weights(module: nn.Module) -> None:
    """Have the weights of a layer here, where they are divided.

    Call this before running the layer without its hooks.
    """
    unit = getattr(module, _UNIT, None)
    if unit is not None:
        unit.hold()


def _divisions(model: Any, name: str) -> list[list[nn.Module]]:
    """Return what is gathered at a time: the embeddings, the head, and each decoder layer.

    A tied head belongs to the embeddings.
    """
    layers: list[list[nn.Module]] = []
    inner: set[int] = set()
    for module in decoder_layers(model):
        if id(module) not in inner:
            inner |= {id(each) for each in module.modules()}
            layers.append([module])
    if not layers:
        raise ModelError(
            f"{name}: runtime.shard_base is not possible for {type(model).__name__}, whose layers are unknown."
        )
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = {id(weight) for weight in embeddings.parameters()} & {id(weight) for weight in head.parameters()}
    ends: list[list[nn.Module]] = [[embeddings, head]] if tied else [[embeddings], [head]]
    return [*ends, *layers]


def _weights(modules: Sequence[nn.Module]) -> list[nn.Parameter]:
    """Return the weights of modules, each once."""
    return list({id(weight): weight for module in modules for weight in module.parameters()}.values())
