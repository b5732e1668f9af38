"""Candidate instructions on trial: training rows judged with them, scored, counted, and kept on disk.

``trials.jsonl`` of the run has one line per batch of rows judged with one instruction. A resumed run reads it, and
judges only what is not there, so a search needs no state of its own besides the seed.

The answer form stays ours: a candidate changes the instruction before it, so it cannot break how answers are read.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adjudge.config import PromptSearchConfig
from adjudge.errors import ConfigError, RunError
from adjudge.evaluation.api_judge import ApiJudge, api_judge
from adjudge.evaluation.predict import Judge, PromptedJudge
from adjudge.models.chat_api import cost, is_api
from adjudge.models.policy import Policy
from adjudge.rollout.prompted import PromptedTask
from adjudge.rollout.writer import ApiSource, Spent, Writer
from adjudge.runs.folder import WRITER_LOG, Run
from adjudge.runs.work import TRIALS
from adjudge.system.files import SURROGATES
from adjudge.tasks.spec import TaskSpec
from adjudge.types import Example, Prediction, Value

LONGEST = 4_000
"""Characters of the longest instruction; a longer one is no instruction any more."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One row judged with one instruction."""

    text: str
    value: Value | None
    score: float
    """From 0 to 1; 0 for an unreadable answer."""


class Trials:
    """Judges rows with candidate instructions, each pair once."""

    def __init__(self, run: Run, spec: TaskSpec, policy: Policy | None, config: PromptSearchConfig) -> None:
        """Judge with `policy`, or without one over the API that the run's settings name."""
        self.spec = spec
        self._run, self._policy = run, policy
        self._kind = score_kind(config, spec, run.config.model)
        self._known: dict[tuple[str, str], Trial] = {}
        self._seen: dict[str, None] = {}
        self._calls, self._read, self._written, self._uncounted = 0, 0, 0, 0
        source = ApiSource(run.config.model, run.config.api) if policy is None else None
        self._writer = None if source is None else Writer(source, run.folder / WRITER_LOG)
        for record in _read(run.folder / TRIALS):
            self._take(record)

    def judged(self, instruction: str, rows: Sequence[Example], title: str) -> list[Trial]:
        """Return each row's trial with an instruction, in their order.

        An instruction that leaves no room for the rows scores 0 everywhere; the task's own one is then an error.
        """
        todo = [row for row in rows if (instruction, row.id) not in self._known]
        if todo:
            self._keep(self._judge(instruction, list({row.id: row for row in todo}.values()), title))
        return [self._known[instruction, row.id] for row in rows]

    def mean(self, instruction: str, rows: Sequence[Example], title: str) -> float:
        """Return the mean score of an instruction on rows."""
        trials = self.judged(instruction, rows, title)
        return sum(trial.score for trial in trials) / len(trials)

    def judge(self, instruction: str) -> Judge:
        """Return the judge of the task with an instruction."""
        spec = self.spec.model_copy(update={"instruction": instruction})
        if self._writer is not None:
            return ApiJudge(self._writer, spec, self._run.config)
        return instructed_judge(self._run, spec, self._policy)

    def forget_prefix(self) -> None:
        """Make what is judged next independent of what was before, to the last bit: a run may be resumed."""
        if self._policy is not None:
            self._policy.forget_prefix()

    def budget(self, spent: Spent | None = None, writer: str | None = None) -> dict[str, Any]:
        """Return what the search took, with what its writer `spent`.

        ``calls`` are judged rows and texts written, ``gold_labels`` the training rows whose gold answer was seen.
        """
        config, spent = self._run.config, spent or Spent()
        record: dict[str, Any] = {
            "calls": self._calls + spent.calls,
            "prompt_tokens": self._read + spent.prompt_tokens,
            "generated_tokens": self._written + spent.generated_tokens,
            "gold_labels": len(self._seen),
        }
        paid = [(self._read, self._written)] if is_api(config.model) else []
        paid += [(spent.prompt_tokens, spent.generated_tokens)] if is_api(writer) else []
        uncounted = self._uncounted + spent.uncounted
        record |= {"uncounted": uncounted} if uncounted else {}
        price = cost(sum(r for r, _ in paid), sum(w for _, w in paid), config.api)
        if paid and price is not None and record["calls"] > uncounted:
            record["price"] = price
        return record

    def _judge(self, instruction: str, rows: Sequence[Example], title: str) -> dict[str, Any]:
        judge, failed = None, False
        try:
            judge = self.judge(instruction)
            self.forget_prefix()
            predictions = judge.judge(rows, probabilities=self._kind == "probability", title=title)
        except ConfigError:
            if instruction == self.spec.instruction or self._policy is None:
                raise
            failed = True  # it leaves no room for a row
            predictions = [Prediction.of(row, "", None) for row in rows]
        read, written = (0, 0) if failed or judge is None else self._tokens(judge, rows, predictions)
        uncounted = getattr(judge, "spent", {}).get("uncounted", 0)
        trials = [
            {"id": row.id, "text": each.text, "value": each.value, "score": self._score(row, each)}
            for row, each in zip(rows, predictions, strict=True)
        ]
        counts = {"prompt_tokens": read, "generated_tokens": written, **({"uncounted": uncounted} if uncounted else {})}
        return {"instruction": instruction, **counts, "trials": trials}

    def _tokens(self, judge: Judge, rows: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[int, int]:
        if self._policy is None:
            spent = getattr(judge, "spent", {})
            return int(spent["prompt_tokens"]), int(spent["generated_tokens"])
        assert isinstance(judge, PromptedJudge)
        texts = [prediction.text for prediction in predictions]
        written = sum(len(ids) for ids in self._policy.tokenizer(texts, add_special_tokens=False).input_ids)
        return sum(judge.prompt_tokens(rows)), written

    def _score(self, row: Example, prediction: Prediction) -> float:
        if prediction.value is None or row.gold is None:
            return 0.0
        if self.spec.number is not None:
            width = self.spec.number.high - self.spec.number.low
            return max(0.0, 1.0 - abs(float(prediction.value) - float(row.gold)) / width)
        if self._kind == "probability":
            return prediction.probabilities[str(row.gold)]
        return float(prediction.value == row.gold)

    def _take(self, record: Mapping[str, Any]) -> None:
        self._calls += len(record["trials"])
        self._read += record["prompt_tokens"]
        self._written += record["generated_tokens"]
        self._uncounted += record.get("uncounted", 0)
        for each in record["trials"]:
            self._seen[each["id"]] = None
            self._known[record["instruction"], each["id"]] = Trial(each["text"], each["value"], each["score"])

    def _keep(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
        with (self._run.folder / TRIALS).open("a", encoding="utf-8", errors=SURROGATES, newline="") as file:
            file.write(line)
        self._take(json.loads(line))  # as a resumed run reads it


def score_kind(config: PromptSearchConfig, spec: TaskSpec, model: str) -> Literal["probability", "right"]:
    """Return how rows of a label task are scored.

    Raises ConfigError for probabilities that the model does not give.
    """
    if config.score == "probability" and is_api(model):
        raise ConfigError(f"score=probability needs label probabilities, which {model} does not give. Use score=right.")
    if config.score == "probability" and spec.several:
        raise ConfigError(
            f"{spec.name} is answered with sets of labels: score=probability is for one label. Use score=right."
        )
    plain = spec.is_number or spec.several is not None or is_api(model)
    return "probability" if config.score != "right" and not plain else "right"


def instructed_judge(run: Run, spec: TaskSpec, policy: Policy | None) -> Judge:
    """Return the judge of a task by a policy, or without one over the API that the run's settings name."""
    if policy is None:
        return api_judge(run.config, spec, run.folder)
    return PromptedJudge(PromptedTask(policy, spec, run.config))


def problem_with(text: str, spec: TaskSpec) -> str | None:
    """Return why a text cannot take the place of a task's instruction, or None.

    It must still name every answer word that the instruction names: a rewrite that loses one has lost its sense.
    """
    if not text.strip():
        return "empty"
    if len(text) > LONGEST:
        return "too long"
    if any(_names(spec.instruction, word) and not _names(text, word) for word in spec.words):
        return "an answer is no longer named"
    return None


def _names(text: str, word: str) -> bool:
    """Return whether a text has the word as a whole: "Nothing" does not name the answer "No"."""
    return re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) is not None


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the batches of an earlier attempt. A last line that was not finished is cut off."""
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    try:
        return [json.loads(line) for line in content[:whole].splitlines()]
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}. Begin again with --force.") from None
