"""Which of a network's adapters acts, changed for one pass and back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def acting_adapter(model: nn.Module, name: str | None) -> Iterator[None]:
    """Within this block the adapter `name` acts in every adapted layer of `model`; None: no adapter does.

    peft's own switches do the same and go through all parameters twice, which takes longer than a pass on a GPU. What
    is trained stays marked as trained.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    before = [(layer._active_adapter, layer._disable_adapters) for layer in layers]
    try:
        for layer in layers:
            if name is None:
                layer._disable_adapters = True
            else:
                layer._active_adapter = [name]
        yield
    finally:
        for layer, (active, disabled) in zip(layers, before, strict=True):
            layer._active_adapter, layer._disable_adapters = active, disabled
