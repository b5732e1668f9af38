"""Sample several answers per prompt, and compute their figures, with each prompt run once.

Short answers repeat: eight answers to a prompt are often two words. Each distinct beginning is run once, so the cost
hardly depends on the number of samples.

Shapes: ``B`` distinct prompts, ``K`` distinct answers or beginnings of them, ``N`` answers (prompts × samples), ``R``
response tokens, ``S`` distinct states, ``D`` width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from adjudge.models.engine.batch import branch
from adjudge.models.engine.prefix import Prefilled
from adjudge.models.policy import Policy
from adjudge.rl.losses import entropy
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
            for position, (answer, token) in enumerate(zip(answer_A.tolist(), token_A.tolist(), strict=True)):
                ids[answer].append(token)
                if len(ids[answer]) < longest[answer] and not end.ended(ids[answer]):
                    alive.append(position)
            if not alive:
                break
            longer = [(int(beginning_A[position]), int(token_A[position])) for position in alive]
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
    texts = [end.text(answer) for answer in ids]
    return Responses(ids, texts, logp_NR, value_NR, entropy_NR.detach(), mask_NR)


class AnswerStates(NamedTuple):
    """The hidden states of a pass over several answers per prompt, each distinct answer run once."""

    hidden_SD: Tensor
    """The distinct states that predict a token."""
    state_KR: Tensor
    """Which of them predicts each token of each distinct answer; any of them at padding."""
    ids_KR: Tensor
    mask_KR: Tensor
    index_N: Tensor
    """Where each of the answers asked for is among the distinct ones."""

    @property
    def hidden_KRD(self) -> Tensor:
        """The states that predict each distinct answer's tokens."""
        return self.hidden_SD[self.state_KR]

    def of_tokens(self, logp_SV: Tensor) -> Tensor:
        """Return what belongs to the tokens of the answers asked for, ``[N, R]``, 0 at padding."""
        return torch.where(self.mask_KR, logp_SV[self.state_KR, self.ids_KR], 0.0)[self.index_N]

    def of_states(self, figure_S: Tensor) -> Tensor:
        """Return a figure of the states that predict these tokens, ``[N, R]``, 0 at padding."""
        return torch.where(self.mask_KR, figure_S[self.state_KR], 0.0)[self.index_N]


def several_states(
    policy: Policy, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]
) -> AnswerStates:
    """Run each distinct prompt, and each distinct response to it, once.

    Gradients flow where they are enabled. Short responses branch off their prompt in one pass over both.
    """
    answers: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
    pairs = [(tuple(prompt), tuple(response)) for prompt, response in zip(prompts, responses, strict=True)]
    for prompt, response in pairs:
        answers.setdefault(prompt, {})[response] = None
    distinct = [(prompt, response) for prompt, some in answers.items() for response in some]
    length_K = torch.tensor([len(response) for _, response in distinct], device=policy.device)
    longest = int(length_K.max())
    ids_KR = torch.tensor(_padded([ids for _, ids in distinct], longest), device=policy.device)
    mask_KR = torch.arange(longest, device=policy.device) < length_K[:, None]
    if policy.replays:  # a replayed pass over whole rows takes less time than a shared one from Python
        hidden_SD = policy.hidden(policy.batch([prompt for prompt, _ in distinct], [ids for _, ids in distinct]))
        state_KR = (mask_KR.flatten().cumsum(0) - 1).view(mask_KR.shape)
    elif (branched := _branched(policy, answers)) is not None:
        hidden_SD, paths = branched
        state_KR = torch.tensor(_padded(paths, longest), device=policy.device)
    else:
        parents = [index for index, some in enumerate(answers.values()) for _ in some]
        parent_K = torch.tensor(parents, device=policy.device)
        state = policy.prefill(list(answers), grad=torch.is_grad_enabled())
        hidden_KRD = state.hidden_BD[parent_K][:, None]
        if longest > 1:  # padding is fed too, after all real tokens, which do not see it
            later_KTD, _ = policy.extend(state.keep(parent_K), ids_KR[:, :-1])
            hidden_KRD = torch.cat([hidden_KRD, later_KTD], dim=1)
        hidden_SD = hidden_KRD.flatten(0, 1)
        state_KR = torch.arange(len(hidden_SD), device=policy.device).view(mask_KR.shape)
    index_of = {pair: number for number, pair in enumerate(distinct)}
    index_N = torch.tensor([index_of[pair] for pair in pairs], device=policy.device)
    return AnswerStates(hidden_SD, state_KR, ids_KR, mask_KR, index_N)


def _branched(
    policy: Policy, answers: Mapping[tuple[int, ...], Iterable[tuple[int, ...]]]
) -> tuple[Tensor, list[list[int]]] | None:
    """Run answers as branches of their prompts; return the states, and which predict each answer's tokens.

    None where they cannot be run so.
    """
    prompts, trees = list(answers), [branch(list(some)) for some in answers.values()]
    branches = [tree for tree, _ in trees]
    if not policy.can_branch(prompts, branches):
        return None
    begin, paths = 0, list[list[int]]()
    for some, (tree, places) in zip(answers.values(), trees, strict=True):
        paths += [[begin + places[ids[:length]] for length in range(len(ids))] for ids in some]
        begin += len(tree.ids) + 1
    return policy.branched(prompts, branches), paths


def _padded(rows: Sequence[Sequence[int]], width: int) -> list[list[int]]:
    return [[*row, *[0] * (width - len(row))] for row in rows]


def several_figures(
    policy: Policy, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-probability, value and entropy of each response token, float32 ``[N, R]``, 0 at padding.

    Every distinct prompt, and every distinct response to it, is run once. Gradients flow where they are enabled.
    """
    states = several_states(policy, prompts, responses)
    logp_SV = (policy.logits(states.hidden_SD) / temperature).log_softmax(-1)
    value_S, entropy_S = policy.value(states.hidden_SD), entropy(logp_SV.detach())
    return states.of_tokens(logp_SV), states.of_states(value_S), states.of_states(entropy_S)


def several_logps(
    policy: Policy, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float
) -> Tensor:
    """Return each response's log-probability, float32 ``[N]``, as `several_figures` does for its tokens.

    Raises NotFiniteError when the logits are not a distribution.
    """
    states = several_states(policy, prompts, responses)
    return states.of_tokens(next_token_logps(policy.logits(states.hidden_SD) / temperature)).sum(1)
