"""A judge that asks each row with several prompts, and averages their label probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from adjudge.evaluation.predict import PromptedJudge
from adjudge.rollout.prompted import PromptedTask
from adjudge.types import Example, Prediction


class AveragedJudge(PromptedJudge):
    """Several prompts of one label task: the answer is the label word with the largest mean probability.

    Each prompt's probabilities are first divided by its own prior, where it has one.
    """

    def __init__(self, tasks: Sequence[PromptedTask]) -> None:
        super().__init__(tasks[0])
        self.tasks = tasks

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row with every prompt; see `Judge.judge`. Every prediction has its probabilities."""
        count = len(self.tasks)
        parts = [
            PromptedJudge(task).judge(examples, probabilities=True, title=f"{title}, order {number} of {count}")
            for number, task in enumerate(self.tasks, 1)
        ]
        return [self._mean(example, row) for example, row in zip(examples, zip(*parts, strict=True), strict=True)]

    def prompt_tokens(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of tokens read for each row: those of all its prompts."""
        parts = [PromptedJudge(task).prompt_tokens(examples) for task in self.tasks]
        return [sum(row) for row in zip(*parts, strict=True)]

    def _mean(self, example: Example, row: Sequence[Prediction]) -> Prediction:
        shares = {word: fmean(each.probabilities[word] for each in row) for word in self.task.spec.words}
        word = max(shares, key=lambda word: shares[word])
        return Prediction.of(example, word, word, shares)
