"""Sampling answers from the policy, with a key-value cache, stopping each where its answer ends.

Rows that have ended leave the batch once half of it has. When the prompts were run with gradient, it flows through the sampled
log-probabilities and values too: the first update of PPO then needs no forward pass of its own.

Shapes: ``B`` prompts, ``R`` response tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adjudge.config import PolicyGradientConfig
from adjudge.errors import NotFiniteError
from adjudge.models.engine.prefix import Prefilled
from adjudge.models.policy import Policy
from adjudge.rl.losses import entropy
from adjudge.rollout.answer_end import AnalysisEnd, AnswerEnd


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `generator` None means greedy: the likeliest token."""

    generator: torch.Generator | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    @classmethod
    def of(cls, config: PolicyGradientConfig, generator: torch.Generator) -> Sampling:
        """Return the sampling a method's settings ask for."""
        return cls(generator, config.temperature, config.top_k, config.top_p)


@dataclass(frozen=True, slots=True)
class Responses:
    """Sampled answers of a batch of prompts, with what was known while sampling.

    `logp_BR` are log-probabilities under the (tempered, untruncated) policy and `value_BR` the value head's outputs, both float32 and
    0 where `mask_BR` is False; both carry a gradient when the state they were drawn from does. `entropy_BR` never does, and is 0 for
    greedy answers.
    """

    ids: list[list[int]]
    texts: list[str]
    logp_BR: Tensor
    value_BR: Tensor
    entropy_BR: Tensor
    mask_BR: Tensor
    template_spans: list[range] | None = None
    """Positions in `ids` which the form wrote and not the policy; None: nowhere. The tensors have no column for them."""


def respond(policy: Policy, state: Prefilled, end: AnswerEnd | AnalysisEnd, sampling: Sampling) -> Responses:
    """Draw one response per prompt of `state` (which is spent). Raises NotFiniteError when there is no distribution to draw from."""
    rows, device = len(state.hidden_BD), state.hidden_BD.device
    limits = _limits(rows, end, sampling.generator)
    ids: list[list[int]] = [[] for _ in range(rows)]
    row_K = torch.arange(rows)  # the K rows that are in the state, and which of them still go on
    alive_K = torch.ones(rows, dtype=torch.bool)
    columns: list[tuple[Tensor, ...]] = []
    with torch.set_grad_enabled(state.grad):
        while True:
            place_A = alive_K.nonzero().squeeze(1)
            found = _step(policy, state.hidden_BD[place_A.to(device)], sampling)
            columns.append((row_K[place_A], *found[1:]))
            for place, row, token in zip(place_A.tolist(), row_K[place_A].tolist(), found[0].tolist(), strict=True):
                ids[row].append(token)
                alive_K[place] = len(ids[row]) < limits[row] and not end.ended(ids[row])
            if not alive_K.any():
                break
            fed_K = torch.zeros(len(alive_K), dtype=torch.long, device=device).index_copy(
                0, place_A.to(device), found[0]
            )
            if 2 * int(alive_K.sum()) <= len(alive_K):
                staying = alive_K.nonzero().squeeze(1)
                state, fed_K = state.keep(staying.to(device)), fed_K[staying.to(device)]
                row_K, alive_K = row_K[staying], alive_K[staying]
            _, state = policy.extend(state, fed_K[:, None])
        logp_BR, value_BR, entropy_BR = (
            torch.stack([torch.zeros(rows).index_copy(0, column[0], column[part]) for column in columns], dim=1)
            for part in (1, 2, 3)
        )
    mask_BR = torch.stack(
        [torch.zeros(rows, dtype=torch.bool).index_fill(0, column[0], True) for column in columns], dim=1
    )
    return Responses(ids, [end.text(row) for row in ids], logp_BR, value_BR, entropy_BR, mask_BR)


def _step(policy: Policy, hidden_AD: Tensor, sampling: Sampling) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a token for each of ``A`` rows; also its log-probability, value and the entropy there, these on the CPU."""
    logits_AV = policy.logits(hidden_AD) / sampling.temperature
    logp_AV = next_token_logps(logits_AV)
    token_A = _choose(logits_AV.detach(), sampling)
    logp_A = logp_AV.gather(1, token_A[:, None]).squeeze(1)
    # A greedy answer is not learned from, and the entropy takes longer than the choice.
    entropy_A = entropy(logp_AV) if sampling.generator is not None else torch.zeros_like(logp_A)
    return token_A, logp_A.cpu(), policy.value(hidden_AD).cpu(), entropy_A.detach().cpu()


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


def _limits(rows: int, end: AnswerEnd | AnalysisEnd, generator: torch.Generator | None) -> list[int]:
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
    return (
        torch.multinomial(logits_BV.softmax(-1).cpu(), 1, generator=sampling.generator).squeeze(1).to(logits_BV.device)
    )


def by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices of `prompts` in batches of like length, so that little is padded."""
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
