"""A judge that takes steps before each judgement.

The model is asked them one by one, and what it says is carried on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from adjudge.config import Config
from adjudge.errors import ConfigError
from adjudge.evaluation.api_judge import READABLE, ApiJudge
from adjudge.evaluation.predict import PromptedJudge
from adjudge.models.chat_api import cost, is_api
from adjudge.models.policy import Policy
from adjudge.prompts.steps import Progress, Steps
from adjudge.rollout.writer import Ask, Spent, Writer, limits_of
from adjudge.system.parallel import world_size
from adjudge.types import Example, Prediction

READ_ENDS = (READABLE, "length")
"""Ends of an answer to a step that is read; a filtered or an empty one is not."""


class StepwiseJudge:
    """Asks a model the steps of each row, and judges the row with what it answered below it.

    A row with n steps takes n + 1 calls.
    """

    def __init__(
        self,
        writer: Writer,
        steps: Steps,
        judge: PromptedJudge | ApiJudge,
        notes_field: str,
        config: Config,
        max_tokens: int,
        policy: Policy | None = None,
    ) -> None:
        """Ask the steps by `writer`, and judge by `judge`, whose task has the field for the notes."""
        self.writer, self.steps, self.judge_with_notes = writer, steps, judge
        self._field, self._config, self._max_tokens, self._policy = notes_field, config, max_tokens, policy
        self.spent: dict[str, Any] = {}
        """What the latest judging took, and how many steps could not be read."""

    def judge(
        self, examples: Sequence[Example], *, probabilities: bool = False, title: str = "judging"
    ) -> list[Prediction]:
        """Judge each row; see `Judge.judge`. Raises what asking the model raises."""
        if world_size() > 1:
            raise ConfigError("The steps of a row are asked by one process: start it without torchrun or accelerate.")
        self.writer.spent = Spent()
        rows = self.walk(examples, title)
        steps_spent = self.writer.spent  # a judge with the same writer counts anew
        noted = [self.noted(progress) for progress in rows]
        if self._policy is not None:
            self._policy.forget_prefix()  # the answers do not depend on whether steps were asked or replayed
        predictions = self.judge_with_notes.judge(noted, probabilities=probabilities, title=title)
        self.spent = self._spent(steps_spent, noted, predictions)
        self.spent["unread_steps"] = sum(progress.unread for progress in rows)
        return [
            Prediction.of(example, each.text, each.value, each.probabilities)
            for example, each in zip(examples, predictions, strict=True)
        ]

    def walk(self, examples: Sequence[Example], title: str = "judging") -> list[Progress]:
        """Take all steps of each row, and return how that went."""
        limit, temperature = limits_of(self.writer.source, self._config.api, self._max_tokens, 0.0)
        rows = [self.steps.begin(example) for example in examples]
        number = 1
        while waiting := [progress for progress in rows if progress.done < len(progress.steps)]:
            asks = [Ask(self.steps.turns(progress), limit, temperature) for progress in waiting]
            written = self.writer.write(asks, what="steps of rows", title=f"{title}, step {number}")
            for progress, each in zip(waiting, written, strict=True):
                self.steps.take(progress, each.text if each.end in READ_ENDS else None)
            number += 1
        return rows

    def noted(self, progress: Progress) -> Example:
        """Return a row with the notes of its steps."""
        fields = {**progress.row.fields, self._field: self.steps.notes(progress)}
        return replace(progress.row, fields=fields)

    def _spent(self, steps_spent: Spent, noted: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Any]:
        final, record = self.judge_with_notes, dict[str, Any]()
        if isinstance(final, ApiJudge):
            record = dict(final.spent)  # with how the answers ended
            calls, read, written = (int(record[name]) for name in ("calls", "prompt_tokens", "generated_tokens"))
        else:
            ids = final.task.policy.tokenizer([each.text for each in predictions], add_special_tokens=False).input_ids
            calls, read, written = len(noted), sum(final.prompt_tokens(noted)), sum(map(len, ids))
        if is_api(self.writer.source.name):
            record = _added(record, steps_spent.record(self._config.api))  # how answers ended is of the judgements
        record |= {
            "calls": steps_spent.calls + calls,
            "prompt_tokens": steps_spent.prompt_tokens + read,
            "generated_tokens": steps_spent.generated_tokens + written,
        }
        if is_api(self.writer.source.name):
            price = cost(record["prompt_tokens"], record["generated_tokens"], self._config.api)
            record.pop("price", None)
            record |= {"price": price} if price is not None and record["calls"] > record.get("uncounted", 0) else {}
        return record


def _added(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with what calls of another one took: retries, uncounted calls, and who answered."""
    whole = dict(one)
    for name in ("uncounted", "retries"):
        if one.get(name) or other.get(name):
            whole[name] = one.get(name, 0) + other.get(name, 0)
    for name in ("models", "fingerprints"):
        whole[name] = sorted({*one.get(name, ()), *other.get(name, ())})
    return whole
