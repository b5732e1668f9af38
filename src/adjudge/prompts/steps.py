"""Steps before a judgement: what a model is asked, how its answers are read, and what is carried on.

Two kinds: the lines of a program, after which the values of its names are carried on, and questions about the row,
whose answers are. What was carried stands below the row when it is judged.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from adjudge.models.plain_text import encodable
from adjudge.prompts.explanations import read_explanation
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.template import compiled
from adjudge.types import Example

Messages = list[dict[str, str]]

OUTPUT = "output"
"""The name under which what a line prints is carried on."""

RUN_LINE = (
    "You run a program line by line. You are given the values so far and the next line. Write the values that this "
    f"line sets, as name = value, one per line, and nothing else. Where it prints, write {OUTPUT} = True or "
    f"{OUTPUT} = False."
)
WORKED = (
    (("m = 4", "k = m + 1"), "m = 4", "k = 5"),
    (("m = 4", "k = m + 1", "print(k > 7)"), "m = 4, k = 5", f"{OUTPUT} = False"),
)
"""Two lines that are worked out before every step: the lines up to there, the values before it, the answer."""
ASK = "First work through some questions about it. Answer each in one short sentence."

_LONGEST_ANSWER = 300
"""Characters of an answer that are carried on."""
_LONGEST_FIELD = 4_000
"""Characters of a field that a question shows; the judgement's own prompt is shortened by ``prompt.max_tokens``."""
_MOST_VALUES = 16
"""Values that one step may set."""
_VALUE = re.compile(r"([A-Za-z_]\w*)\s*=\s*(-?\d{1,18}|True|False)\.?", re.ASCII)
_NAMES = re.compile(r"[A-Za-z_]\w*", re.ASCII)


@dataclass(slots=True)
class Progress:
    """How far a row is: its steps, what was carried on, and how many answers could not be read."""

    row: Example
    steps: Sequence[str]
    done: int = 0
    carried: dict[str, str] = field(default_factory=dict)
    unread: int = 0


class Steps(Protocol):
    """A kind of steps."""

    def begin(self, row: Example) -> Progress:
        """Return a row with all its steps before it."""

    def turns(self, progress: Progress) -> Messages:
        """Return what the model is asked at the next step."""

    def take(self, progress: Progress, text: str | None) -> None:
        """Read the answer to the next step and carry it on.

        One that cannot be read, or None, changes nothing else.
        """

    def notes(self, progress: Progress) -> str:
        """Return what was carried on, as it stands below the row; empty when that is nothing."""


class Lines:
    """The lines of a field, one by one: after each, the values of the program's names."""

    def __init__(self, name: str) -> None:
        self._field = name

    def begin(self, row: Example) -> Progress:
        """Return a row with the lines of its program, without blank ones."""
        return Progress(row, [line.strip() for line in row.fields[self._field].splitlines() if line.strip()])

    def turns(self, progress: Progress) -> Messages:
        """Return two worked lines, and then the lines so far, the values so far, and the next line."""
        turns = [_turn("system", RUN_LINE)]
        for lines, values, answer in WORKED:
            turns += [_turn("user", _line(lines, values)), _turn("assistant", answer)]
        return [*turns, _turn("user", _line(progress.steps[: progress.done + 1], _listed(progress)))]

    def take(self, progress: Progress, text: str | None) -> None:
        """Carry on the values that an answer sets; the last one of each name stays."""
        known = {OUTPUT, *(name for line in progress.steps[: progress.done + 1] for name in _NAMES.findall(line))}
        values = None if text is None else read_values(text, known)
        progress.done += 1
        if values is None:
            progress.unread += 1
        else:
            progress.carried |= values

    def notes(self, progress: Progress) -> str:
        """Return the values after the last line."""
        return f"Values after the last line: {_listed(progress)}" if progress.carried else ""


class Questions:
    """Questions about the row, one turn each; every answer is shown before the next question."""

    def __init__(self, spec: TaskSpec, steps: Sequence[str]) -> None:
        self._spec, self._steps = spec, tuple(steps)

    def begin(self, row: Example) -> Progress:
        """Return a row with all questions before it."""
        return Progress(row, self._steps)

    def turns(self, progress: Progress) -> Messages:
        """Return the instruction, the row, and the questions up to the next one, with the answers read so far."""
        values = {name: _shortened(str(text).strip()) for name, text in progress.row.fields.items()}
        row = compiled(self._spec.template, tuple(self._spec.fields)).render(values).strip()
        turns = [_turn("system", f"{self._spec.instruction.strip()}\n{ASK}")]
        opening = f"{row}\n\n"
        for step in progress.steps[: progress.done]:
            if step in progress.carried:
                turns += [_turn("user", opening + step), _turn("assistant", progress.carried[step])]
                opening = ""
        return [*turns, _turn("user", opening + progress.steps[progress.done])]

    def take(self, progress: Progress, text: str | None) -> None:
        """Carry on an answer as one line; an empty one cannot be read."""
        answer = read_explanation(text or "")
        step = progress.steps[progress.done]
        progress.done += 1
        if not answer:
            progress.unread += 1
        else:
            progress.carried[step] = answer[:_LONGEST_ANSWER]

    def notes(self, progress: Progress) -> str:
        """Return each question with its answer."""
        return "\n".join(f"{step} {progress.carried[step]}" for step in progress.steps if step in progress.carried)


def read_values(text: str, known: set[str]) -> dict[str, str] | None:
    """Return the values that an answer sets, or None for one that is anything else.

    An answer is ``name = value`` on each line or between commas, with a whole number, True or False, and a name among
    the `known`.
    """
    parts = [part.strip() for part in re.split(r"[\n,]", text) if part.strip()]
    matches = [_VALUE.fullmatch(part) for part in parts]
    values = {match[1]: match[2] for match in matches if match is not None}
    if not parts or len(parts) > _MOST_VALUES or None in matches or not set(values) <= known:
        return None
    return values


def with_notes(spec: TaskSpec) -> tuple[TaskSpec, str]:
    """Return the task with room for notes below its row, and the name of the field that holds them.

    Without notes a prompt is the task's own.
    """
    name = next(name for name in ("notes", "notes_so_far", "notes_of_the_steps") if name not in spec.fields)
    changes = {
        "fields": {**spec.fields, name: name},
        "optional": (*spec.optional, name),
        "template": spec.template.rstrip() + "\n{{ " + name + " }}",
    }
    return spec.model_copy(update=changes), name


def steps_of(spec: TaskSpec, lines: str | None, steps: Sequence[str] | None) -> Steps:
    """Return the steps that the settings of a run name."""
    return Lines(lines) if lines is not None else Questions(spec, steps or ())


def _line(lines: Sequence[str], values: str) -> str:
    """Return what a model is asked at the last of some lines."""
    before = "\n".join(lines[:-1]) or "(nothing)"
    return f"Lines so far:\n{before}\nValues so far: {values}\nNext line: {lines[-1]}"


def _listed(progress: Progress) -> str:
    return ", ".join(f"{name} = {value}" for name, value in progress.carried.items()) or "none"


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_FIELD else f"{text[:_LONGEST_FIELD].rstrip()} …"


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": encodable(content)}
