"""Passes captured as CUDA graphs: the GPU repeats all kernels of a pass without Python in between.

A small model's pass is some ten thousand short kernels, and launching them from Python takes twenty times as long as
running them. So a packed pass is captured once per shape, forward and backward apart, and replayed. A shape is run as
usual when it is first seen, and captured when it comes again. What is computed stays the same: the same kernels on the
same numbers, with some rows of padding.

Where a pass cannot be replayed, it runs as usual: with dropout on, with activation checkpointing, with instruction
embeddings, or while another replayed pass waits for its backward pass, since both would use the same memory.

Captured passes have memory of their own, which no other pass can use. When memory runs out, they are dropped.

A capture fails when another thread allocates memory on a GPU meanwhile: only one thread at a time may run models.

Sampling keeps no keys and values here. A further token runs the whole row again, which for short answers costs less
than one launched layer after the other.

Shapes: ``M`` requested tokens, ``D`` width.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adjudge.models.engine.batch import Rows, split_rows
from adjudge.models.engine.fixed import FixedShape
from adjudge.models.engine.prefix import Prefilled
from adjudge.system.console import note
from adjudge.system.memory import free_dropped, is_out_of_memory

if TYPE_CHECKING:
    from adjudge.models.engine.forward import Engine

PREFIX_MULTIPLE = 8
"""The shared prefix is cut to a multiple of this, so that a token more in it is no new shape."""

STEPS, FEW_STEPS = 8, 2
"""Sizes between a number and its double: where padding costs time, and where it costs less than another capture."""

MOST_AGAIN = 4
"""Tokens after which a large model's rows get a cache instead of being run again."""

MANY_PRODUCTS = 2e12
"""Multiplications from which a pass counts as large: a few milliseconds of a large GPU."""


MOST_CAPTURED = 64
"""Passes that are kept; the one that was not used for longest makes room. Each takes some tens of MiB."""

MOST_SHORTAGES = 3
"""Times that memory runs out with a network's captured passes before none is captured any more."""


class Graph(Protocol):
    """What was captured."""

    def replay(self) -> None:
        """Run it again."""


Capture = Callable[[Callable[[], None], Any], Graph]
"""Captures what a function does on the GPU, with memory of a pool."""


def capture_on_gpu(work: Callable[[], None], pool: Any) -> Graph:
    """Capture the kernels that `work` launches on the current CUDA device.

    They run when the graph is replayed. Raises RuntimeError when there are none.
    """
    graph = torch.cuda.CUDAGraph()
    stream = _capture_stream(torch.cuda.current_device())
    # Each thread has a cuBLAS handle of its own, and making one allocates, which a capture does not allow.
    torch.cuda.current_blas_handle()
    # The outer context is for a capture that fails: torch's own then leaves its stream the current one.
    with _refusing_empty(), torch.cuda.stream(stream), torch.cuda.graph(graph, pool=pool, stream=stream):
        work()
    return graph


@cache
def _capture_stream(device: int) -> torch.cuda.Stream:
    """Return the stream on which all captures of a device are made, so that they can share memory.

    torch's own is on whichever device came first.
    """
    return torch.cuda.Stream(device)


@contextmanager
def _refusing_empty() -> Iterator[None]:
    """Raise RuntimeError where torch only warns that a graph holds no kernels: its replay would change nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The CUDA Graph is empty")
        try:
            yield
        except UserWarning as warning:
            raise RuntimeError(str(warning)) from None


def acting_on(device: torch.device) -> AbstractContextManager[Any]:
    """Return a context in which a CUDA device is this thread's current one; for another device it does nothing.

    Captures go to the current device, which is the first GPU in every thread, wherever the weights are.
    """
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def _mend_generator(device: torch.device) -> None:
    """Give a GPU's generator back to ordinary passes: a failed capture leaves it waiting for a replay."""
    if device.type == "cuda":
        generator = torch.cuda.default_generators[device.index or 0]
        generator.graphsafe_set_state(generator.clone_state())


@dataclass(slots=True)
class Recomputed(Prefilled):
    """Prompts without a cache: a further token runs the whole row again.

    `cache`, masks and positions are empty.
    """

    tokens: list[tuple[int, ...]] = field(default_factory=list)
    added: int = 0
    """Tokens that were fed after the prompt."""

    def fork(self) -> Recomputed:
        """Return a copy that can be continued without touching this one."""
        return replace(self)

    def keep(self, rows_B: Tensor) -> Recomputed:
        """Return a state of these rows, in this order, each as often as named."""
        tokens = [self.tokens[row] for row in rows_B.tolist()]
        return replace(self, tokens=tokens, hidden_BD=self.hidden_BD.index_select(0, rows_B))


