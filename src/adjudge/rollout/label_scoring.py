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
                    place = beginnings[tuple(ids[:length])] * rows
                    total_BL[label] = total_BL[label] + logp_KV[place : place + rows, ids[length]]
            longer = list(dict.fromkeys(tuple(ids[: length + 1]) for ids in label_ids if len(ids) > length + 1))
            if not longer:
                return torch.stack(total_BL, dim=1)
            parent_K = torch.cat([beginnings[ids[:-1]] * rows + row_B for ids in longer])
            fed_K = torch.tensor([ids[-1] for ids in longer], device=device).repeat_interleave(rows)
            _, state = policy.extend(state.keep(parent_K), fed_K[:, None])
            beginnings, length = {ids: index for index, ids in enumerate(longer)}, length + 1
