"""A policy with a classification head as a judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adjudge.evaluation.logits import shown_number
from adjudge.evaluation.predict import PromptedJudge
from adjudge.models.head import head_logits
from adjudge.rollout.answering import Answer


class HeadJudge(PromptedJudge):
    """Answers with the highest logit's label or the head's number, whatever ``evaluation.decode`` says.

    It writes nothing, so no answer is unreadable.
    """

    @torch.no_grad()
    def _answers(self, prompts: Sequence[Sequence[int]], *, probabilities: bool) -> list[Answer]:
        spec = self.task.spec
        logits_BL = head_logits(self.task.policy, prompts)
        if spec.number is not None:
            return [Answer(text, value, [], {}) for text, value in shown_number(logits_BL, spec.number)]
        best_B = logits_BL.argmax(-1).tolist()
        shares = [dict(zip(spec.words, row, strict=True)) for row in logits_BL.softmax(-1).tolist()]
        return [
            Answer(spec.words[best], spec.words[best], [], share if probabilities else {})
            for best, share in zip(best_B, shares, strict=True)
        ]
