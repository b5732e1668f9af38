"""Several processes that train together, as `torchrun` and `accelerate launch` start them.

Every process does the same steps on the same rows in the same order. Only passes through the model are divided: each
process runs its share of the rows, and the results are put together again, so all of them know everything and stay
equal. The first process alone writes, prints and calls the user's functions.

Without a launcher there is one process, and every function here is the identity.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from adjudge.errors import AdjudgeError, ConfigError, RunError

if TYPE_CHECKING:
    from torch import Tensor

_Value = TypeVar("_Value")
_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"
"""Environment variables by which `accelerate launch` asks for an engine that divides the model."""

MOST_S = 24 * 3600
"""How long a process waits for the others: the first may do much alone, such as rating all rows with a reward model.

One that ends is seen at once, by its closed connection or by the launcher.
"""

_before_meeting: list[Callable[[], None]] = []
"""What a process does before it waits for a value of every other process (`serve_before_meeting`)."""


def world_size() -> int:
    """Return the number of processes; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE") or 1)


def rank() -> int:
    """Return this process's number among all, from 0."""
    return int(os.environ.get("RANK") or 0)


def is_first() -> bool:
    """Return whether this is the process that writes and prints."""
    return rank() == 0


def local_rank() -> int:
    """Return this process's number among those of its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK") or 0)


def own_device(name: str) -> str:
    """Return this process's device: of several, each takes a GPU of its own where any GPU may be taken.

    Raises ConfigError when a machine has more processes than GPUs.
    """
    if world_size() == 1 or name != "cuda":
        return name
    import torch

    count = torch.cuda.device_count()
    if local_rank() >= count:
        processes = os.environ.get("LOCAL_WORLD_SIZE", str(world_size()))
        raise ConfigError(
            f"{processes} processes on this machine need as many GPUs, and it has {count}. Start fewer processes, or "
            "use runtime.device=cpu."
        )
    return f"cuda:{local_rank()}"


def asks_to_shard() -> bool:
    """Return whether `accelerate launch` asks to divide the model's weights over the processes.

    Raises ConfigError for an engine that this program does not have: DeepSpeed, and FSDP of version 1.
    """
    fsdp, version = _asked(_FSDP), os.environ.get("FSDP_VERSION") or "1"
    if _asked(_DEEPSPEED) or (fsdp and version != "2"):
        engine = f"FSDP of version {version}" if fsdp else "DeepSpeed"
        raise ConfigError(
            f"accelerate asks for {engine}, which this program does not have. To divide the frozen base over the "
            "processes, use torchrun with runtime.shard_base=true, or `accelerate launch --use_fsdp --fsdp_version 2`. "
            "Where the base fits each card, plain torchrun or `accelerate launch --multi_gpu` is faster."
        )
    return fsdp


def _asked(variable: str) -> bool:
    return os.environ.get(variable, "").lower() in ("1", "true")


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes, and leave them at the end. Nothing happens where there is only one.

    Raises ConfigError for an engine that this program does not have, RunError when another process has ended.
    """
    asks_to_shard()
    if world_size() == 1:
        yield
        return
    import torch
    from torch import distributed

    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=timedelta(seconds=MOST_S))
    try:
        yield
        gathered(None)  # all wait until the first process has written everything
    except RuntimeError as error:
        if not _connection_lost(error):
            raise
        raise RunError(
            f"process {rank()} of {world_size()}: another process has ended, so this one stops too; its own message "
            "says why. The newest checkpoint is kept: the same command with --resume goes on from there."
        ) from error
    finally:
        distributed.destroy_process_group()


def _connection_lost(error: RuntimeError) -> bool:
    text = str(error)
    signs = ("Connection closed", "Connection reset", "Broken pipe", "Timed out waiting", "NCCL", "gloo", "Socket")
    return any(sign in text for sign in signs)


def have_joined() -> bool:
    """Return whether there are other processes, and this one has met them."""
    from torch import distributed

    return world_size() > 1 and distributed.is_available() and distributed.is_initialized()


def serve_before_meeting(serve: Callable[[], None]) -> None:
    """Call `serve` from now on before this process waits for a value of every other one.

    Until the others wait as well, they may need something of this process: `serve` gives it, and returns when they do.
    Every process must register it at the same place in its work.
    """
    if serve not in _before_meeting:
        _before_meeting.append(serve)


def _meet() -> None:
    for serve in _before_meeting:
        serve()