class _Captured:
    """One pass of one shape: its input, its graphs, and its output."""

    def __init__(self, graphs: Graphs, shape: FixedShape, trained: Sequence[nn.Parameter], *, grad: bool) -> None:
        self.graphs, self.shape, self.trained = graphs, shape, trained
        self.indices = torch.zeros(sum(shape.sizes), dtype=torch.long, device=graphs.engine.device)
        self.gradients = graphs.gradients(trained) if grad else []
        self.hidden = torch.empty(0)
        self.grad_hidden = torch.empty(0)
        self.backward: Graph | None = None
        self.forward = graphs.capture(self._run_with_gradient if grad else self._run, graphs.pool(grad))
        if grad:
            self.grad_hidden = torch.zeros_like(self.hidden)
            self.backward = graphs.capture(self._go_back, graphs.pool(grad))

    @torch.no_grad()
    def _run(self) -> None:
        self.hidden = self.graphs.engine.run_fixed(self.shape, self.indices)

    @torch.enable_grad()
    def _run_with_gradient(self) -> None:
        self.hidden = self.graphs.engine.run_fixed(self.shape, self.indices)

    def _go_back(self) -> None:
        grads = torch.autograd.grad(self.hidden, self.trained, self.grad_hidden)
        self.hidden = self.hidden.detach()
        torch._foreach_copy_(self.gradients, grads)

    def fill(self, rows: Rows) -> None:
        """Read these rows in the next replay."""
        self.indices.copy_(self.shape.indices(rows))


class _Waiting:
    """Alive while a replayed pass waits for its backward pass."""

    __slots__ = ("__weakref__",)


class _Replay(torch.autograd.Function):
    """Replay a captured pass; the backward pass replays its own graph."""

    @staticmethod
    def forward(ctx: Any, captured: _Captured, waiting: _Waiting, *trained: Tensor) -> Tensor:
        ctx.captured, ctx.waiting = captured, waiting
        captured.forward.replay()
        hidden: Tensor = captured.hidden.detach().clone()
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor) -> tuple[Any, ...]:
        captured = ctx.captured
        captured.grad_hidden.copy_(grad_hidden)
        with acting_on(grad_hidden.device):
            captured.backward.replay()
        ctx.waiting = None
        # Copies: torch keeps a gradient as it is, and the next replay writes to this memory.
        return None, None, *torch._foreach_mul(captured.gradients, 1.0)


_living: weakref.WeakSet[Graphs] = weakref.WeakSet()
"""Those of every network in this process."""


