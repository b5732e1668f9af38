"""Judges, which turn rows into predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from adjudge.evaluation.pooling import pooled
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
        judgement alone. With ``evaluation.long_texts``, a row that is too long for its prompt is judged in pieces.
        Raises ConfigError for a row that the model has no positions for.
        """
        prompts = self.task.renderer.prompts(examples)
        pieces, how = self._pieces(examples, prompts), self.task.config.evaluation.long_texts
        if how == "cut" or all(len(each) == 1 for each in pieces):
            return self._judge(examples, prompts, probabilities=probabilities, title=title)
        rows = [piece for each in pieces for piece in each]
        divided = sum(len(each) > 1 for each in pieces)
        note(f"{divided} of {len(examples)} rows are too long for one prompt: {len(rows)} pieces are judged")
        predictions = iter(self._judge(rows, self.task.renderer.prompts(rows), probabilities=True, title=title))
        by_row = [[next(predictions) for _ in each] for each in pieces]
        return [
            pooled(row, parts, self.task.spec, how, probabilities=probabilities)
            if len(parts) > 1
            else replace(parts[0], probabilities=parts[0].probabilities if probabilities else {})
            for row, parts in zip(examples, by_row, strict=True)
        ]

    def _pieces(self, examples: Sequence[Example], prompts: Sequence[Prompt]) -> list[list[Example]]:
        """Return each row in the pieces it is judged in: the row itself, unless it is too long and divided."""
        if self.task.config.evaluation.long_texts == "cut":
            return [[example] for example in examples]
        divide = self.task.renderer.pieces
        return [divide(row) if prompt.shortened else [row] for row, prompt in zip(examples, prompts, strict=True)]

    def _judge(
        self, examples: Sequence[Example], prompts: Sequence[Prompt], *, probabilities: bool, title: str
    ) -> list[Prediction]:
        task, config = self.task, self.task.config
        task.policy.eval()
        check_lengths(task, examples, prompts)
        if shortened := sum(prompt.shortened for prompt in prompts):
            limit = config.prompt.max_tokens
            note(f"{shortened} of {len(prompts)} rows were shortened to fit prompt.max_tokens = {limit}")
        batches = by_length([prompt.ids for prompt in prompts], config.evaluation.batch_size)
        own_batches = batches[rank() :: world_size()]  # the very batches of one process, dealt out

        def judge_own() -> dict[int, Prediction]:
            return self._judged(examples, prompts, own_batches, probabilities=probabilities, title=title)

        predictions = {row: each for part in agreed(judge_own) for row, each in part.items()}
        return [predictions[row] for row in range(len(examples))]

    def prompt_tokens(self, examples: Sequence[Example]) -> list[int]:
        """Return the number of tokens of each row's prompt, or of those of its pieces."""
        prompts = self.task.renderer.prompts(examples)
        return [
            len(prompt.ids) if len(pieces) == 1 else sum(len(each.ids) for each in self.task.renderer.prompts(pieces))
            for prompt, pieces in zip(prompts, self._pieces(examples, prompts), strict=True)
        ]

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
