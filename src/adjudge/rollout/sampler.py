"""Sample answers from the policy with a key-value cache, and stop each at its end.

Ended rows leave the batch once they are half of it. When the prompts were run with gradient, the sampled
log-probabilities and values carry it too, which saves the first PPO update its forward pass.

Shapes: ``B`` prompts, ``R`` response tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from adjudge.config import PolicyGradientConfig
from adjudge.errors import NotFiniteError
from adjudge.models.engine.prefix import Prefilled
from adjudge.models.policy import Policy
from adjudge.rl.losses import entropy
from adjudge.system.parallel import gathered, rank


class End(Protocol):
    """Where a response ends, in tokens (`adjudge.rollout.answer_end`)."""

    @property
    def max_tokens(self) -> int:
        """Return the longest response."""

    @property
    def min_tokens(self) -> int:
        """Return the least limit of a response; equal to `max_tokens` for a limit that is not drawn."""

    def ended(self, ids: Sequence[int]) -> bool:
        """Return whether a response ends with its latest token, ignoring the limit."""

    def text(self, ids: Sequence[int]) -> str:
        """Return a response as text."""


Adjust = Callable[[Sequence[int], Sequence[Sequence[int]], Tensor], Tensor]
"""Returns the logits to draw from, given the rows' numbers, their tokens so far, and the policy's logits ``[A, V]``."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Settings for drawing tokens. With `generator` None, always take the likeliest token (greedy)."""

    generator: torch.Generator | None = None
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    together: bool = False
    """Whether every process samples its share of the rows. Each then draws for all rows and takes its own, so that the
    answers are those of one process."""

    @classmethod
    def of(cls, config: PolicyGradientConfig, generator: torch.Generator) -> Sampling:
        """Return the sampling of a method's settings."""
        return cls(generator, config.temperature, config.top_k, config.top_p)


@dataclass(frozen=True, slots=True)
class Responses:
    """Sampled answers of a batch of prompts, with the figures of the sampling pass.

    `logp_BR` holds log-probabilities under the policy (with temperature, before truncation), and `value_BR` the value
    head's outputs. Both are float32, 0 where `mask_BR` is False, and carry a gradient when the state does. `entropy_BR`
    never carries one, and is 0 for greedy answers.
    """

    ids: list[list[int]]
    texts: list[str]
    logp_BR: Tensor
    value_BR: Tensor
    entropy_BR: Tensor
    mask_BR: Tensor
    template_spans: list[range] | None = None
    """Positions in `ids` written by the form, not the policy (None: nowhere). The tensors have no column for them."""


def respond(
    policy: Policy,
    state: Prefilled,
    end: End,
    sampling: Sampling,
    adjust: Adjust | None = None,
    room: Sequence[int] | None = None,
) -> Responses:
    """Draw one response per prompt. `state` cannot be used again afterwards.

    With `adjust`, tokens are drawn from other logits; the log-probabilities stay those of the policy. `room` limits the
    tokens of each response in place of the limit of `end`. Raises NotFiniteError when the logits are not a
    distribution.
    """
    rows, device = len(state.hidden_BD), state.hidden_BD.device
    longest = limits(rows, end, sampling) if room is None else room
    ids: list[list[int]] = [[] for _ in range(rows)]
    row_K = torch.arange(rows)  # the K rows in the state; `alive_K` marks those still unfinished
    alive_K = torch.ones(rows, dtype=torch.bool)
    columns: list[tuple[Tensor, ...]] = []
    with torch.set_grad_enabled(state.grad):
        while True:
            index_A = alive_K.nonzero().squeeze(1)
            rows_A = row_K[index_A].tolist()
            changed = None if adjust is None else partial(adjust, rows_A, [ids[row] for row in rows_A])
            token_A, *figures = _step(policy, state.hidden_BD[index_A.to(device)], sampling, changed)
            columns.append((row_K[index_A], *figures))
            for index, row, token in zip(index_A.tolist(), rows_A, token_A.tolist(), strict=True):
                ids[row].append(token)
                alive_K[index] = len(ids[row]) < longest[row] and not end.ended(ids[row])
            if not alive_K.any():
                break
            fed_K = torch.zeros(len(alive_K), dtype=torch.long, device=device).index_copy(
                0, index_A.to(device), token_A
            )
            if 2 * int(alive_K.sum()) <= len(alive_K) or (state.keeps_for_nothing and not alive_K.all()):
                staying = alive_K.nonzero().squeeze(1)
                state, fed_K = state.keep(staying.to(device)), fed_K[staying.to(device)]
                row_K, alive_K = row_K[staying], alive_K[staying]
            _, state = policy.extend(state, fed_K[:, None])
        finish_drawing(sampling)
        logp_BR, value_BR, entropy_BR = (
            torch.stack([torch.zeros(rows).index_copy(0, column[0], column[part]) for column in columns], dim=1)
            for part in (1, 2, 3)
        )
    mask_BR = torch.stack(
        [torch.zeros(rows, dtype=torch.bool).index_fill(0, column[0], True) for column in columns], dim=1
    )
    return Responses(ids, [end.text(row) for row in ids], logp_BR, value_BR, entropy_BR, mask_BR)


