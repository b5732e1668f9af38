"""Sampling answers from the policy, with a key-value cache, stopping each where its answer ends.

Shapes: ``B`` prompts, ``R`` response tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjudge.errors import NotFiniteError
from adjudge.models.policy import Policy, Prefilled
from adjudge.rollout.answer_end import AnswerEnd


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `generator` None means greedy: the likeliest token."""

    generator: torch.Generator | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Responses:
    """Sampled answers of a batch of prompts, with what was known while sampling.

    `logp_BR` are log-probabilities under the (tempered, untruncated) policy and `value_BR` the value head's outputs, both float32 and
    0 where `mask_BR` is False.
    """

    ids: list[list[int]]
    texts: list[str]
    logp_BR: Tensor
    value_BR: Tensor
    mask_BR: Tensor


@torch.no_grad()
def respond(policy: Policy, state: Prefilled, end: AnswerEnd, sampling: Sampling) -> Responses:
    """Draw one response per prompt of `state` (which is spent). Raises NotFiniteError when there is no distribution to draw from."""
    rows = len(state.hidden_BD)
    limits = _limits(rows, end, sampling.generator)
    ids: list[list[int]] = [[] for _ in range(rows)]
    alive = torch.ones(rows, dtype=torch.bool)
    logps, values, masks = [], [], []
    hidden_BD = state.hidden_BD
    while True:
        logits_BV = policy.logits(hidden_BD) / sampling.temperature
        logp_BV = next_token_logps(logits_BV)
        token_B = _choose(logits_BV, sampling)
        logp_B = logp_BV.gather(1, token_B[:, None]).squeeze(1)
        masks.append(alive.clone())
        logps.append(logp_B.cpu() * alive)
        values.append(policy.value(hidden_BD).cpu() * alive)
        for row, token in enumerate(token_B.tolist()):
            if alive[row]:
                ids[row].append(token)
                alive[row] = len(ids[row]) < limits[row] and not end.ended(ids[row])
        if not alive.any():
            break
        hidden_BRD, state = policy.extend(state, token_B[:, None])
        hidden_BD = hidden_BRD[:, -1]
    logp_BR, value_BR, mask_BR = (torch.stack(column, dim=1) for column in (logps, values, masks))
    return Responses(ids, [end.text(row) for row in ids], logp_BR, value_BR, mask_BR)


def next_token_logps(logits: Tensor) -> Tensor:
    """Log-probabilities over the vocabulary, ``[…, V] → […, V]``; single tokens may have −inf.

    Raises NotFiniteError when a distribution is not one (NaN or +inf among the logits): its likeliest token would be a guess.
    """
    logps = logits.log_softmax(-1)
    if not bool(torch.isfinite(logps.amax(-1)).all()):
        raise NotFiniteError(
            "The model's logits are not finite: its weights hold a NaN or an infinity, or its numbers overflow. "
            "Try runtime.dtype=float32; a trained adapter that does this is beyond use."
        )
    return logps


def _limits(rows: int, end: AnswerEnd, generator: torch.Generator | None) -> list[int]:
    """Response lengths: the limit, or drawn from min..max while sampling (arXiv 2410.11020 draws 12..32)."""
    if generator is None or end.min_tokens >= end.max_tokens:
        return [end.max_tokens] * rows
    return torch.randint(end.min_tokens, end.max_tokens + 1, (rows,), generator=generator).tolist()


def _choose(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    if sampling.generator is None:
        return logits_BV.argmax(-1)
    if sampling.top_k:
        least = logits_BV.topk(min(sampling.top_k, logits_BV.shape[1])).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < least, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits_BV.sort(descending=True)
        probabilities = ordered.softmax(-1)
        beyond = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits_BV = logits_BV.scatter(1, order, ordered.masked_fill(beyond, -torch.inf))
    # Drawn on the CPU: the generator, and so the run, is then the same whatever the device.
    return torch.multinomial(logits_BV.softmax(-1).cpu(), 1, generator=sampling.generator).squeeze(1).to(logits_BV.device)


def by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices of `prompts` in batches of like length, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
