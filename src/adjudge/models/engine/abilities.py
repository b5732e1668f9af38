"""Abilities of a model in the forward pass, such as packing: found by trying, not by the model's name."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adjudge.errors import ModelError
from adjudge.system.console import note

if TYPE_CHECKING:
    from adjudge.models.engine.forward import Engine
    from adjudge.models.engine.prefix import Prefilled

TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.05}
"""Largest difference from the model's own logits, as a share of the largest logit (or of 1, if that is more)."""

UNABLE = (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError, IndexError)
"""What a model raises in a pass of a kind it does not support."""


_KEPT = (1, 0, 1)
"""The prompts that the probe goes on with, by row."""


@dataclass(frozen=True, slots=True)
class Abilities:
    """How an `Engine` may run its model."""

    takes_positions: bool
    """The decoder takes `position_ids`. A model without them (ALiBi) counts positions itself."""
    cache_name: str
    """Name of the decoder's argument for the key-value cache."""
    packs: bool = False
    """A batch runs as one packed sequence without padding."""
    shares_prefix: bool = True
    """The tokens that all prompts begin with run once per batch."""
    trims_last_layer: bool = False
    """In a packed pass, the last layer runs only for tokens whose hidden state is requested."""


def candidates(decoder: Any, *, trims_last_layer: bool) -> list[Abilities]:
    """Return the abilities worth trying with `decoder`, fastest first."""
    parameters = inspect.signature(decoder.forward).parameters
    padded = Abilities(
        takes_positions="position_ids" in parameters,
        cache_name="cache" if "cache" in parameters else "past_key_values",  # renamed in transformers 5.24
        trims_last_layer=trims_last_layer,
    )
    can_pack = padded.takes_positions and decoder.config._attn_implementation == "sdpa"
    packed = [replace(padded, packs=True)] if can_pack else []
    return [*packed, padded, replace(padded, shares_prefix=False)]


@torch.no_grad()
def probe(engine: Engine, ordered: Sequence[Abilities]) -> None:
    """Let `engine` use the first of the `ordered` abilities with which its logits equal the model's own.

    Compares the logits of two short prompts, and of one more token after them in other rows, and runs the prompts as in
    training, where dropout is on. Prints a note when the prefix cannot be shared. Raises ModelError when no abilities
    fit, for example for a head with an unknown extra step, or a state that cannot be divided into rows.
    """
    words = [token for token in range(5, 13) if token < engine.model.config.get_text_config().vocab_size]
    prompts = [words[:4], words[:3] + words[4:7]]
    longer = [[*prompts[row], words[-1]] for row in _KEPT]
    expected_BV = torch.stack([_own_logits(engine.model, prompt) for prompt in [*prompts, *longer]])
    reason, unpacked = "", ""
    for abilities in ordered:
        engine.use(abilities)
        try:
            state = engine.prefill(prompts)
            logits_BV = engine.logits(torch.cat([state.hidden_BD, _continued(engine, state, words[-1])]))
        except UNABLE as error:
            reason = f" ({type(error).__name__}: {error})"
            if abilities.packs and type(error) is RuntimeError:  # not a family's own way: something went wrong
                unpacked = reason
            continue
        if _agree(logits_BV, expected_BV, engine.model.dtype) and _runs_in_training(engine, prompts):
            break
        reason = ""
    else:
        raise ModelError(
            f"{engine.name}: the logits computed here differ from the model's own, or cannot be computed row by row, "
            f"so it cannot be used{reason}."
        )
    if unpacked:
        note(f"{engine.name}: batches cannot run without padding here{unpacked}; going on with it, slower.")
    if not engine.abilities.shares_prefix:
        note(
            f"{engine.name}: the prompts' common beginning cannot be computed once for this model; "
            "going on without, slower."
        )


def _continued(engine: Engine, state: Prefilled, token: int) -> Tensor:
    """Return the states after one more token in the rows `_KEPT`, ``[B, D]``."""
    rows = torch.tensor(_KEPT, device=engine.device)
    hidden_BTD, _ = engine.extend(state.keep(rows), torch.full((len(rows), 1), token, device=engine.device))
    return hidden_BTD[:, -1]


def _runs_in_training(engine: Engine, prompts: Sequence[Sequence[int]]) -> bool:
    """Return whether the model also runs with dropout on; its figures are then drawn, and not compared."""
    cuda = [engine.device] if engine.device.type == "cuda" else []
    engine.model.train()
    try:
        with torch.random.fork_rng(devices=cuda):  # what is drawn here must not change what a run draws
            engine.prefill(prompts)
    except UNABLE:
        return False
    finally:
        engine.model.eval()
        engine.prefixes.forget_all()
    return True


def _own_logits(model: Any, prompt: list[int]) -> Tensor:
    """Return the logits ``[V]`` after `prompt`, computed by the model's own forward."""
    ids = torch.tensor([prompt], device=model.device)
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    logits: Tensor = model(input_ids=ids, **last_only).logits[0, -1]
    return logits.float()


def _agree(logits_BV: Tensor, expected_BV: Tensor, dtype: torch.dtype) -> bool:
    """Return whether the logits are equal up to rounding.

    NaN beside NaN counts as equal: training then stops and reports it. NaN beside a number does not.
    """
    tolerance = TOLERANCE.get(dtype, 1e-3) * max(1.0, float(expected_BV.abs().max()))
    return torch.allclose(logits_BV, expected_BV, rtol=0.0, atol=tolerance, equal_nan=True)
