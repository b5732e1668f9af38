"""A classification head on a policy: it reads the state from which the policy would write its answer.

Shapes: ``B`` prompts, ``L`` labels (1 for a number task), ``D`` width.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adjudge.errors import RunError
from adjudge.models.policy import Policy
from adjudge.models.sources.untrusted import HEAD_LABELS, HEAD_WEIGHTS
from adjudge.system.files import write_json

SCORE = "score.weight"
"""The name of its weights, as in transformers' sequence classifiers."""
_NAME = "classification_head"


class Head(nn.Module):
    """A linear layer without bias, in float32, from a prompt's last state to one logit per label word.

    It begins at zero, so that the labels are equally likely. For a number task, `words` is empty and there is one
    output. The layer is that of transformers' sequence classifiers (``LlamaForSequenceClassification``).
    """

    def __init__(self, width: int, words: Sequence[str], device: torch.device | str = "cpu") -> None:
        super().__init__()
        self.words = tuple(words)
        self.score = nn.Linear(width, max(1, len(self.words)), bias=False, dtype=torch.float32, device=device)
        nn.init.zeros_(self.score.weight)

    def save(self, folder: Path) -> None:
        """Save the head into the folder of its adapter."""
        save_file({SCORE: self.score.weight.detach().contiguous()}, folder / HEAD_WEIGHTS)
        write_json(folder / HEAD_LABELS, {"words": list(self.words)})


def last_states(policy: Policy, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the last hidden state at the end of each prompt, float32 ``[B, D]``.

    From it the answer is predicted.
    """
    return policy.hidden(policy.batch(prompts, [[0]] * len(prompts))).float()  # the one token is not read


def add_head(policy: Policy, words: Sequence[str]) -> Head:
    """Give a policy a new head, which is then trained, saved in checkpoints and checked with it."""
    head = Head(policy.value_head.in_features, words, policy.device)
    policy.add_module(_NAME, head)
    return head


def head_of(policy: Policy) -> Head:
    """Return the head of a policy that has one."""
    head = policy.get_submodule(_NAME)
    assert isinstance(head, Head)
    return head


def load_head(policy: Policy, folder: Path) -> Head:
    """Give a policy the head that was saved beside its adapter.

    Raises RunError when it is missing or does not fit.
    """
    for name in (HEAD_LABELS, HEAD_WEIGHTS):
        if not (folder / name).is_file():
            raise RunError(f"{folder} holds no classification head: {name} is missing.")
    try:
        words = json.loads((folder / HEAD_LABELS).read_text(encoding="utf-8"))["words"]
        head = add_head(policy, [str(word) for word in words])
        head.load_state_dict(load_file(folder / HEAD_WEIGHTS))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"The classification head in {folder} is damaged, or of another model: {error}") from None
    return head


def head_logits(policy: Policy, prompts: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits of the policy's head for each prompt, float32 ``[B, L]``."""
    logits_BL: Tensor = head_of(policy).score(last_states(policy, prompts))
    return logits_BL
