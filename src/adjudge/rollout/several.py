"""Sample several answers per prompt, and compute their figures, with each prompt run once.

Short answers repeat: eight answers to a prompt are often two words. Each distinct beginning is run once, so the cost
hardly depends on the number of samples.

Shapes: ``B`` distinct prompts, ``K`` distinct beginnings of answers, ``N`` answers (prompts × samples), ``R`` response
tokens, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adjudge.models.engine.prefix import Prefilled
from adjudge.models.policy import Policy
from adjudge.rl.losses import entropy, token_logp_and_entropy
from adjudge.rollout.answer_end import AnswerEnd
from adjudge.rollout.sampler import Responses, Sampling, choose, finish_drawing, limits, next_token_logps


def respond_several(policy: Policy, state: Prefilled, end: AnswerEnd, sampling: Sampling, samples: int) -> Responses:
    """Draw `samples` responses per prompt; those of one prompt are adjacent.

    `state` cannot be used again afterwards. Raises NotFiniteError when the logits are not a distribution.
    """
    prompts, device = len(state.hidden_BD), state.hidden_BD.device
    longest = limits(prompts * samples, end, sampling)
    ids: list[list[int]] = [[] for _ in longest]
    beginning_A = torch.arange(prompts).repeat_interleave(samples)  # where in the state each unfinished answer stands
    answer_A = torch.arange(len(ids))  # the unfinished answers
    columns: list[tuple[Tensor, ...]] = []
    with torch.set_grad_enabled(state.grad):
        while True:
            logits_KV = policy.logits(state.hidden_BD) / sampling.temperature
            logp_KV = next_token_logps(logits_KV)
            at_A = beginning_A.to(device)
            token_A = choose(logits_KV.detach()[at_A], sampling)
            figures = (logp_KV[at_A, token_A], policy.value(state.hidden_BD)[at_A], entropy(logp_KV.detach())[at_A])
            columns.append((answer_A, *(figure.cpu() for figure in figures)))
            alive = []
            for place, (answer, token) in enumerate(zip(answer_A.tolist(), token_A.tolist(), strict=True)):
                ids[answer].append(token)
                if len(ids[answer]) < longest[answer] and not end.ended(ids[answer]):
                    alive.append(place)
            if not alive:
                break
            longer = [(int(beginning_A[place]), int(token_A[place])) for place in alive]
            distinct = {pair: index for index, pair in enumerate(dict.fromkeys(longer))}
            answer_A, beginning_A = answer_A[alive], torch.tensor([distinct[pair] for pair in longer])
            parent_K, fed_K = torch.tensor(list(distinct), device=device).unbind(1)
            _, state = policy.extend(state.keep(parent_K), fed_K[:, None])
        finish_drawing(sampling)
        logp_NR, value_NR, entropy_NR = (
            torch.stack([torch.zeros(len(ids)).index_copy(0, column[0], column[part]) for column in columns], dim=1)
            for part in (1, 2, 3)
        )
    mask_NR = torch.stack(
        [torch.zeros(len(ids), dtype=torch.bool).index_fill(0, column[0], True) for column in columns], dim=1
    )
    return Responses(ids, [end.text(answer) for answer in ids], logp_NR, value_NR, entropy_NR.detach(), mask_NR)


class AnswerStates(NamedTuple):
    """The hidden states of a pass over several answers per prompt, each distinct answer run once."""

    hidden_KRD: Tensor
    """The states that predict each answer's tokens."""
    ids_KR: Tensor
    mask_KR: Tensor
    index_N: Tensor
    """Where each of the answers asked for is among the distinct ones."""


def several_states(
    policy: Policy, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> AnswerStates:
    """Run each distinct prompt, and each distinct response to it, once. Gradients flow where they are enabled."""
    prompt_index = {tuple(prompt): index for index, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    pairs = [
        (prompt_index[tuple(prompt)], tuple(response)) for prompt, response in zip(prompts, responses, strict=True)
    ]
    distinct = {pair: index for index, pair in enumerate(dict.fromkeys(pairs))}
    length_K = torch.tensor([len(response) for _, response in distinct], device=policy.device)
    longest = int(length_K.max())
    ids_KR = torch.tensor([[*ids, *[0] * (longest - len(ids))] for _, ids in distinct], device=policy.device)
    parents = [index for index, _ in distinct]
    mask_KR = torch.arange(longest, device=policy.device) < length_K[:, None]
    if policy.replays:  # a replayed pass over whole rows takes less time than a shared one from Python
        every = list(prompt_index)
        hidden_MD = policy.hidden(policy.batch([every[index] for index in parents], [ids for _, ids in distinct]))
        zeros_KRD = hidden_MD.new_zeros(*mask_KR.shape, hidden_MD.shape[1])
        hidden_KRD = zeros_KRD.masked_scatter(mask_KR[..., None], hidden_MD)
    else:
        parent_K = torch.tensor(parents, device=policy.device)
        state = policy.prefill(list(prompt_index), grad=torch.is_grad_enabled())
        hidden_KRD = state.hidden_BD[parent_K][:, None]
        if longest > 1:  # padding is fed too, after all real tokens, which do not see it
            later_KTD, _ = policy.extend(state.keep(parent_K), ids_KR[:, :-1])
            hidden_KRD = torch.cat([hidden_KRD, later_KTD], dim=1)
    index_N = torch.tensor([distinct[pair] for pair in pairs], device=policy.device)
    return AnswerStates(hidden_KRD, ids_KR, mask_KR, index_N)


def several_figures(
    policy: Policy, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probability, value and entropy of each response token, float32 ``[N, R]``, 0 at padding.

    Every distinct prompt, and every distinct response to it, is run once. Gradients flow where they are enabled.
    """
    hidden_KRD, ids_KR, mask_KR, index_N = several_states(policy, prompts, responses)
    hidden_MD = hidden_KRD[mask_KR]
    logp_M, entropy_M = token_logp_and_entropy(policy.logits(hidden_MD) / temperature, ids_KR[mask_KR])
    zeros_KR = torch.zeros(mask_KR.shape, device=policy.device)
    logp_NR, value_NR, entropy_NR = (
        zeros_KR.masked_scatter(mask_KR, column_M)[index_N] for column_M in (logp_M, policy.value(hidden_MD), entropy_M)
    )
    return logp_NR, value_NR, entropy_NR
