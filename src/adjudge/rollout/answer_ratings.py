"""A reward model's ratings of sampled answers with an analysis before the judgement.

They are given while a policy trains on them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adjudge.rollout.analysed_pairs import ROWS_AT_ONCE, answer_values
from adjudge.rollout.prompted import PromptedTask
from adjudge.types import Example, Judgement


class AnswerRatings:
    """Rates answers with a frozen reward model, and standardises by the mean and deviation of all so far.

    An answer is rated as its analysis with the label it reads as, and that label's end: the form it was trained on.
    """

    def __init__(self, task: PromptedTask, *, rates_labels: bool) -> None:
        self.task, self.rates_labels = task, rates_labels
        self._sums = [0.0, 0.0, 0.0]
        """Answers so far, the sum of their rewards, and of the squares."""

    def of_answers(
        self, examples: Sequence[Example], judgements: Sequence[Judgement], openings: Sequence[Sequence[int]]
    ) -> list[float | None]:
        """Return the reward of each answer; None for an unreadable one."""
        readable = [index for index, judgement in enumerate(judgements) if judgement.value is not None]
        rewards = self._rewards([examples[index] for index in readable], judgements, readable, openings)
        for reward in rewards:
            self._sums = [self._sums[0] + 1, self._sums[1] + reward, self._sums[2] + reward**2]
        count, total, squares = self._sums
        mean = total / max(1.0, count)
        deviation = max(0.0, squares / max(1.0, count) - mean**2) ** 0.5
        normalised: list[float | None] = [None] * len(judgements)
        for index, reward in zip(readable, rewards, strict=True):
            normalised[index] = (reward - mean) / deviation if deviation > 1e-6 else 0.0
        return normalised

    def state_dict(self) -> dict[str, Any]:
        """Return the sums over all answers so far."""
        return {"sums": self._sums}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums = list(state["sums"])

    @torch.no_grad()
    def _rewards(
        self,
        examples: Sequence[Example],
        judgements: Sequence[Judgement],
        readable: Sequence[int],
        openings: Sequence[Sequence[int]],
    ) -> list[float]:
        task = self.task
        task.policy.forget_prefix(reference=True)  # a rating must not depend on earlier batches: runs are resumed
        prompts = [prompt.ids for prompt in task.renderer.prompts(examples)]
        answers = []
        for index in readable:
            value = judgements[index].value
            assert value is not None
            answers.append([*openings[index], *task.end.taught_ids(value, task.spec)])
        rewards: list[float] = []
        for start in range(0, len(answers), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            rewards += answer_values(task.policy, prompts[part], answers[part])[:, -1].tolist()
        return rewards
