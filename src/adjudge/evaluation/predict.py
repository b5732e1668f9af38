"""Judges, which turn rows into predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from adjudge.rollout.answering import Answer, answer
from adjudge.rollout.prompted import PromptedTask, check_lengths
from adjudge.rollout.sampler import by_length
from adjudge.system.console import note, progress
from adjudge.system.parallel import agreed, rank, world_size
from adjudge.tasks.sets import marginals
from adjudge.types import Example, Prediction, Prompt


class Judge(Protocol):
    """Anything that judges rows: a prompted policy or a fine-tuned encoder."""

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row, and return one prediction per row, in their order. Shows progress under `title`.

        With `probabilities`, each prediction of a label task carries a probability per label word.
        """
        ...


class PromptedJudge:
    """A policy prompted with a task: the judge of zero-shot, few-shot and every adapter method."""

    def __init__(self, task: PromptedTask) -> None:
        self.task = task

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row by its greedy answer, read strictly, or with ``decode=labels`` the likeliest word.

        See `Judge.judge`. With ``prompt.analysis`` the text of a prediction is the whole form; its value comes from the
        judgement alone. Raises ConfigError for a row that the model has no positions for.
        """
        task, config = self.task, self.task.config
        task.policy.eval()
        prompts = task.renderer.prompts(examples)
        check_lengths(task, examples, prompts)
        if shortened := sum(prompt.shortened for prompt in prompts):
            limit = config.prompt.max_tokens
            note(f"{shortened} of {len(prompts)} rows were shortened to fit prompt.max_tokens = {limit}")
        batches = by_length([prompt.ids for prompt in prompts], config.evaluation.batch_size)
        own = batches[rank() :: world_size()]  # the very batches of one process, dealt out

        def judge_own() -> dict[int, Prediction]:
            return self._judged(examples, prompts, own, probabilities=probabilities, title=title)

        predictions = {row: each for part in agreed(judge_own) for row, each in part.items()}
        return [predictions[row] for row in range(len(examples))]

    def prompt_tokens(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of tokens of each row's prompt."""
        return [len(prompt.ids) for prompt in self.task.renderer.prompts(examples)]

    def _judged(
        self,
        examples: Sequence[Example],
        prompts: Sequence[Prompt],
        batches: Sequence[Sequence[int]],
        *,
        probabilities: bool,
        title: str,
    ) -> dict[int, Prediction]:
        """Judge batches of rows, and return their predictions by row."""
        predictions: dict[int, Prediction] = {}
        with progress(title, sum(map(len, batches))) as bar:
            for rows in batches:
                batch = [prompts[row].ids for row in rows]
                answers = self._answers(batch, probabilities=probabilities)
                for row, each in zip(rows, answers, strict=True):
                    shares = each.probabilities
                    if self.task.spec.several and shares:
                        shares = marginals(shares, self.task.spec.names)
                    predictions[row] = Prediction.of(examples[row], each.text, each.value, shares)
                bar.advance(len(rows))
        return predictions

    def _answers(self, prompts: Sequence[Sequence[int]], *, probabilities: bool) -> list[Answer]:
        return answer(self.task, prompts, decode=self.task.config.evaluation.decode, probabilities=probabilities)
