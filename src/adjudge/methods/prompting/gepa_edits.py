"""GEPA's search with scripted edits: its Pareto search over instructions, with no model that reflects.

Where GEPA (arXiv 2507.19457) asks a large model for a new instruction, this takes the next of five fixed edits. It
shows what the search itself gives, costs no writer, and is not GEPA.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import count

from adjudge.methods.base import Method, Trained
from adjudge.methods.prompting.evolving import Judged, evolve
from adjudge.methods.prompting.searching import Search, is_wrong, load_judges
from adjudge.prompts.answers import answer_text
from adjudge.runs.folder import Run
from adjudge.tasks.spec import TaskSpec
from adjudge.training.mixture import TaskRows
from adjudge.types import Example

_SENTENCE = re.compile(r"(?<=[.!?])\s+")

_RULE_CHARACTERS = 160
"""Longest text that a rule repeats."""


def search_instruction(run: Run, parts: Sequence[TaskRows]) -> Trained:
    """Search an instruction by edits, each in its turn.

    Raises ConfigError without the library, and DataError for too few rows.
    """
    turn = count()

    def propose(search: Search, instruction: str, judged: Sequence[Judged]) -> str | None:
        return EDITS[next(turn) % len(EDITS)](instruction, judged, search.spec)

    return evolve(run, parts, run.config.gepa_edits, propose)


def add_example(instruction: str, judged: Sequence[Judged], spec: TaskSpec) -> str | None:
    """Add a row that was judged wrongly, with its answer; None when every row was right."""
    row = _worst(judged, spec)
    if row is None or row.gold is None:
        return None
    text = " / ".join(" ".join(field.split()) for field in row.fields.values())
    shown = text if len(text) <= _RULE_CHARACTERS else f"{text[:_RULE_CHARACTERS]} …"
    return f'{instruction.strip()} For example, the answer to "{shown}" is {answer_text(row.gold, spec)}.'


def tell_apart(instruction: str, judged: Sequence[Judged], spec: TaskSpec) -> str | None:
    """Add a sentence on two labels that were mistaken for each other; None when none were."""
    for row, trial in judged:
        if isinstance(row.gold, str) and isinstance(trial.value, str) and trial.value != row.gold:
            return f"{instruction.strip()} Answer {trial.value} only where {row.gold} does not fit better."
    return None


def name_answers(instruction: str, _judged: Sequence[Judged], spec: TaskSpec) -> str | None:
    """Put all answers at the end; None for numbers."""
    return f"{instruction.strip()} Answer with exactly one of: {', '.join(spec.words)}." if spec.words else None


def shorten(instruction: str, _judged: Sequence[Judged], _spec: TaskSpec) -> str | None:
    """Drop the last sentence; None for a single one."""
    sentences = _SENTENCE.split(instruction.strip())
    return " ".join(sentences[:-1]) if len(sentences) > 1 else None


def reorder(instruction: str, _judged: Sequence[Judged], _spec: TaskSpec) -> str | None:
    """Put the last sentence first; None for a single one."""
    sentences = _SENTENCE.split(instruction.strip())
    return " ".join([sentences[-1], *sentences[:-1]]) if len(sentences) > 1 else None


EDITS: tuple[Callable[[str, Sequence[Judged], TaskSpec], str | None], ...] = (
    add_example,
    tell_apart,
    reorder,
    name_answers,
    shorten,
)
"""The edits in the order of their turns."""


def _worst(judged_rows: Sequence[Judged], spec: TaskSpec) -> Example | None:
    wrong = [(trial.score, index) for index, (row, trial) in enumerate(judged_rows) if is_wrong(row, trial, spec)]
    return judged_rows[min(wrong)[1]][0] if wrong else None


METHOD = Method(search_instruction, load_judges)
