"""Explanations of worked examples: from a file, or written by a model which is shown the right answer.

A file holds whole examples, each with its texts, its answer and an explanation. Some tasks have one that comes with
adjudge. Its examples are made up: no row of a data set is in it.

Source: arXiv 2311.07556 (X-ICL): the explanation stands before the answer, in the examples and in what the model
writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from adjudge.config import PromptConfig
from adjudge.errors import ConfigError, DataError, TaskError, nearest
from adjudge.models.plain_text import encodable
from adjudge.prompts.answers import (
    CLOSING_ANALYSIS,
    CLOSING_TAG,
    OPENING_ANALYSIS,
    OPENING_TAG,
    answer_text,
    read_number,
)
from adjudge.system.text import shorten
from adjudge.tasks.spec import TaskSpec
from adjudge.tasks.task_yaml import read_task_file, read_tree
from adjudge.tasks.template import compiled
from adjudge.types import Example, Explained, Value

WRITTEN = ("zero-shot", "few-shot")
"""Values of `prompt.explanations` with which a model writes them: without examples, or after those of the file."""

REQUEST = """An assistant was given this instruction:

{instruction}

And this to judge:

{row}

The right answer is: {answer}

Explain in one or two sentences why that is the answer: what in the text decides it? Write the explanation alone."""

_SHOWN_CHARACTERS = 1_200
"""Longest field of a row that a writer is shown."""

_TAGS = re.compile("|".join(map(re.escape, (OPENING_ANALYSIS, CLOSING_ANALYSIS, OPENING_TAG, CLOSING_TAG))))
_SENTENCE = re.compile(r".*[.!?](?=[\s\"')]|$)", re.DOTALL)


def explained_examples(spec: TaskSpec, config: PromptConfig) -> list[Explained]:
    """Return the examples of the settings' file, or of the one that comes with adjudge for the task.

    Raises ConfigError when there is none, and TaskError or DataError for a file with mistakes.
    """
    if config.explanations_file is not None:
        path = Path(config.explanations_file)
        return _examples(read_task_file(path), spec, str(path))
    name = _built_in().get(spec.name)
    if name is None:
        raise ConfigError(
            f"{spec.name} has no explained examples that come with adjudge. Give your own with "
            "prompt.explanations_file=FILE, or let a model write explanations: prompt.explanations=zero-shot."
        )
    return _examples(read_tree(_file(name), name), spec, name)


def has_examples(spec: TaskSpec, config: PromptConfig) -> bool:
    """Return whether there is a file of explained examples for a task."""
    return config.explanations_file is not None or spec.name in _built_in()


def controlled(rows: Sequence[Explained], config: PromptConfig) -> list[Explained]:
    """Return the examples as they are shown: with their explanations, or with those of a control.

    ``another`` gives each example the explanation of the next, and the last that of the first: the texts and their
    lengths stay, and none fits its row. ``empty`` keeps the place of the explanation, with nothing in it.
    """
    texts = [row.explanation for row in rows]
    if config.explanation_control == "another":
        texts = [*texts[1:], *texts[:1]]
    elif config.explanation_control == "empty":
        texts = [""] * len(texts)
    return [explained(row, text) for row, text in zip(rows, texts, strict=True)]


def explained(row: Example, explanation: str) -> Explained:
    """Return a row with an explanation."""
    return Explained(row.id, row.fields, row.gold, row.group, row.tags, explanation)


def with_placeholders(rows: Sequence[Example], config: PromptConfig, tokens: int) -> list[Example]:
    """Return rows with texts as long as the explanations yet to be written, to count what will be sent."""
    if config.explanations not in WRITTEN:
        return list(rows)
    return [explained(row, "x" * (4 * tokens)) for row in rows]


def explanation_turns(row: Example, spec: TaskSpec, examples: Sequence[Explained]) -> list[dict[str, str]]:
    """Return what a writer is asked for the explanation of a row, after any examples."""
    turns = []
    for example in examples:
        turns += [_turn("user", _request(example, spec)), _turn("assistant", example.explanation)]
    return [*turns, _turn("user", _request(row, spec))]


def read_explanation(text: str, *, cut: bool = False) -> str:
    """Return an explanation on one line, up to the first tag of the form; may be empty.

    One that was `cut` at the limit ends with its last whole sentence, if it has one.
    """
    plain = " ".join(_TAGS.split(text.removeprefix(OPENING_ANALYSIS), maxsplit=1)[0].split())
    whole = _SENTENCE.match(plain) if cut else None
    return whole[0] if whole else plain


def _request(row: Example, spec: TaskSpec) -> str:
    if row.gold is None:
        raise DataError(f"{row.id}: has no gold answer to explain.")
    values = {name: _short(str(value).strip()) for name, value in row.fields.items()}
    shown = compiled(spec.template, tuple(spec.fields)).render(values).strip()
    return REQUEST.format(instruction=spec.instruction.strip(), row=shown, answer=answer_text(row.gold, spec))


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS].rstrip() + " …"


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": encodable(content)}


def _examples(tree: Mapping[str, Any], spec: TaskSpec, where: str) -> list[Explained]:
    listed = tree.get("examples")
    if not isinstance(listed, list) or not listed:
        raise TaskError(f"{where}: needs 'examples', a list of texts, answer and explanation.")
    if unknown := [key for key in tree if key not in ("examples", "tasks")]:
        raise TaskError(f"{where}: '{unknown[0]}' is not a key of it.{nearest(unknown[0], ('examples',))}")
    name = Path(where).name
    return [
        _example(each, spec, f"{where}: example {number}", f"{name}:{number}") for number, each in enumerate(listed, 1)
    ]


def _example(each: Any, spec: TaskSpec, where: str, row_id: str) -> Explained:
    if not isinstance(each, dict) or set(each) != {"texts", "answer", "explanation"}:
        raise TaskError(f"{where}: must have texts, answer and explanation, and nothing else.")
    texts, answer, explanation = each["texts"], each["answer"], each["explanation"]
    names = list(spec.fields)
    if not isinstance(texts, list) or len(texts) != len(names) or not all(isinstance(text, str) for text in texts):
        raise DataError(f"{where}: 'texts' must be a list with the task's fields in order: {', '.join(names)}.")
    for name, text in zip(names, texts, strict=True):
        if not text.strip() and name not in spec.optional:
            raise DataError(f"{where}: the text for '{name}' is empty.")
    if not isinstance(explanation, str) or not explanation.strip():
        raise DataError(f"{where}: 'explanation' is empty.")
    if match := _TAGS.search(explanation):
        raise DataError(
            f"{where}: 'explanation' has {match[0]}, which ends or begins a part of an answer. Leave it out."
        )
    return Explained(
        row_id,
        dict(zip(names, texts, strict=True)),
        _gold(answer, spec, where),
        explanation=read_explanation(explanation),
    )


def _gold(answer: Any, spec: TaskSpec, where: str) -> Value:
    if spec.number is not None:
        number = read_number(str(answer), spec.number.low, spec.number.high)
        if number is None:
            ends = f"{spec.number.low:g} to {spec.number.high:g}"
            raise DataError(f"{where}: the answer '{shorten(str(answer))}' is no number from {ends}.")
        return number
    if answer not in spec.words:
        raise DataError(
            f"{where}: '{shorten(str(answer))}' is not an answer word of {spec.name}.{nearest(str(answer), spec.words)}"
        )
    return str(answer)


@cache
def _built_in() -> dict[str, str]:
    """Return the file of each task that has one."""
    files: dict[str, str] = {}
    for file in sorted(resources.files("adjudge.prompts").joinpath("explained").iterdir(), key=lambda file: file.name):
        if file.name.endswith(".yaml"):
            tree = read_tree(file.read_text(encoding="utf-8"), file.name)
            files |= dict.fromkeys(tree["tasks"], file.name)
    return files


def _file(name: str) -> str:
    return resources.files("adjudge.prompts").joinpath("explained", name).read_text(encoding="utf-8")
