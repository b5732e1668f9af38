"""How many rows go through the model in one pass with gradient, and what happens when memory runs out.

A training loop makes its `RowsPerPass` the current one for a step; `adjudge.training.updates.accumulate` asks it. The
loss of a row does not depend on the pass it is in, so the gradient is the same whatever the size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from adjudge.config import RuntimeConfig
from adjudge.errors import RunError
from adjudge.system.console import note
from adjudge.system.memory import free_dropped

_current: ContextVar[RowsPerPass | None] = ContextVar("rows_per_pass", default=None)


class RowsPerPass:
    """The size of a micro-batch by ``runtime.micro_batch_size``.

    The setting is a number, or ``auto``, which halves the size when it must. `forget` drops the gradients of a pass
    that failed. The size is part of a run's state, so that a resumed run goes on with it.
    """

    def __init__(self, setting: RuntimeConfig, forget: Callable[[], None]) -> None:
        self.auto = setting.micro_batch_size == "auto"
        self.size: int | None = None if setting.micro_batch_size == "auto" else setting.micro_batch_size
        """Most rows in one pass; None: all of a mini-batch."""
        self.forget = forget

    @property
    def one_pass(self) -> bool:
        """Whether a batch may be learned from in the very pass that sampled it."""
        return not self.auto and self.size is None

    def limit(self, own: int | None) -> int | None:
        """Return the rows of a pass for a method whose settings say `own`: the smaller of both."""
        sizes = [size for size in (self.size, own) if size is not None]
        return min(sizes, default=None)

    def halve(self, rows: int) -> None:
        """Halve the size after a pass of `rows` rows. Raises RunError when that was a single row."""
        self.forget()
        free_dropped()
        if rows <= 1:
            raise RunError(f"Memory ran out with a single row in a pass. {SMALLER}")
        self.size = rows // 2
        note(f"memory ran out with {rows} rows in one pass: {self.size} from now on (the gradient is the same).")

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make this the one that `accumulate` asks, within this block."""
        token = _current.set(self)
        try:
            yield
        finally:
            _current.reset(token)

    def state_dict(self) -> dict[str, Any]:
        """Return the size."""
        return {"size": self.size}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the size of a `state_dict`."""
        self.size = state["size"]


SMALLER = (
    "What makes it smaller: runtime.checkpoint_activations=true, runtime.dtype=bfloat16, runtime.quantization=4bit, "
    "runtime.shard_base=true over several GPUs, a smaller prompt.max_tokens or lora.r, or a smaller model."
)
"""What to do when not even one row fits."""


def rows_per_pass() -> RowsPerPass | None:
    """Return the current one; None outside of a training loop."""
    return _current.get()
