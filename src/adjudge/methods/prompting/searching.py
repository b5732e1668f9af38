"""What methods that search an instruction share: their rows, their writer, and what they leave behind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from adjudge.config import PromptSearchConfig
from adjudge.errors import DataError, RunError
from adjudge.evaluation.predict import Judge
from adjudge.evaluation.trials import Trial, Trials, instructed_judge
from adjudge.methods.base import Trained
from adjudge.methods.prompting.writing import writer_of
from adjudge.models.chat_api import is_api
from adjudge.models.plain_text import encodable
from adjudge.models.policy import Policy, load_policy
from adjudge.prompts.answers import answer_text
from adjudge.rollout.writer import Ask, Spent, Writer, Written, limits_of
from adjudge.runs.folder import Run
from adjudge.runs.tasks import read_tasks
from adjudge.system.console import note
from adjudge.system.files import write_json, write_text
from adjudge.tasks import take_rows
from adjudge.tasks.reading.same_text import text_key
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

INSTRUCTION = "instruction.txt"
SEARCH = "search.json"

_SHOWN_CHARACTERS = 600
"""Longest field of a row that a writer is shown."""


@dataclass(slots=True)
class Search:
    """A run's search: rows to show and rows to compare on, trials, and the writer once there is one."""

    run: Run
    spec: TaskSpec
    shown: Sequence[Example]
    held_out: Sequence[Example]
    trials: Trials
    policy: Policy | None
    writer: Writer | None = None

    def write(self, requests: Sequence[str], title: str) -> list[Written]:
        """Return what the writer answers to each request, drawn anew for each.

        The writer is the judging model itself unless ``writer.model`` is set. Raises what asking it raises.
        """
        if self.writer is None:
            self.writer = writer_of(self.run, self.policy)
        settings, api = self.run.config.writer, self.run.config.api
        limit, temperature = limits_of(self.writer.source, api, settings.max_tokens, settings.temperature)
        first = 1000 * self.run.config.seed + self.writer.spent.calls
        asks = [
            Ask([{"role": "user", "content": encodable(request)}], limit, temperature, first + number)
            for number, request in enumerate(requests)
        ]
        return self.writer.write(asks, what="requests for an instruction", title=title)

    def finish(self, instruction: str, record: Mapping[str, Any]) -> Trained:
        """Keep the instruction and the record of the search, and return the judge with it."""
        write_text(self.run.folder / INSTRUCTION, instruction)
        budget = self.trials.budget(
            self.writer.spent if self.writer else Spent(), self.writer.source.name if self.writer else None
        )
        write_json(self.run.folder / SEARCH, {"task": self.spec.name, **record, "budget": budget})
        changed = "as it was" if instruction == self.spec.instruction else "another than the task's"
        note(f"{self.spec.name}: the instruction is {changed} ({self.run.folder / INSTRUCTION})")
        rows = len(self.shown) + len(self.held_out)
        self.trials.forget_prefix()
        return Trained([self.trials.judge(instruction)], rows=rows, figures=[{"budget": budget}])


def begin(run: Run, parts: Sequence[TaskRows], config: PromptSearchConfig) -> Search:
    """Load the judging model and divide the training rows.

    Raises DataError for fewer than two rows with an answer, and for rows that cannot be divided.
    """
    (part,) = parts
    rows = [row for row in part.rows if row.gold is not None]
    count = min(config.validation_rows, len(rows) // 2)
    if count == 0:
        raise DataError(
            f"{part.spec.name}: a search shows some training rows and compares on others, and there are {len(rows)} "
            "with an answer. Raise --train-rows."
        )
    held_out = _held_out(rows, part.spec, count, run.config.seed)
    texts = {text_key(row.fields) for row in held_out}
    policy = None if is_api(run.config.model) else load_policy(run.config)
    trials = Trials(run, part.spec, policy, config)
    shown = [row for row in rows if text_key(row.fields) not in texts]  # a text that is there twice is on one side
    if not shown or not held_out:  # one group holds all rows, or no label has two
        raise DataError(
            f"{part.spec.name}: its training rows cannot be divided: they are one group, or "
            "one row per label. Raise --train-rows."
        )
    note(f"{part.spec.name}: instructions are compared on {len(held_out)} held-out training rows")
    return Search(run, part.spec, shown, held_out, trials, policy)


def _held_out(rows: Sequence[Example], spec: TaskSpec, count: int, seed: int) -> list[Example]:
    """Draw the rows to compare on: of a label task each label equally often, as far as its rows go.

    Else an instruction that makes the model answer the frequent label for every row would score best.
    """
    if spec.is_number or any(row.group for row in rows):
        return take_rows(rows, count, seed)
    labels = Counter(row.gold for row in rows)
    words = [word for word in spec.words if labels[word] > 1]  # one is held out, and one is left to be shown
    if len(words) > count:
        note(f"{spec.name}: the {count} held-out rows have {count} of {len(words)} labels; see validation_rows")
        words = Random(seed).sample(words, count)
    each = max(1, count // max(1, len(words)))
    drawn = [row for word in words for row in _of_label(rows, word, each, seed)]
    return drawn[:count]


def _of_label(rows: Sequence[Example], word: str, count: int, seed: int) -> list[Example]:
    """Draw rows with this answer, and leave at least half of them to be shown."""
    labelled = [row for row in rows if row.gold == word]
    return take_rows(labelled, min(count, len(labelled) // 2), seed)


def load_judges(run: Run, specs: Sequence[TaskSpec]) -> list[Judge]:
    """Return a finished run's judges.

    Raises RunError without its instruction, or for another task than its own.
    """
    path = run.folder / INSTRUCTION
    if not path.is_file():
        raise RunError(f"{path} is missing: the instruction of the run. Search one again with another --out.")
    task_name = read_tasks(run.folder)[0].name
    for spec in specs:
        if spec.name != task_name:
            raise RunError(f"{run.folder} found an instruction for {task_name}, which says nothing of {spec.name}.")
    instruction = path.read_text(encoding="utf-8")
    policy = None if is_api(run.config.model) else load_policy(run.config)
    return [instructed_judge(run, spec.model_copy(update={"instruction": instruction}), policy) for spec in specs]


def is_wrong(row: Example, trial: Trial, spec: TaskSpec) -> bool:
    """Return whether an answer is not the right one, as both are written: 3.8 is right where 3.75 is."""
    if trial.value is None or row.gold is None:
        return row.gold is not None
    return answer_text(trial.value, spec) != answer_text(row.gold, spec)


def shown_row(row: Example) -> str:
    """Return a row as a writer is shown it, long fields shortened."""
    lines = []
    for name, text in row.fields.items():
        plain = " ".join(text.split())
        lines.append(f"{name}: {plain if len(plain) <= _SHOWN_CHARACTERS else plain[:_SHOWN_CHARACTERS] + ' …'}")
    return "\n".join(lines)
