"""What a reward model thinks of each label as an answer: the value head after each of its tokens.

Shapes: ``B`` prompts, ``L`` labels, ``T`` tokens of the longest label with its end, ``P`` pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adjudge.models.engine.batch import shared_start
from adjudge.prompts.answers import every_answer
from adjudge.rollout.label_scoring import rows_at_once
from adjudge.rollout.prompted import PromptedTask
from adjudge.rollout.several import several_states


def label_values(task: PromptedTask, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the value after each token of each label with its end, ``[B, L, T]``.

    Gradients flow where enabled. After its last token a shorter label keeps its last value, so ``[..., -1]`` is the
    reward of each label.
    """
    policy, answers = task.policy, task.taught_labels()
    # No state is returned after a response's last token, since nothing is predicted from it: one more is asked for.
    states = several_states(
        policy, [prompt for prompt in prompts for _ in answers], [[*ids, 0] for _ in prompts for ids in answers]
    )
    value_KT = policy.value(states.hidden_KRD[:, 1:])
    value_BLT = value_KT[states.index_N].reshape(len(prompts), len(answers), -1)
    length_L = torch.tensor([len(ids) for ids in answers], device=policy.device)
    token_LT = torch.arange(value_BLT.shape[2], device=policy.device).minimum(length_L[:, None] - 1)
    return value_BLT.gather(2, token_LT.expand_as(value_BLT))


@torch.no_grad()
def label_rewards(task: PromptedTask, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the reward of each label as the answer to each prompt, float32 ``[B, L]`` on the CPU."""
    size = rows_at_once(every_answer(task.spec))
    parts = [prompts[start : start + size] for start in range(0, len(prompts), size)]
    return torch.cat([label_values(task, part)[..., -1].float().cpu() for part in parts])


def divergent_tokens(task: PromptedTask, one_P: Tensor, other_P: Tensor) -> Tensor:
    """Return where the labels of each pair differ, ``[P, T]``.

    They do from the first unlike token to the longer label's end.
    """
    answers = task.taught_labels()
    token_T = torch.arange(max(map(len, answers)))
    masks = {
        (one, other): (token_T >= shared_start(answers[one], answers[other]))
        & (token_T < max(len(answers[one]), len(answers[other])))
        for one, other in set(zip(one_P.tolist(), other_P.tolist(), strict=True))
    }
    pairs = zip(one_P.tolist(), other_P.tolist(), strict=True)
    return torch.stack([masks[pair] for pair in pairs]).to(one_P.device)
