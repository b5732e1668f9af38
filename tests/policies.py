"""Make policies for tests: one in which all trained parameters matter, one that answers from a script."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from adjudge.config import LoraConfig, load_config
from adjudge.models.engine.batch import TokenBatch
from adjudge.models.policy import Policy, load_policy


def trained_looking(folder: Path, targets: tuple[str, ...] | None = None, **values: Any) -> Policy:
    """Return a float32 policy whose adapter and value head are not zero.

    The adapter is on the layers called `targets`; None: on the usual ones. `values` are settings, with ``__`` for the
    dots.
    """
    settings = {name.replace("__", "."): value for name, value in values.items()}
    policy = load_policy(
        load_config(values={"model": str(folder), "runtime.dtype": "float32", "runtime.device": "cpu", **settings})
    )
    policy.add_adapter(LoraConfig(r=4, targets=targets))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [*policy.adapter_parameters(), *policy.value_head.parameters()]:
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return policy.eval()


@dataclass
class Loads:
    """The policies that were loaded, by weak references to the weights of each."""

    weights: list[list[weakref.ref[torch.nn.Parameter]]] = field(default_factory=list)
    alive_before: list[int] = field(default_factory=list)
    """How many of the earlier ones were still there when each was loaded."""

    @property
    def alive(self) -> int:
        """Return how many of them have a weight that is still there."""
        return sum(any(weight() is not None for weight in weights) for weights in self.weights)


@contextmanager
def watched_loads(where: str) -> Iterator[Loads]:
    """Watch what the module `where` loads within this block, in which Python collects no garbage by itself."""
    loads = Loads()

    def load(*arguments: Any, **named: Any) -> Policy:
        loads.alive_before.append(loads.alive)
        policy = load_policy(*arguments, **named)
        loads.weights.append([weakref.ref(weight) for weight in policy.parameters()])
        return policy

    gc.disable()
    try:
        with patch(f"{where}.load_policy", load):
            yield loads
    finally:
        gc.enable()


def padded_with(batch: TokenBatch, token: int) -> TokenBatch:
    """Return the batch with another token at its padding."""
    return replace(
        batch,
        ids_BT=batch.ids_BT.masked_fill(~batch.mask_BT, token),
        response_BR=batch.response_BR.masked_fill(~batch.response_mask_BR, token),
    )


@dataclass
class ScriptState:
    """The state of a `Scripted` policy: each row's step and number, and all scripts."""

    hidden_BD: torch.Tensor
    scripts: list[list[int]]
    grad: bool = False
    keeps_for_nothing: bool = False

    def keep(self, rows_B: torch.Tensor) -> ScriptState:
        return ScriptState(self.hidden_BD[rows_B], self.scripts)

    def fork(self) -> ScriptState:
        return ScriptState(self.hidden_BD, self.scripts)


class Scripted:
    """A stand-in for a policy: after the n-th `prefill`, its rows answer the n-th texts and end the turn."""

    def __init__(self, tokenizer: Any, *calls: Sequence[str], end_of_turn: str = "<|im_end|>") -> None:
        self.tokenizer = tokenizer
        self.name, self.positions, self.embeddings = "scripted", None, None
        self.end_ids = [tokenizer.convert_tokens_to_ids(end_of_turn)]
        self._calls = [
            [[*tokenizer(text, add_special_tokens=False).input_ids, *self.end_ids] for text in call] for call in calls
        ]
        self.prompts: list[list[str]] = []
        """The prompts of each `prefill`, as text."""

    def eval(self) -> Scripted:
        return self

    def forget_prefix(self) -> None:
        """There is none."""

    def prefill(self, prompts: Sequence[Sequence[int]], *, grad: bool = False, expected: Any = ()) -> ScriptState:
        scripts = self._calls[len(self.prompts)]
        assert len(scripts) == len(prompts)
        self.prompts.append(
            [self.tokenizer.decode(list(prompt), clean_up_tokenization_spaces=False) for prompt in prompts]
        )
        rows_B = torch.arange(len(prompts), dtype=torch.float32)
        return ScriptState(torch.stack([torch.zeros_like(rows_B), rows_B], dim=1), scripts)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        scripts = self._calls[len(self.prompts) - 1]
        wanted = [
            scripts[int(row)][min(int(step), len(scripts[int(row)]) - 1)]
            for step, row in hidden.reshape(-1, 2).tolist()
        ]
        onehot = torch.nn.functional.one_hot(torch.tensor(wanted), len(self.tokenizer))
        return 30.0 * onehot.float().reshape(*hidden.shape[:-1], -1)

    def value(self, hidden_BD: torch.Tensor) -> torch.Tensor:
        return hidden_BD[:, 0] + 0.5

    def extend(self, state: ScriptState, ids_BT: torch.Tensor) -> tuple[torch.Tensor, ScriptState]:
        steps = torch.arange(1, ids_BT.shape[1] + 1)
        hidden_BTD = state.hidden_BD[:, None] + torch.stack([steps, torch.zeros_like(steps)], dim=1)
        return hidden_BTD, ScriptState(hidden_BTD[:, -1], state.scripts)
