"""Exact probabilities of the label words as answers, without sampling.

Shapes: ``B`` prompts, ``L`` labels or listed numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from adjudge.models.engine.batch import branch
from adjudge.models.engine.prefix import Prefilled
from adjudge.models.policy import Policy
from adjudge.prompts.answers import every_answer
from adjudge.rollout.prompted import Prompted, PromptedTask
from adjudge.rollout.sampler import next_token_logps
from adjudge.rollout.several import several_logps
from adjudge.types import Judgement, Value

MOST_COPIES = 256
"""Largest number of answers in one pass. Each takes 7 MB: 80 tokens of the bundled model in float32."""

FEW_LABELS = 8
"""With more, running all of them costs more than feeding those that are answered."""


@dataclass(frozen=True, slots=True)
class Likeliest:
    """The likeliest answer of each row of a batch."""

    golds: list[Value | None]
    judgements: list[Judgement]


def label_logps(
    policy: Policy, state: Prefilled, label_ids: Sequence[Sequence[int]], temperature: float = 1.0
) -> Tensor:
    """Return the log-probability of each label's tokens after each prompt, float32 ``[B, L]``.

    Softmax over ``L`` gives the label probabilities, given an answer among the labels. It carries a gradient if the
    state does. `state` is not changed. All labels are run together, and equal beginnings once. Raises NotFiniteError
    when the logits are not a distribution.
    """
    rows, device = len(state.hidden_BD), state.hidden_BD.device
    row_B = torch.arange(rows, device=device)
    beginnings: dict[tuple[int, ...], int] = {(): 0}
    state, length = state.fork(), 0
    total_BL: list[Tensor] = [torch.zeros(rows, device=device)] * len(label_ids)
    with torch.set_grad_enabled(state.grad):
        while True:  # the state has the rows of every beginning of this length, one beginning after the other
            logp_KV = next_token_logps(policy.logits(state.hidden_BD) / temperature)
            for label, ids in enumerate(label_ids):
                if len(ids) > length:
                    first_row = beginnings[tuple(ids[:length])] * rows
                    total_BL[label] = total_BL[label] + logp_KV[first_row : first_row + rows, ids[length]]
            longer = list(dict.fromkeys(tuple(ids[: length + 1]) for ids in label_ids if len(ids) > length + 1))
            if not longer:
                return torch.stack(total_BL, dim=1)
            parent_K = torch.cat([beginnings[ids[:-1]] * rows + row_B for ids in longer])
            fed_K = torch.tensor([ids[-1] for ids in longer], device=device).repeat_interleave(rows)
            _, state = policy.extend(state.keep(parent_K), fed_K[:, None])
            beginnings, length = {ids: index for index, ids in enumerate(longer)}, length + 1


def labels_of(task: PromptedTask, rows: Sequence[Prompted], temperature: float, *, grad: bool = False) -> Tensor:
    """Return the log-probability of each answer, with its end, after each row's prompt, ``[B, L]``.

    Without gradient the rows go through in parts of `rows_at_once`.
    """
    every = every_answer(task.spec)
    answer_ids = [task.end.taught_ids(answer.value, task.spec) for answer in every if answer.value is not None]
    policy, size = task.policy, max(1, len(rows)) if grad else rows_at_once(every)
    tree, _ = branch(answer_ids)

    def logps_of(prompts: Sequence[Sequence[int]]) -> Tensor:
        if grad and (policy.replays or policy.can_branch(prompts, [tree])):  # in a pass that keeps no cache
            repeated = [prompt for prompt in prompts for _ in answer_ids]
            return several_logps(policy, repeated, answer_ids * len(prompts), temperature).view(len(prompts), -1)
        state = policy.prefill(prompts, grad=grad, expected=answer_ids)
        return label_logps(policy, state, answer_ids, temperature)

    with nullcontext() if grad else torch.no_grad():
        parts = [rows[start : start + size] for start in range(0, len(rows), size)]
        return torch.cat([logps_of([row.ids for row in part]) for part in parts])


def expected_answers(task: PromptedTask, *, scored: bool) -> list[list[int]]:
    """Return the token ids of answers worth running with the prompts.

    They are all labels of a task that lists them, if these are `scored` or few; else there are none.
    """
    if not task.spec.lists_all or not (scored or len(task.spec.words) <= FEW_LABELS):
        return []
    return task.taught_labels()


def rows_at_once(answers: Sequence[Judgement]) -> int:
    """Return how many rows one pass has: each answer of each row has its own copy of the prompt's keys."""
    return max(1, MOST_COPIES // len(answers))