def _step(
    policy: Policy, hidden_AD: Tensor, sampling: Sampling, changed: Callable[[Tensor], Tensor] | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a token for each of ``A`` rows. Its log-probability, value and entropy are on the CPU."""
    logits_AV = policy.logits(hidden_AD) / sampling.temperature
    logp_AV = next_token_logps(logits_AV)
    drawn_from_AV = logits_AV.detach() if changed is None else changed(logits_AV.detach())
    token_A = choose(drawn_from_AV, sampling)
    logp_A = logp_AV.gather(1, token_A[:, None]).squeeze(1)
    # Nothing is learned from greedy answers, and the entropy takes longer than the choice.
    entropy_A = entropy(logp_AV) if sampling.generator is not None else torch.zeros_like(logp_A)
    return token_A, logp_A.cpu(), policy.value(hidden_AD).cpu(), entropy_A.detach().cpu()


def next_token_logps(logits: Tensor) -> Tensor:
    """Return log-probabilities over the vocabulary, ``[…, V] → […, V]``; single tokens may have −inf.

    Raises NotFiniteError for logits with NaN or +inf: their likeliest token would be a guess.
    """
    logps = logits.log_softmax(-1)
    if not bool(torch.isfinite(logps.amax(-1)).all()):
        raise NotFiniteError(
            "The model's logits are not finite: its weights hold a NaN or an infinity, or its numbers overflow. "
            "Try runtime.dtype=float32. If a trained adapter still fails, train it again: it cannot be repaired."
        )
    return logps


def limits(rows: int, end: End, sampling: Sampling) -> list[int]:
    """Return the length limits: `max_tokens`, or drawn from min..max while sampling.

    Source: arXiv 2410.11020, which draws from 12..32.
    """
    if sampling.generator is None or end.min_tokens >= end.max_tokens:
        return [end.max_tokens] * rows
    total, own_rows = _place(rows, sampling)
    drawn = torch.randint(end.min_tokens, end.max_tokens + 1, (total,), generator=sampling.generator)
    return drawn[own_rows].tolist()


def choose(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Draw a token per row, or take the likeliest."""
    if sampling.generator is None:
        return logits_BV.argmax(-1)
    if sampling.top_k:
        lowest_B1 = logits_BV.topk(min(sampling.top_k, logits_BV.shape[1])).values[:, -1:]
        logits_BV = logits_BV.masked_fill(logits_BV < lowest_B1, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits_BV.sort(descending=True)
        probabilities = ordered.softmax(-1)
        excluded = probabilities.cumsum(-1) - probabilities >= sampling.top_p
        logits_BV = logits_BV.scatter(1, order, ordered.masked_fill(excluded, -torch.inf))
    return _draw(logits_BV.softmax(-1), sampling)


def finish_drawing(sampling: Sampling) -> None:
    """Draw what other processes still draw after this one's last row has ended: all generators stay equal."""
    if sampling.generator is None or not sampling.together:
        return
    while total := _place(0, sampling)[0]:
        torch.rand(total, dtype=torch.float64, generator=sampling.generator)


def _draw(probability_BV: Tensor, sampling: Sampling) -> Tensor:
    """Draw a token per row, of the rows of all processes.

    One number per row, from the CPU: the run is the same on every device, and a row's draw depends on its place alone.
    The token is the first whose cumulative probability exceeds it, so one of probability 0 is never drawn. The sums are
    float64, which Apple's GPUs do not have.
    """
    total, own_rows = _place(len(probability_BV), sampling)
    drawn = torch.rand(total, dtype=torch.float64, generator=sampling.generator)[own_rows]
    device = probability_BV.device
    summed_on = "cpu" if device.type == "mps" else device
    cumulative_BV = probability_BV.to(summed_on).double().cumsum(-1)
    threshold_B1 = drawn.to(summed_on)[:, None] * cumulative_BV[:, -1:]
    return torch.searchsorted(cumulative_BV, threshold_B1, right=True).squeeze(1).to(device)


def _place(rows: int, sampling: Sampling) -> tuple[int, slice]:
    """Return the number of rows that all processes draw for now, and which of them are this one's."""
    if not sampling.together:
        return rows, slice(0, rows)
    counts = gathered(rows)
    start = sum(counts[: rank()])
    return sum(counts), slice(start, start + rows)


def by_length(prompts: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Return indices of `prompts` in batches of similar length, to save padding."""
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