def announced(number: int) -> list[int]:
    """Return the number that each process announces, in their order: far cheaper than `gathered`."""
    import torch

    numbers = torch.empty(world_size(), dtype=torch.int64)
    gather_parts(numbers, torch.tensor([number]))
    return numbers.tolist()


def gather_parts(whole: Tensor, part: Tensor) -> None:
    """Fill `whole` with the parts of all processes, in their order; all parts are of one size."""
    from torch import distributed

    # The second is its name before torch 2.13.
    gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
    gather(whole, part)


def share(count: int) -> slice:
    """Return this process's part of `count` rows; parts differ by at most one row, and may be empty."""
    size, number = world_size(), rank()
    return slice(count * number // size, count * (number + 1) // size)


def divides(count: int) -> bool:
    """Return whether every process gets at least one of `count` rows."""
    return count >= world_size()


@dataclass(frozen=True, slots=True)
class _Failure:
    """What a process sends in place of a value when it failed with an error of ours."""

    kind: type[AdjudgeError]
    text: str


class _SharedError(Exception):
    """Marks, as the cause of an error, that every process knows of it."""


def gathered(value: _Value) -> list[_Value]:
    """Return the value of every process, in their order. Raises the error of one that failed meanwhile."""
    if world_size() == 1:
        return [value]
    values = _sent(value)
    for each in values:
        if isinstance(each, _Failure):
            raise each.kind(each.text) from _SharedError()
    return values


def _sent(value: Any) -> list[Any]:
    from torch import distributed

    _meet()
    values: list[Any] = [None] * world_size()
    distributed.all_gather_object(values, value)
    return values


def of_all_rows(rows: Sequence[Any], run: Callable[[Sequence[Any]], _Value]) -> list[_Value]:
    """Run this process's share of rows, and return the results of all shares, in order.

    Fewer rows than processes are run by the first process's model alone. An error of ours in one process is raised in
    all. What `run` returns is sent to the others: no tensors with gradients, none on a GPU.
    """
    if world_size() == 1:
        return [run(rows)]
    if divides(len(rows)):
        return agreed(lambda: run(rows[share(len(rows))]))
    return [on_first(lambda: run(rows))]


def agreed(action: Callable[[], _Value]) -> list[_Value]:
    """Return what the action gives in every process; an error of ours in one of them is raised in all."""
    if world_size() == 1:
        return [action()]
    try:
        value = action()
    except AdjudgeError as error:
        if not isinstance(error.__cause__, _SharedError):
            _sent(_Failure(type(error), str(error)))
            raise error from _SharedError()
        raise
    return gathered(value)


def on_first(action: Callable[[], _Value]) -> _Value:
    """Run an action in the first process alone, and return its result, or raise its error of ours, in all."""
    return agreed(lambda: action() if is_first() else None)[0]  # type: ignore[return-value]


def of_first(value: Callable[[], _Value]) -> _Value:
    """Return the value of the first process in all.

    Unlike with `on_first`, it is held once, not once per process.
    """
    if world_size() == 1:
        return value()
    import torch
    from torch import distributed

    _meet()
    values = [value() if is_first() else None]
    distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]  # type: ignore[return-value]


def joined_rows(tensor: Tensor) -> Tensor:
    """Return a tensor whose first dimension is rows, each from the process that has it in its share."""
    if world_size() == 1:
        return tensor
    import torch

    parts = gathered(tensor[share(len(tensor))].detach().cpu())
    return torch.cat(parts).to(tensor.device)


def any_of(flag: int) -> int:
    """Return the largest of the processes' flags: nonzero when one of them has one."""
    return max(gathered(flag))


def sum_gradients(parameters: Sequence[Any]) -> None:
    """Replace each parameter's gradient by the sum over all processes; a missing one counts as zeros.

    Adapters are small, so all gradients go as one message after the backward pass. That is exact and simple:
    DistributedDataParallel hides the exchange behind the backward pass, but it must own the model's forward call, which
    the engine's passes (shared prefixes, packed rows, sampling) do not make.
    """
    if world_size() == 1:
        return
    import torch
    from torch import distributed

    _meet()
    for parameter in parameters:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    groups: dict[tuple[Any, Any], list[Any]] = {}
    for parameter in parameters:
        groups.setdefault((parameter.grad.device, parameter.grad.dtype), []).append(parameter.grad)
    for gradients in groups.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        distributed.all_reduce(flat)
        pieces = flat.split([gradient.numel() for gradient in gradients])
        torch._foreach_copy_(gradients, [piece.view_as(g) for piece, g in zip(pieces, gradients, strict=True)])