class Graphs:
    """The captured passes of an engine, by network and shape."""

    def __init__(self, engine: Engine, capture: Capture = capture_on_gpu) -> None:
        self.engine = engine
        self.capture = capture
        self.replayed = 0
        """Passes that were replayed so far."""
        self._captured: dict[Any, _Captured] = {}
        self._seen: set[Any] = set()
        self._pools: dict[bool, Any] = {}
        self._gradients: dict[tuple[int, ...], list[Tensor]] = {}
        self._nodes: list[Any] = []
        self._waiting: weakref.ref[_Waiting] | None = None
        self._works = True
        self._shortages = 0
        self._parameters: list[nn.Parameter] = []
        self._size = 0
        self._drops = False
        self.clear()
        _living.add(self)

    def clear(self) -> None:
        """Forget every captured pass; call it after changing the network's layers."""
        self._captured.clear()
        self._seen.clear()
        self._gradients.clear()
        self._nodes.clear()
        self._pools.clear()  # memory that no graph uses any more cannot be captured into again
        self._parameters = list(self.engine.model.parameters())
        self._size = sum(parameter.numel() for parameter in self._parameters)
        self._drops = any(isinstance(module, nn.Dropout) and module.p > 0 for module in self.engine.model.modules())

    def make_room(self) -> bool:
        """Drop every captured pass because memory ran out; return whether there were any."""
        if not self._captured:
            return False
        self._drop_for_memory()
        return True

    def _drop_for_memory(self) -> None:
        """Drop every captured pass, and capture no more after `MOST_SHORTAGES` times."""
        self.clear()
        free_dropped()
        self._shortages += 1
        self._works = self._shortages < MOST_SHORTAGES
        until = "until their shapes come again" if self._works else "for good, and passes are slower"
        note(f"memory ran out with passes captured as CUDA graphs: they are dropped, {until}.")

    @property
    def usable(self) -> bool:
        """Return whether passes can be replayed with the engine as it is."""
        engine = self.engine
        return (
            self._works
            and engine.abilities.packs
            and engine.embeddings is None
            and not engine.checkpoints
            and not (engine.model.training and self._drops)
        )

    def pool(self, grad: bool) -> Any:
        """Return the memory that captured passes share; those without gradient run between others' two halves."""
        if self.engine.device.type == "cuda" and grad not in self._pools:
            self._pools[grad] = torch.cuda.graph_pool_handle()
        return self._pools.get(grad)

    def gradients(self, trained: Sequence[nn.Parameter]) -> list[Tensor]:
        """Return the tensors that backward passes write the gradients of these parameters to."""
        key = tuple(map(id, trained))
        if key not in self._gradients:
            self._gradients[key] = [torch.zeros_like(parameter) for parameter in trained]
            # Gradients are added up on the stream on which these nodes are made; a capture has another one.
            self._nodes += [parameter.expand_as(parameter).grad_fn for parameter in trained]
        return self._gradients[key]

    def hidden(self, rows: Rows) -> Tensor:
        """Return the last hidden states that predict each row's response, ``[M, D]``."""
        with acting_on(self.engine.device):
            return self._hidden(rows)

    def _hidden(self, rows: Rows) -> Tensor:
        grad, count = torch.is_grad_enabled(), sum(rows.predicting)
        costly = grad or self._is_large(len(rows.prefix) + sum(map(len, rows.rests)))
        shape = FixedShape.around(rows, steps=STEPS if costly else FEW_STEPS)
        captured = self._find(shape, grad)
        if captured is None:
            indices = shape.indices(rows).to(self.engine.device)
            return self.engine.run_fixed(shape, indices)[:count]
        captured.fill(rows)
        self.replayed += 1
        if not grad:
            captured.forward.replay()
            return captured.hidden[:count].clone()
        waiting = _Waiting()
        self._waiting = weakref.ref(waiting)
        hidden: Tensor = _Replay.apply(captured, waiting, *captured.trained)
        return hidden[:count]

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Recomputed:
        """Return the state after these prompts, without a cache."""
        tokens = [tuple(prompt) for prompt in prompts]
        hidden_BD = self._last(tokens, 1)[:, 0]
        nothing = torch.zeros(0, dtype=torch.long, device=hidden_BD.device)
        return Recomputed(None, nothing, nothing, hidden_BD, tokens=tokens)

    def extend(self, state: Recomputed, ids_BT: Tensor) -> tuple[Tensor, Recomputed]:
        """Feed further tokens of every row, as `Engine.extend` does."""
        tokens = [(*row, *fed) for row, fed in zip(state.tokens, ids_BT.tolist(), strict=True)]
        hidden_BTD = self._last(tokens, ids_BT.shape[1])
        return hidden_BTD, replace(state, tokens=tokens, hidden_BD=hidden_BTD[:, -1], added=state.added + 1)

    def needs_cache(self, state: Recomputed) -> bool:
        """Return whether running these rows again, token by token, costs more than keeping keys and values."""
        return state.added >= MOST_AGAIN and self._is_large(sum(map(len, state.tokens)))

    def _is_large(self, tokens: int) -> bool:
        return self._size * tokens > MANY_PRODUCTS

    @torch.no_grad()
    def _last(self, tokens: Sequence[tuple[int, ...]], count: int) -> Tensor:
        """Return the hidden states of each row's last `count` tokens, ``[B, count, D]``. Equal rows run once."""
        distinct = {row: index for index, row in enumerate(dict.fromkeys(tokens))}
        # The tokens that are asked for must not be part of the prefix.
        prompts = [row[: len(row) - count + 1] for row in distinct]
        rows = split_rows(prompts, [[*row[len(row) - count + 1 :], 0] for row in distinct], True, PREFIX_MULTIPLE)
        hidden_KTD = self.hidden(rows).unflatten(0, (len(distinct), count))
        return hidden_KTD[[distinct[row] for row in tokens]] if len(distinct) < len(tokens) else hidden_KTD

    def _find(self, shape: FixedShape, grad: bool) -> _Captured | None:
        """Return the captured pass of this shape, captured now if it was seen before; None to run as usual."""
        if grad and self._waiting is not None and self._waiting() is not None:
            return None
        trained = [parameter for parameter in self._parameters if parameter.requires_grad]
        places = hash(tuple(parameter.data_ptr() for parameter in trained))
        key = (grad, self._network(), places, shape)
        if key not in self._captured:
            if key not in self._seen:
                self._seen.add(key)
                return None
            while len(self._captured) >= MOST_CAPTURED:
                self._captured.pop(next(iter(self._captured)))
            captured = self._new(shape, trained, grad=grad)
            if captured is None:
                return None
            self._captured[key] = captured
        captured = self._captured[key] = self._captured.pop(key)  # the latest is last
        return captured

    def _new(self, shape: FixedShape, trained: Sequence[nn.Parameter], *, grad: bool) -> _Captured | None:
        """Return a pass captured now. None, with every other one dropped, when that fails."""
        try:
            return _Captured(self, shape, trained, grad=grad)
        except RuntimeError as error:
            # Ending a capture that failed may fail, too; the error before says why.
            is_short = any(is_out_of_memory(each) for each in (error, error.__context__) if each is not None)
            reason = " ".join(str(error).split())[:200]
        # Here the error, and with it every tensor of the failed capture, is gone.
        _mend_generator(self.engine.device)
        if is_short:
            self._drop_for_memory()
        else:
            self._works = False
            self.clear()
            free_dropped()
            note(f"passes cannot be captured as CUDA graphs here ({reason}); going on without, slower.")
        return None

    def _network(self) -> Any:
        """Return what tells apart the networks that share these weights: the adapter that acts, or none."""
        for module in self.engine.model.modules():
            if hasattr(module, "lora_A"):
                return bool(module.disable_adapters), tuple(module.active_adapters), bool(module.merged)
        return None


def drop_captured() -> bool:
    """Drop every network's captured passes because memory ran out; return whether there were any."""
    free_dropped()  # networks that nothing uses any more do not count
    dropped = [graphs.make_room() for graphs in list(_living)]
    return any(dropped)
