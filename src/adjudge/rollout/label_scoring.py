"""Exact probabilities of the label words as answers, without sampling.

Shapes: ``B`` prompts, ``L`` labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adjudge.models.engine.prefix import Prefilled
from adjudge.models.policy import Policy
from adjudge.rollout.sampler import next_token_logps


def label_logps(
    policy: Policy, state: Prefilled, label_ids: Sequence[Sequence[int]], temperature: float = 1.0
) -> Tensor:
    """Return the log-probability of each label's tokens after each prompt, float32 ``[B, L]``.

    Softmax over ``L`` gives the label probabilities, given an answer among the labels. It carries a gradient if the
    state does. `state` is not changed. Raises NotFiniteError when the logits are not a distribution.
    """
    with torch.set_grad_enabled(state.grad):
        first_BV = next_token_logps(policy.logits(state.hidden_BD) / temperature)
        columns = []
        for ids in label_ids:
            logp_B = first_BV[:, ids[0]]
            if len(ids) > 1:
                fed_BT = torch.tensor(ids[:-1], device=first_BV.device).expand(len(first_BV), -1)
                hidden_BTD, _ = policy.extend(state.fork(), fed_BT)
                rest_BTV = next_token_logps(policy.logits(hidden_BTD) / temperature)
                next_BT = torch.tensor(ids[1:], device=first_BV.device).expand(len(first_BV), -1)
                logp_B = logp_B + rest_BTV.gather(2, next_BT[..., None]).squeeze(2).sum(1)
            columns.append(logp_B)
        return torch.stack(columns, dim=1)
